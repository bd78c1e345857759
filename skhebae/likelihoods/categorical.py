"""Categorical likelihood: one of several levels, as a softmax over their logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Matrix, Scaling, Table
from skhebae.distributed import SINGLE, Group
from skhebae.files import check_floats
from skhebae.likelihoods.base import LEAST_PROBABILITY, Float32Array, Likelihood, as_tensor

#: Levels of a column that have an output of their own, at most. The rarest share one.
MOST_OUTPUTS = 100

#: Smallest share of a level by which loadings are divided. By less, chance in a few rows would
#: start as a large logit.
SMALLEST_SHARE = 0.02


@dataclass(frozen=True)
class CategoricalScaling(Scaling):
    """From codes of levels (n, p) to standardised indicators (n, q), and back.

    The indicators of a column have one unit in common, by which the variance of all together is
    1. So a column counts as much as a number, however many levels it has.

    Attributes
    ----------
    location, scale : ndarray of shape (q,), float64
        Shares of the outputs, and the units.
    starts, level_starts : ndarray of int of shape (p + 1,)
        Where the outputs and the levels of each column begin.
    outputs : ndarray of int
        Output of each level, counted within its column.
    shares : ndarray of float64
        Share of each level in its output.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    starts: NDArray[np.intp]
    level_starts: NDArray[np.intp]
    outputs: NDArray[np.intp]
    shares: NDArray[np.float64]
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    may_miss: ClassVar[bool] = True

    @classmethod
    def measure(cls, table: Table) -> Self:
        """Count the levels in the tables of all processes."""
        assert table.columns is not None
        n_levels = [max(1, len(column.levels or [])) for column in table.columns.items]
        return cls.of_codes(np.asarray(table.X), n_levels, table.group, table.weight)

    @classmethod
    def of_codes(
        cls,
        X: NDArray[np.float64],
        n_levels: Sequence[int],
        group: Group = SINGLE,
        weight: NDArray[np.float64] | None = None,
    ) -> Self:
        """Count the codes (n, p) of all processes, of so many levels per column.

        Each row as often as its `weight` (n,) says.
        """
        location, scale, constant, outputs, shares = [], [], [], [], []
        starts, level_starts = [0], [0]
        weight = np.ones(len(X)) if weight is None else weight
        for j, n_codes in enumerate(n_levels):
            seen = ~np.isnan(X[:, j])
            codes = X[seen, j].astype(np.intp)
            own = np.bincount(codes, weights=weight[seen], minlength=n_codes)
            counts = np.sum(group.gather(own), axis=0)
            output, share, p = share_outputs(counts)
            deviation = float(np.sqrt(max(0.0, 1.0 - np.square(p).sum())))
            if len(p) == 1:
                constant.append(starts[-1])
                deviation = 1.0
            location.append(p)
            scale.append(np.full(len(p), deviation))
            outputs.append(output)
            shares.append(share)
            starts.append(starts[-1] + len(p))
            level_starts.append(level_starts[-1] + n_codes)
        return cls(
            np.concatenate(location),
            np.concatenate(scale),
            np.array(starts, dtype=np.intp),
            np.array(level_starts, dtype=np.intp),
            np.concatenate(outputs),
            np.concatenate(shares),
            np.array(constant, dtype=np.intp),
        )

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        for name, end in (("starts", n_features), ("level_starts", len(self.outputs))):
            starts = np.asarray(getattr(self, name))
            if starts.dtype.kind != "i" or starts.ndim != 1 or len(starts) != len(self.starts):
                raise ValueError(f"{name} are no places of columns")
            if starts[0] != 0 or starts[-1] != end or (np.diff(starts) < 1).any():
                raise ValueError(f"{name} do not divide {end} numbers")
        check_floats(self.shares, "shares", (len(self.outputs),))
        for j, (levels, start, end) in enumerate(self._columns()):
            output = np.asarray(self.outputs[levels])
            if output.dtype.kind != "i" or not 0 <= output.min() <= output.max() < end - start:
                raise ValueError(f"outputs names more than column {j} has")

    def _columns(self) -> list[tuple[slice, int, int]]:
        """Return where levels and outputs of each column are."""
        bounds = zip(self.level_starts[:-1], self.level_starts[1:], strict=True)
        return [
            (slice(int(low), int(high)), int(start), int(end))
            for (low, high), start, end in zip(
                bounds, self.starts[:-1], self.starts[1:], strict=True
            )
        ]

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map codes to standardised indicators; NaN where the code is missing."""
        codes = np.asarray(X, dtype=np.float64)
        rows = np.arange(len(codes))
        indicators = np.zeros((len(codes), len(self.location)))
        for j, (levels, start, end) in enumerate(self._columns()):
            missing = np.isnan(codes[:, j])
            output = self.outputs[levels][np.where(missing, 0.0, codes[:, j]).astype(np.intp)]
            indicators[rows, start + output] = 1.0
            indicators[missing, start:end] = np.nan
        result: NDArray[np.float32] = ((indicators - self.location) / self.scale).astype(np.float32)
        return result

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map indicators, or probabilities, to the code of the largest.

        Of levels that share an output, a drawn one is told by how far its indicator lies above 1
        (`CategoricalLikelihood.sample`), else the most frequent is taken.
        """
        values = standardised.astype(np.float64) * self.scale + self.location
        codes = np.empty((len(values), len(self.starts) - 1))
        for j, (levels, start, end) in enumerate(self._columns()):
            block = values[:, start:end]
            chosen = block.argmax(axis=1)
            output, share = self.outputs[levels], self.shares[levels]
            first = np.array([np.flatnonzero(output == k)[0] for k in range(end - start)])
            codes[:, j] = first[chosen]
            shared = int(np.bincount(output).argmax())
            members = np.flatnonzero(output == shared)
            if len(members) == 1:
                continue
            here = np.flatnonzero(chosen == shared)
            codes[here, j] = members[share[members].argmax()]
            quantile = 2.0 * (block[here, shared] - 1.0)
            ends = np.cumsum(share[members])
            place = np.searchsorted(ends / ends[-1], quantile, side="right")
            drawn = members[place.clip(max=len(members) - 1)]
            codes[here, j] = np.where(quantile > 0.0, drawn, codes[here, j])
        return codes


def share_outputs(
    counts: NDArray[np.float64],
) -> tuple[NDArray[np.intp], NDArray[np.float64], NDArray[np.float64]]:
    """Give each level an output; return these, shares in them, and the outputs' shares."""
    n_levels = len(counts)
    counts = np.maximum(counts, 0.5)  # a level of a file of another process may have no rows here
    output = np.arange(n_levels)
    if n_levels > MOST_OUTPUTS:
        rank = np.argsort(np.argsort(-counts, kind="stable"), kind="stable")
        kept = rank < MOST_OUTPUTS - 1
        output = np.full(n_levels, MOST_OUTPUTS - 1)
        output[kept] = np.arange(MOST_OUTPUTS - 1)
    totals = np.bincount(output, weights=counts)
    return output.astype(np.intp), counts / totals[output], totals / totals.sum()


class CategoricalLikelihood(Likelihood):
    """``p(x = k | z) = softmax(l(z))_k`` for each column; the parameter is ``log p(x = k | z)``.

    Parameters
    ----------
    location, scale : Tensor of shape (q,)
        Shares of the outputs, and the units of their indicators.
    starts : Tensor of int of shape (n_columns + 1,)
        Where the outputs of each column begin.
    shared : Tensor of bool of shape (q,)
        Outputs that several levels share.
    """

    scaling_class: ClassVar[type[Scaling]] = CategoricalScaling
    accepts_missing: ClassVar[bool] = True
    starts_linear: ClassVar[bool] = True

    places: Tensor
    own: Tensor
    column: Tensor
    members: Tensor
    lacking: Tensor
    shared: Tensor

    def __init__(self, location: Tensor, scale: Tensor, starts: Tensor, shared: Tensor) -> None:
        super().__init__(location, scale)
        sizes = starts.diff()
        widest = int(sizes.max())
        steps = torch.arange(widest, dtype=starts.dtype, device=starts.device)
        lacking = steps >= sizes[:, None]
        places = (starts[:-1, None] + steps).where(~lacking, starts[:-1, None])
        columns = torch.arange(len(sizes), dtype=starts.dtype, device=starts.device)
        within = (columns * widest)[:, None] + steps
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("lacking", lacking, persistent=False)
        self.register_buffer("own", within[~lacking], persistent=False)
        column = torch.repeat_interleave(columns, sizes)
        self.register_buffer("column", column, persistent=False)
        members = (column[:, None] == columns).to(location.dtype)
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("shared", shared, persistent=False)

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by a `CategoricalScaling`, in float32."""
        assert isinstance(scaling, CategoricalScaling)
        shared = np.zeros(len(scaling.location), dtype=bool)
        for levels, start, end in scaling._columns():
            shared[start:end] = np.bincount(scaling.outputs[levels], minlength=end - start) > 1
        parts = (scaling.location, scaling.scale, scaling.starts, shared)
        return cls(*map(as_tensor, parts)).float()

    def _blocks(self, values: Tensor) -> Tensor:
        """Return values by column, filled up by minus infinity, (n, n_columns, widest)."""
        return values[..., self.places].masked_fill(self.lacking, -torch.inf)

    def _flat(self, blocks: Tensor) -> Tensor:
        """Invert `_blocks`, (n, q)."""
        return blocks.flatten(start_dim=-2)[..., self.own]

    def log_softmax(self, values: Tensor) -> Tensor:
        """Return log-probabilities of logits, (n, q).

        By a product with a matrix of zeros and ones, whose derivative is another one; that of
        picking columns takes several times as long.
        """
        with torch.no_grad():
            largest = self._blocks(values).amax(dim=-1)[..., self.column]
        below = values - largest
        return below - (below.exp() @ self.members).log() @ self.members.T

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Return log-probabilities, (n, q).

        Their derivatives by anything have the mean 0 under the probabilities. That makes the
        Fisher information of the logits, which is not diagonal, a diagonal one.
        """
        return self.log_softmax(output)

    def calibrate(self, parameter: Tensor, calibration: Tensor) -> Tensor:
        """Return log-probabilities, (n, q)."""
        return self.log_softmax(super().calibrate(parameter, calibration))

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return ``x_k log p_k`` of each indicator, (n, q), nats."""
        return (x * self.scale + self.location) * parameter

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the probabilities, standardised, (n, q)."""
        return (parameter.exp() - self.location) / self.scale

    def average(self, parameters: Tensor) -> Tensor:
        """Return the logarithms of average probabilities, (n, q)."""
        average: Tensor = parameters.logsumexp(dim=0)
        return average - float(np.log(len(parameters)))

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a level of each column, as standardised indicators, (n, q).

        An indicator of an output that levels share lies above 1 by half a uniform number, by
        which `CategoricalScaling.restore` draws one of them.
        """
        uniform = torch.rand(
            parameter.shape, generator=generator, dtype=parameter.dtype, device=parameter.device
        )
        tiny = torch.finfo(parameter.dtype).tiny
        gumbel = -(-uniform.clamp_min(tiny).log()).clamp_min(tiny).log()
        blocks = self._blocks(parameter + gumbel)
        drawn = torch.zeros_like(blocks).scatter_(-1, blocks.argmax(dim=-1, keepdim=True), 1.0)
        further = torch.rand(
            parameter.shape, generator=generator, dtype=parameter.dtype, device=parameter.device
        )
        indicators = self._flat(drawn) * (1.0 + 0.5 * further * self.shared)
        return (indicators - self.location) / self.scale

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return the probabilities, the information about log-probabilities, (n, q)."""
        return parameter.exp()

    def variance(self, parameter: Tensor) -> Tensor:
        """Return ``p_k (1 - p_k)`` of each indicator, standardised, (n, q)."""
        return parameter.exp() * -torch.expm1(parameter) / self.scale.square()

    def pearson_residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return ``x_k / sqrt(p_k)`` of each indicator, unless p_k is too small, (n, q)."""
        root = parameter.exp().clamp_min(LEAST_PROBABILITY).sqrt()
        return (x * self.scale + self.location) / root

    def initial_bias(self) -> Tensor:
        """Return the logarithms of the shares, (q,)."""
        return self.location.log()

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Divide by the slope of the probability, which is the share for centred logits."""
        slope = self.location.clamp_min(SMALLEST_SHARE)
        return loadings * (self.scale / slope)[:, None]

    def original_rows(self, rows: Float32Array, scaling: Scaling, *, drawn: bool) -> Any:
        """Map to the codes of the most likely levels, or of those drawn."""
        return scaling.restore(rows)
