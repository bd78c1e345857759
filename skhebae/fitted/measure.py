"""Passes over the training rows once the networks are trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import (
    Minibatch,
    Rows,
    counted_rows,
    map_rows,
    minibatch_indices,
    take_chunks,
    weight_of,
)
from skhebae.distributed import Group
from skhebae.divergences import cholesky_factor
from skhebae.fitted.codes import MIXTURE_ROWS, CodeMoments
from skhebae.likelihoods import Decoded, Likelihood, identity_calibration
from skhebae.model import Autoencoder
from skhebae.objectives import Objective
from skhebae.posterior import Linearisation, code_variance, linearise
from skhebae.process import cached_property
from skhebae.training import Run
from skhebae.training.loop import check_finite
from skhebae.training.step import jacobian_rows

#: Rows per chunk of the pass over the decoded rows.
DECODED_ROWS = 1024

#: Rows whose codes are in memory together, unless those of all rows are few.
BLOCK_ROWS = 2**16

#: Codes and spreads up to this size are kept until the likelihood has finished, so that rows are
#: encoded once. A larger table is encoded once more.
KEPT_BYTES = 2**26

#: Rows that `Evidence.decode_some` decodes at least, if there are as many.
SOME_ROWS = 512

#: Rows whose Jacobians `Evidence.code_variance` looks at, and those that the axes of codes follow
#: from, unless the table is a part of a stream: the fewer, the further axes are off by chance.
JACOBIAN_ROWS, AXES_ROWS = 128, 512


def encode_with_spread(model: Autoencoder, objective: Objective, minibatch: Minibatch) -> Tensor:
    """Return posterior means and the diagonals of D_i side by side, (n, 2 d)."""
    mu, scales = model.encode(minibatch)
    return torch.cat([mu, objective.spread(scales, mu.shape[1])], dim=1)


class MeasuredCodes(NamedTuple):
    """Results of `measure_codes`.

    Attributes
    ----------
    moments : CodeMoments
        Moments of the codes of all rows, in all processes.
    chosen : ndarray of shape (n_chosen, 2 n_components)
        `encode_with_spread` of at most `MIXTURE_ROWS` rows of all processes.
    encoded : ndarray of shape (n_samples, 2 n_components) or None
        `encode_with_spread` of the rows of this process, if they take at most `KEPT_BYTES`.
    """

    moments: CodeMoments
    chosen: NDArray[np.float32]
    encoded: NDArray[np.float32] | None


def measure_codes(
    run: Run, rows: Rows, seed: int, out: NDArray[np.float32] | None = None
) -> MeasuredCodes:
    """Encode all rows, and measure their codes.

    One block of rows after another, so that the codes of a large table are never in memory
    together. With several processes each measures its own rows, and contributes codes in
    proportion.

    Parameters
    ----------
    run : Run
        With a trained model.
    rows : Rows
    seed : int
        Seeds the choice of codes.
    out : ndarray of shape (n_samples, n_components), optional
        Receives the codes of all rows of this process.
    """
    model, group = run.model, run.group
    n_components = model.n_components
    own = math.ceil(weight_of(rows, counted_rows(rows)))
    wanted = kept_rows(group.gather(own))[group.rank]
    chosen = choose_rows(rows, wanted, np.random.RandomState(seed))
    kept = np.empty((len(chosen), 2 * n_components), dtype=np.float32)
    encoded: NDArray[np.float32] | None = None
    if len(rows) * 2 * n_components * 4 <= KEPT_BYTES:
        encoded = np.empty((len(rows), 2 * n_components), dtype=np.float32)
    moments: list[CodeMoments] = []
    for block in minibatch_indices(np.arange(len(rows)), BLOCK_ROWS):
        if len(block) == 0:
            continue
        values = map_rows(
            lambda minibatch: encode_with_spread(model, run.objective, minibatch),
            lambda chunk, block=block: rows.take(block[chunk]),  # type: ignore[misc]
            len(block),
            numbers_per_row=model.n_features,
        )
        check_finite({"code": float(np.abs(values).max())})
        codes, spread = values[:, :n_components], values[:, n_components:]
        if encoded is not None:
            encoded[block] = values
        if out is not None:
            out[block] = codes
        here = np.flatnonzero((chosen >= block[0]) & (chosen <= block[-1]))
        kept[here] = values[chosen[here] - block[0]]
        if rows.weight is None:
            moments.append(CodeMoments.measure(codes, spread))
        elif (weight := rows.weight[block]).any():
            moments.append(CodeMoments.measure(codes, spread, weight))
    mine = [reduce(CodeMoments.merge, moments)] if moments else []
    together = [own for part in group.gather(mine) for own in part]
    return MeasuredCodes(
        reduce(CodeMoments.merge, together), np.concatenate(group.gather(kept)), encoded
    )


def choose_rows(rows: Rows, n_rows: int, rng: np.random.RandomState) -> NDArray[np.intp]:
    """Draw some of the rows, (n_rows,): each as often as it counts, by its share if not all.

    Of rows without weights none is drawn twice.
    """
    if rows.weight is None:
        return rng.permutation(len(rows))[:n_rows]
    ends = np.cumsum(rows.weight)
    if n_rows == 0:
        return np.arange(0)
    # Systematic sampling: whole weights that add up to `n_rows` are kept to.
    ends = np.floor(n_rows * (ends / ends[-1]) + rng.uniform(0.1, 0.9))
    times = np.diff(ends, prepend=0.0).astype(np.intp)
    return rng.permutation(np.repeat(np.arange(len(rows)), times))


def kept_rows(counts: Sequence[int]) -> list[int]:
    """Return how many codes each process contributes to the mixture's `MIXTURE_ROWS`."""
    share = min(1.0, MIXTURE_ROWS / sum(counts))
    ends = np.rint(share * np.cumsum([0, *counts])).astype(int)
    result: list[int] = np.diff(ends).tolist()
    return result


def noise_covariance(
    objective: Objective, moments: CodeMoments, batch_size: float
) -> NDArray[np.float64]:
    """Return C in the posterior ``N(mu_i, D_i C D_i)``, from the training codes.

    The hyperprior has the weight that it had in minibatches of `batch_size` rows, or of so much
    summed weight.
    """
    # A copy: a memory-mapped pickle holds read-only arrays.
    covariance = torch.from_numpy(np.array(moments.covariance))
    result: NDArray[np.float64] = objective.noise_covariance(covariance, batch_size).numpy()
    return result


class TrainedRows:
    """The `Evidence` on which a likelihood finishes: the trained networks and the rows of `fit`.

    Parameters
    ----------
    run : Run
    rows : Rows
    posterior_noise : ndarray of shape (d, d)
        C of `noise_covariance`.
    encoded : ndarray of shape (n_samples, 2 d), optional
        `encode_with_spread` of the rows.
    is_part : bool, optional
        Whether the table is a part of a stream.
    """

    def __init__(
        self,
        run: Run,
        rows: Rows,
        posterior_noise: NDArray[np.float64],
        encoded: NDArray[np.float32] | None = None,
        *,
        is_part: bool = False,
    ) -> None:
        self._run, self._rows, self._counted = run, rows, counted_rows(rows)
        self._posterior_noise, self._encoded = posterior_noise, encoded
        self.lacks_noise = run.objective.row_weight < 1.0
        self._own_weight = weight_of(rows, self._counted)
        self.n_rows = sum(run.group.gather(self._own_weight))
        self.is_part = is_part

    @property
    def model(self) -> Autoencoder:
        """The trained model."""
        return self._run.model

    @property
    def group(self) -> Group:
        """The processes that fit together."""
        return self._run.group

    def mean_over_rows(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Average ``function(x, parameter)`` (n, p) over observed entries, (p,).

        With one draw of each row's code.
        """

        def sums(part: Decoded) -> Tensor:
            values = function(part.x, part.parameter)
            if part.mask is None:
                total = part.total(values)
                return torch.stack([total, torch.full_like(total, part.n_counted())])
            observed = part.total(part.mask.to(values))
            return torch.stack([part.total(values.where(part.mask, 0.0)), observed])

        total, observed = self.sum_over_rows(sums)
        mean: Tensor = total / observed.clamp_min(1e-12)
        return mean.to(self._run.model.likelihood.location)

    def sum_over_rows(self, function: Callable[[Decoded], Tensor]) -> Tensor:
        """Add up what `function` returns for chunks of all rows, in float64 on the CPU."""
        parts = self._decode(self._counted)
        total = function(next(parts)).cpu().double()
        for part in parts:
            total += function(part).cpu().double()
        return self.sum(total)

    def decode_some(self, n_numbers: int) -> list[Decoded]:
        """Decode rows spread over the table until they have about `n_numbers` entries."""
        return list(self._decode(self.spaced(max(SOME_ROWS, n_numbers // self.model.n_features))))

    def sum(self, values: Tensor) -> Tensor:
        """Add up the values of all processes."""
        own = values.detach().cpu().numpy()
        return torch.from_numpy(np.asarray(np.sum(self._run.group.gather(own), axis=0))).to(values)

    def _decode(self, indices: NDArray[np.intp]) -> Iterator[Decoded]:
        """Decode some rows, chunk by chunk, with one draw of each row's code."""
        run, model = self._run, self._run.model
        factor = cholesky_factor(torch.from_numpy(self._posterior_noise))
        factor = factor.to(model.device, torch.float32)
        for chunk in minibatch_indices(indices, DECODED_ROWS):
            with torch.no_grad():
                minibatch = self._rows.take(chunk)
                mu, spread = self._encode(minibatch, chunk).chunk(2, dim=1)
                noise = torch.randn(
                    mu.shape, generator=run.generators.noise, dtype=mu.dtype, device=mu.device
                )
                parameter = model.decode_rows(mu + spread * (noise @ factor.T), minibatch)
            yield Decoded(minibatch.x, parameter, minibatch.mask, minibatch.weight)

    def _encode(self, minibatch: Minibatch, indices: NDArray[np.intp]) -> Tensor:
        """Return posterior means and the diagonals of D_i of some rows, (n, 2 d)."""
        if self._encoded is None:
            return encode_with_spread(self._run.model, self._run.objective, minibatch)
        return torch.from_numpy(self._encoded[indices]).to(minibatch.x.device)

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over all rows of a mean over those of this process, perhaps none."""
        return self._run.group.mean(values, self._own_weight)

    def spaced(self, n_rows: int) -> NDArray[np.intp]:
        """Return the indices of about `n_rows` rows, evenly spaced over the table."""
        every = max(1, -(-len(self._counted) // n_rows))
        return self._rows.ordered(self._counted[::every])

    def weight_of(self, indices: NDArray[np.intp]) -> float:
        """Add up the weights of some rows: their number, where rows have none."""
        return weight_of(self._rows, indices)

    def take_encoded(
        self, indices: NDArray[np.intp], chunk_rows: int
    ) -> Iterator[tuple[Minibatch, Tensor, Tensor]]:
        """Take rows in chunks, each with the encoder's codes and the diagonals of D_i, (n, d)."""
        for chunk, minibatch in take_chunks(self._rows, indices, chunk_rows):
            codes, spread = self._encode(minibatch, chunk).chunk(2, dim=1)
            yield minibatch, codes, spread

    @property
    def posterior_noise(self) -> NDArray[np.float64]:
        """C of the posteriors ``N(mu_i, D_i C D_i)``, (d, d)."""
        return self._posterior_noise

    def codes(self, minibatch: Minibatch, indices: NDArray[np.intp]) -> Tensor:
        """Return the encoder's codes of these rows, (n, d)."""
        return self._encode(minibatch, indices)[:, : self._run.model.n_components]

    def code_variance(self) -> Tensor:
        """Return the variance of each output that codes of training lack, (n_features,)."""
        run, at = self._run, self._few_linearised
        gain = run.model.likelihood.calibration[:, 1]
        with torch.no_grad():
            at = at._replace(jacobian=at.jacobian * gain[:, None])
            variance = code_variance(run.model, at, run.objective.row_weight, self._few_weights)
        return self.mean(variance)

    @cached_property
    def linearised(self) -> Linearisation:
        """The decoder at the codes of some rows, before the likelihood's calibration."""
        model = self._run.model
        n_rows = JACOBIAN_ROWS if self.is_part else AXES_ROWS
        indices = self.spaced(jacobian_rows(model, n_rows))
        some = self._rows.take(indices)
        with torch.no_grad():
            mu = self.codes(some, indices)
        with uncalibrated(model.likelihood):
            return linearise(model, mu, some)

    @cached_property
    def linearised_weights(self) -> Tensor | None:
        """Weights of the rows of `linearised`; None where rows have none."""
        if self._rows.weight is None:
            return None
        n_rows = JACOBIAN_ROWS if self.is_part else AXES_ROWS
        own = self._rows.weight[self.spaced(jacobian_rows(self.model, n_rows))]
        return torch.from_numpy(own).to(self.model.likelihood.location)

    @property
    def _few_every(self) -> int:
        return -(-len(self.linearised.parameter) // JACOBIAN_ROWS) or 1

    @property
    def _few_weights(self) -> Tensor | None:
        """Weights of the rows of `_few_linearised`."""
        weight = self.linearised_weights
        return None if weight is None else weight[:: self._few_every]

    @cached_property
    def _few_linearised(self) -> Linearisation:
        """A part of it."""
        at, every = self.linearised, self._few_every
        return Linearisation(
            at.parameter[::every],
            at.jacobian[::every],
            at.prior_precision[::every],
            None if at.mask is None else at.mask[::every],
        )


@contextmanager
def uncalibrated(likelihood: Likelihood) -> Iterator[None]:
    """Take the likelihood's calibration away within the block."""
    calibration = likelihood.calibration.clone()
    likelihood.set_calibration(identity_calibration(likelihood.location))
    try:
        yield
    finally:
        likelihood.set_calibration(calibration)
