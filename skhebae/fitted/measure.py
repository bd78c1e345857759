"""Passes over the training rows once the networks are trained."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Minibatch, Rows, map_rows, minibatch_indices
from skhebae.divergences import cholesky_factor
from skhebae.fitted.codes import MIXTURE_ROWS, CodeMoments
from skhebae.model import Autoencoder
from skhebae.objectives import Objective
from skhebae.posterior import Linearisation, code_variance, linearise
from skhebae.training import Run
from skhebae.training.loop import check_finite
from skhebae.training.step import jacobian_rows, lacks_noise

#: Rows per chunk of the pass over the decoded rows.
DECODED_ROWS = 1024

#: Rows whose codes are in memory together.
BLOCK_ROWS = 2**16

#: Rows whose Jacobians `Evidence.code_variance` looks at.
JACOBIAN_ROWS = 128


def encode_with_spread(model: Autoencoder, objective: Objective, minibatch: Minibatch) -> Tensor:
    """Return posterior means and the diagonals of D_i side by side, (n, 2 d)."""
    mu, scales = model.encode(minibatch)
    return torch.cat([mu, objective.spread(scales, mu.shape[1])], dim=1)


def measure_codes(
    run: Run, rows: Rows, seed: int, out: NDArray[np.float32] | None = None
) -> tuple[CodeMoments, NDArray[np.float32]]:
    """Return the moments of the codes of all rows, and at most `MIXTURE_ROWS` codes.

    One block of rows after another, so that the codes of all rows are never in memory together.
    With several processes each measures its own rows, and contributes codes in proportion.

    Parameters
    ----------
    run : Run
        With a trained model.
    rows : Rows
    seed : int
        Of the choice of codes.
    out : ndarray of shape (n_samples, n_components), optional
        Receives the codes of all rows of this process.
    """
    model, group = run.model, run.group
    n_components = model.n_components
    wanted = kept_rows(group.gather(len(rows)))[group.rank]
    chosen = np.random.RandomState(seed).permutation(len(rows))[:wanted]
    kept = np.empty((len(chosen), n_components), dtype=np.float32)
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
        if out is not None:
            out[block[0] : block[-1] + 1] = codes
        here = np.flatnonzero((chosen >= block[0]) & (chosen <= block[-1]))
        kept[here] = codes[chosen[here] - block[0]]
        moments.append(CodeMoments.measure(codes, spread))
    mine = [reduce(CodeMoments.merge, moments)] if moments else []
    together = [own for part in group.gather(mine) for own in part]
    return reduce(CodeMoments.merge, together), np.concatenate(group.gather(kept))


def kept_rows(counts: Sequence[int]) -> list[int]:
    """Return how many codes each process contributes to the mixture's `MIXTURE_ROWS`."""
    share = min(1.0, MIXTURE_ROWS / sum(counts))
    ends = np.rint(share * np.cumsum([0, *counts])).astype(int)
    result: list[int] = np.diff(ends).tolist()
    return result


def noise_covariance(
    objective: Objective, moments: CodeMoments, batch_size: int
) -> NDArray[np.float64]:
    """Return C in the posterior ``N(mu_i, D_i C D_i)``, from the training codes.

    The hyperprior has the weight that it had in minibatches of `batch_size` rows.
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
    """

    def __init__(self, run: Run, rows: Rows, posterior_noise: NDArray[np.float64]) -> None:
        self._run, self._rows = run, rows
        self._posterior_noise = posterior_noise
        self.lacks_noise = lacks_noise(run)

    def mean_over_rows(self, function: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Average ``function(x, parameter)`` (n, ...) over rows, with one draw of each code."""
        run, model = self._run, self._run.model
        factor = cholesky_factor(torch.from_numpy(self._posterior_noise))
        factor = factor.to(model.device, torch.float32)
        total = torch.zeros_like(model.likelihood.location)
        with torch.no_grad():
            for chunk in minibatch_indices(np.arange(len(self._rows)), DECODED_ROWS):
                minibatch = self._rows.take(chunk)
                values = encode_with_spread(model, run.objective, minibatch)
                mu, spread = values.chunk(2, dim=1)
                noise = torch.randn(mu.shape, generator=run.generators.noise, device=mu.device)
                parameter = model.decode_rows(mu + spread * (noise @ factor.T), minibatch)
                total += function(minibatch.x, parameter).sum(dim=0)
        return run.group.mean(total / max(1, len(self._rows)), len(self._rows))

    def code_variance(self) -> Tensor:
        """Return the variance of each output that codes of training lack, (n_features,)."""
        run = self._run
        with torch.no_grad():
            variance = code_variance(run.model, self._linearised, run.objective.row_weight)
        return run.group.mean(variance, len(self._rows))

    @cached_property
    def _linearised(self) -> Linearisation:
        """The decoder at the codes of some rows."""
        model, n_rows = self._run.model, len(self._rows)
        every = max(1, -(-n_rows // jacobian_rows(model, JACOBIAN_ROWS)))
        some = self._rows.take(np.arange(0, n_rows, every))
        with torch.no_grad():
            mu, _ = model.encode(some)
        return linearise(model, mu, some)
