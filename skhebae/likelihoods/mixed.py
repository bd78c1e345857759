"""Mixed likelihood: each column of a table has a family of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skhebae.data import Columns, Matrix, Scaling, Table
from skhebae.likelihoods.base import (
    Decoded,
    Evidence,
    Float32Array,
    Likelihood,
    as_tensor,
)
from skhebae.likelihoods.families import find_family


@dataclass(frozen=True)
class MixedScaling(Scaling):
    """The scalings of the families of a table, side by side.

    A column of the table becomes one feature or several, so there are q >= p of these.

    Attributes
    ----------
    location, scale : ndarray of shape (q,), float64
    table_columns : Columns
        The columns of the table, in its order.
    parts : tuple of Scaling
        One per family, each of the columns that have it.
    constant : ndarray of int
        Features that did not vary.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    table_columns: Columns
    parts: tuple[Scaling, ...]
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    may_miss: ClassVar[bool] = True

    @property
    def columns(self) -> Columns:  # type: ignore[override]
        """Columns of the table."""
        return self.table_columns

    @classmethod
    def measure(cls, table: Table) -> Self:
        """Measure the columns of each family."""
        assert table.columns is not None
        parts = []
        for family, places in groups_of(table.columns):
            items = tuple(table.columns.items[j] for j in places)
            X = table.X[:, places]
            scaling_class = family.scaling_class
            if not scaling_class.may_miss:
                X = fill(X)
            own = replace(table, X=X, columns=replace(table.columns, items=items))
            parts.append(scaling_class.measure(own))
        return cls.join(table.columns, parts)

    @classmethod
    def join(cls, columns: Columns, parts: Sequence[Scaling]) -> Self:
        """Put the scalings of families together."""
        starts = np.cumsum([0, *(len(part.location) for part in parts)])
        return cls(
            np.concatenate([part.location for part in parts]),
            np.concatenate([part.scale for part in parts]),
            columns,
            tuple(parts),
            np.concatenate(
                [part.constant + start for part, start in zip(parts, starts, strict=False)]
            ).astype(np.intp),
        )

    def divided(self) -> list[tuple[type[Likelihood], NDArray[np.intp], Scaling, slice]]:
        """Return each likelihood with its columns, its scaling and its features."""
        divided, start = [], 0
        for (family, places), part in zip(groups_of(self.columns), self.parts, strict=True):
            end = start + len(part.location)
            divided.append((family, places, part, slice(start, end)))
            start = end
        return divided

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        self.columns.check()
        for part in self.parts:
            part.check(len(part.location))

    def pack(self) -> dict[str, Any]:
        """Return JSON values and arrays."""
        return {
            "columns": self.columns.pack(),
            "parts": [part.pack() for part in self.parts],
        }

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> Self:
        """Invert `pack`."""
        columns = Columns.unpack(packed["columns"])
        groups = groups_of(columns)
        parts = [
            family.scaling_class.unpack(part)
            for (family, _), part in zip(groups, packed["parts"], strict=True)
        ]
        return cls.join(columns, parts)

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map rows (n, p) to standardised features (n, q), NaN where a value is missing."""
        parts = [part.standardise(X[:, places]) for _, places, part, _ in self.divided()]
        return np.concatenate(parts, axis=1)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map standardised features (n, q) to rows (n, p)."""
        return self.put(
            [
                part.restore(np.ascontiguousarray(standardised[:, own]))
                for _, _, part, own in self.divided()
            ]
        )

    def put(self, parts: Sequence[NDArray[Any]]) -> NDArray[np.float64]:
        """Put the columns of families into the order of the table, (n, p)."""
        rows = np.empty((len(parts[0]), len(self.columns)))
        for values, (_, places, _, _) in zip(parts, self.divided(), strict=True):
            rows[:, places] = values
        return rows

    def restore_differences(self, standardised: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map differences between features (n, q) to the units of features."""
        difference: NDArray[np.float64] = standardised * self.scale
        return difference


def fill(X: NDArray[np.float64]) -> NDArray[np.float64]:
    """Fill missing values with the means of their columns."""
    if not np.isnan(X).any():
        return X
    return np.where(np.isnan(X), np.nanmean(X, axis=0), X)


def groups_of(columns: Columns) -> list[tuple[type[Likelihood], NDArray[np.intp]]]:
    """Return each likelihood, in the order in which they appear, with the places of its columns.

    Families that share a likelihood make one part, which takes fewer operations than several.
    """
    families: dict[type[Likelihood], list[int]] = {}
    for j, column in enumerate(columns.items):
        families.setdefault(find_family(column.family), []).append(j)
    return [(family, np.array(places, dtype=np.intp)) for family, places in families.items()]


class PartOfEvidence:
    """What an `Evidence` says about some features.

    Parameters
    ----------
    evidence : Evidence
    own : slice
        The features.
    """

    def __init__(self, evidence: Evidence, own: slice) -> None:
        self._evidence, self._own = evidence, own
        self.lacks_noise, self.n_rows = evidence.lacks_noise, evidence.n_rows
        self.is_part = evidence.is_part

    def _part(self, rows: Decoded) -> Decoded:
        mask = None if rows.mask is None else rows.mask[:, self._own]
        return Decoded(rows.x[:, self._own], rows.parameter[:, self._own], mask, rows.weight)

    def mean_over_rows(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Average a function over observed entries."""

        def sums(rows: Decoded) -> Tensor:
            values = function(rows.x, rows.parameter)
            seen = torch.ones_like(values) if rows.mask is None else rows.mask.to(values)
            return torch.stack([rows.total(values * seen), rows.total(seen)])

        total, observed = self.sum_over_rows(sums)
        mean: Tensor = total / observed.clamp_min(1e-12)
        return mean

    def sum_over_rows(self, function: Callable[[Decoded], Tensor]) -> Tensor:
        """Add up a function of chunks of rows."""
        return self._evidence.sum_over_rows(lambda rows: function(self._part(rows)))

    def decode_some(self, n_numbers: int) -> list[Decoded]:
        """Decode rows spread over the table."""
        return [self._part(rows) for rows in self._evidence.decode_some(n_numbers)]

    def sum(self, values: Tensor) -> Tensor:
        """Add up the values of all processes."""
        return self._evidence.sum(values)

    def code_variance(self) -> Tensor:
        """Return the variance of each output that codes of training lack."""
        variance: Tensor = self._evidence.code_variance()[self._own]
        return variance


class MixedLikelihood(Likelihood):
    """``p(x | z) = prod_j p_j(x_j | z)``, where column j may have any family p_j.

    Parameters
    ----------
    location, scale : Tensor of shape (q,)
    parts : sequence of Likelihood
        Each of as many features as its location has, one after another.
    """

    scaling_class: ClassVar[type[Scaling]] = MixedScaling
    # Noiseless codes would learn categories by heart: docs/benchmarks-mixed.md.
    row_share: ClassVar[float] = 1.0
    accepts_missing: ClassVar[bool] = True
    starts_linear: ClassVar[bool] = True
    # Logits are a linear function of codes to first order only. The trial's squared errors may
    # prefer a linear model all the same, and its draws are then easily told from real rows.
    keeps_linear_start: ClassVar[bool] = False
    counts_code_variance: ClassVar[bool] = True

    def __init__(self, location: Tensor, scale: Tensor, parts: Sequence[Likelihood]) -> None:
        # Not that of `Likelihood`: the calibration is that of the parts.
        nn.Module.__init__(self)
        self.register_buffer("location", location)
        self.register_buffer("scale", scale)
        self.parts = nn.ModuleList(parts)
        self.sizes = [part.location.numel() for part in parts]

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihoods of all parts, in float32."""
        assert isinstance(scaling, MixedScaling)
        parts = [family.from_scaling(part) for family, _, part, _ in scaling.divided()]
        return cls(as_tensor(scaling.location), as_tensor(scaling.scale), parts).float()

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *arguments: Any) -> None:
        nn.Module._load_from_state_dict(self, state, prefix, *arguments)

    @property
    def calibration(self) -> Tensor:  # type: ignore[override]
        """Shift and gain of each feature, (q, 2)."""
        return torch.cat([part.calibration for part in self.likelihoods])

    def set_calibration(self, calibration: Tensor) -> None:
        """Set shift and gain of each feature, (q, 2)."""
        for part, own in zip(self.likelihoods, self._split(calibration), strict=True):
            part.set_calibration(own)

    @property
    def likelihoods(self) -> list[Likelihood]:
        """The parts."""
        return list(self.parts)  # type: ignore[arg-type]

    def _split(self, values: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
        """Return the share of each part."""
        return torch.split(values, self.sizes, dim=dim)

    def _join(self, method: str, *values: Tensor, dim: int = -1, **options: Any) -> Tensor:
        """Call a method of each part with its share of the last dimension of values."""
        shares = zip(*(self._split(value, dim) for value in values), strict=True)
        results = [
            getattr(part, method)(*own, **options)
            for part, own in zip(self.likelihoods, shares, strict=True)
        ]
        return torch.cat(results, dim=dim)

    def original_rows(self, rows: Float32Array, scaling: Scaling, *, drawn: bool) -> Any:
        """Map means, or draws if `drawn`, to rows of the table, (n, p)."""
        assert isinstance(scaling, MixedScaling)
        divided = zip(self.likelihoods, scaling.divided(), strict=True)
        return scaling.put(
            [
                part.original_rows(np.ascontiguousarray(rows[:, own]), part_scaling, drawn=drawn)
                for part, (_, _, part_scaling, own) in divided
            ]
        )

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return the input of each part, (n, q)."""
        return self._join("encoder_input", x)

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Return the parameter of each part, (n, q)."""
        return self._join("parameter", output, log_size=log_size)

    def start_linear(self) -> None:
        """Prepare each part."""
        for part in self.likelihoods:
            part.start_linear()

    def start_residual(self, residual: float) -> None:
        """Tell each part."""
        for part in self.likelihoods:
            part.start_residual(residual)

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Return the loadings of each part, (q, d)."""
        return self._join("linear_loadings", loadings, dim=0)

    def initial_bias(self) -> Tensor:
        """Return the bias of each part, (q,)."""
        return torch.cat([part.initial_bias() for part in self.likelihoods])

    def calibrate(self, parameter: Tensor, calibration: Tensor) -> Tensor:
        """Calibrate the parameter of each part, (n, q)."""
        shares = zip(
            self.likelihoods,
            self._split(parameter, -1),
            self._split(calibration),
            strict=True,
        )
        return torch.cat([part.calibrate(own, numbers) for part, own, numbers in shares], dim=-1)

    def contrast(self, parameter: Tensor) -> Tensor:
        """Return the contrast of each part, (n, q)."""
        return self._join("contrast", parameter)

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the entries of each part, (n, q), nats."""
        return self._join("entry_log_prob", x, parameter)

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the mean of each part, (n, q)."""
        return self._join("mean", parameter)

    def average(self, parameters: Tensor) -> Tensor:
        """Return the average of each part, (n, q)."""
        return self._join("average", parameters)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from each part, (n, q)."""
        return self._join("sample", parameter, generator=generator)

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return the information of each part, (n, q)."""
        return self._join("fisher_information", parameter)

    def variance(self, parameter: Tensor) -> Tensor:
        """Return the variance of each entry, (n, q)."""
        return self._join("variance", parameter)

    def residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the residuals of all parts, (n, q)."""
        return self._join("residual", x, parameter)

    def extra_loss(self) -> Tensor | None:
        """Add up the terms of the parts."""
        terms = [term for part in self.likelihoods if (term := part.extra_loss()) is not None]
        return torch.stack(terms).sum() if terms else None

    def set_code_variance(self, variance: Tensor) -> None:
        """Tell each part."""
        for part, own in zip(self.likelihoods, self._split(variance), strict=True):
            part.set_code_variance(own)

    def finish(self, evidence: Evidence) -> None:
        """Let each part finish."""
        start = 0
        for part, size in zip(self.likelihoods, self.sizes, strict=True):
            part.finish(PartOfEvidence(evidence, slice(start, start + size)))
            start += size
