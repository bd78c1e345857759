"""What `fit` measures on the training rows once the networks are trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Rows, minibatch_indices
from skhebae.divergences import cholesky_factor
from skhebae.engine.chunks import map_rows
from skhebae.engine.loop import Trainer, check_finite, jacobian_rows
from skhebae.estimators.latent import MIXTURE_ROWS, CodeMoments
from skhebae.likelihoods import GaussianLikelihood
from skhebae.model import Autoencoder
from skhebae.objectives import Objective
from skhebae.processes import ALONE, Processes

#: Rows per chunk of the pass over the residuals.
RESIDUAL_ROWS = 1024

#: Rows whose codes are in memory together.
BLOCK_ROWS = 2**16

#: Rows whose Jacobians the noise variances are based on, and the steps to them.
JACOBIAN_ROWS = 128
NOISE_STEPS = 20


def codes_and_sigma(model: Autoencoder, objective: Objective, x: Tensor) -> Tensor:
    """Posterior means and the diagonals of D_i side by side, (n, 2 d)."""
    mu, scales = model.encode(x)
    return torch.cat([mu, objective.spread(scales, mu.shape[1])], dim=1)


def measure_codes(
    model: Autoencoder,
    objective: Objective,
    rows: Rows,
    seed: int,
    processes: Processes = ALONE,
) -> tuple[CodeMoments, NDArray[np.float32]]:
    """Moments of the codes of all rows, and at most `MIXTURE_ROWS` codes.

    One block of rows after the other, so that the codes of all rows are never
    in memory together. Of several processes each measures its rows, and gives codes
    in proportion to them.
    """
    n_components = model.encoder.n_components
    width = model.n_features
    wanted = kept_rows(processes.gather(len(rows)))[processes.rank]
    chosen = np.random.RandomState(seed).permutation(len(rows))[:wanted]
    kept = np.empty((len(chosen), n_components), dtype=np.float32)
    moments: list[CodeMoments] = []
    for block in minibatch_indices(np.arange(len(rows)), BLOCK_ROWS):
        if len(block) == 0:
            continue
        values = map_rows(
            lambda x: codes_and_sigma(model, objective, x),
            lambda chunk, block=block: rows.take(block[chunk]),  # type: ignore[misc]
            len(block),
            numbers_per_row=width,
        )
        check_finite({"code": float(np.abs(values).max())})
        codes, sigma = values[:, :n_components], values[:, n_components:]
        here = np.flatnonzero((chosen >= block[0]) & (chosen <= block[-1]))
        kept[here] = codes[chosen[here] - block[0]]
        moments.append(CodeMoments.measure(codes, sigma))
    mine = [reduce(CodeMoments.merge, moments)] if moments else []
    together = [of for part in processes.gather(mine) for of in part]
    return reduce(CodeMoments.merge, together), np.concatenate(processes.gather(kept))


def kept_rows(counts: Sequence[int]) -> list[int]:
    """Rows of each process whose codes the mixture is fitted to, `MIXTURE_ROWS` or all."""
    share = min(1.0, MIXTURE_ROWS / sum(counts))
    ends = np.rint(share * np.cumsum([0, *counts])).astype(int)
    result: list[int] = np.diff(ends).tolist()
    return result


def noise_covariance(
    objective: Objective, moments: CodeMoments, batch_size: int
) -> NDArray[np.float64]:
    """Covariance C of the posterior ``N(mu_i, D_i C D_i)``, from the training codes.

    With `batch_size` rows, so that it is the one minibatches of training had.
    """
    # A copy: a memory-mapped pickle gives read-only arrays.
    covariance = torch.from_numpy(np.array(moments.covariance))
    result: NDArray[np.float64] = objective.noise_covariance(covariance, batch_size).numpy()
    return result


def fit_noise_variance(trainer: Trainer, posterior_noise: NDArray[np.float64], rows: Rows) -> None:
    """Last step of training a Gaussian likelihood: its exact noise variances.

    Given the networks, ``v_j = mean_i E_q (x_ij - mean_j(z_i))^2`` maximises
    the bound, so one pass over the rows, with one draw of z each, finishes
    what Adam's small steps began. Where the codes of training have less noise
    than their posterior, `Autoencoder.code_variance` joins the residuals. It
    depends on the variances in turn: a few steps of expectation maximisation.
    `posterior_noise` is C of `noise_covariance`.
    """
    model, objective, generator = trainer.model, trainer.objective, trainer.noise
    likelihood = model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        return
    factor = cholesky_factor(torch.from_numpy(posterior_noise)).to(model.device, torch.float32)
    n_components = len(factor)
    total = torch.zeros_like(likelihood.location)
    with torch.no_grad():
        for chunk in minibatch_indices(np.arange(len(rows)), RESIDUAL_ROWS):
            x = rows.take(chunk)
            values = codes_and_sigma(model, objective, x)
            mu, sigma = values[:, :n_components], values[:, n_components:]
            noise = torch.randn(mu.shape, generator=generator, device=mu.device)
            z = mu + sigma * (noise @ factor.T)
            mean = likelihood.mean(model.decode(z, model.covariates(x)))
            total += (x[:, : model.n_features] - mean).square().sum(dim=0)
        processes = trainer.processes
        residual = processes.mean(total / max(1, len(rows)), len(rows))
        if not trainer.counts_code_variance:
            likelihood.set_noise_variance(residual)
            return
        every = max(1, -(-len(rows) // jacobian_rows(model, JACOBIAN_ROWS)))
        some = rows.take(np.arange(0, len(rows), every))
        mu, _ = model.encode(some)
        outputs = model.jacobian(mu, model.covariates(some))
        for _ in range(NOISE_STEPS):
            missing = model.code_variance(*outputs, objective.row_weight)
            missing = processes.mean(missing, len(rows))
            likelihood.set_noise_variance(residual + missing)
