"""What `fit` measures on the training rows once the networks are trained."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Rows, minibatch_indices
from skhebae.engine.chunks import map_rows
from skhebae.engine.loop import check_finite
from skhebae.estimators.latent import MIXTURE_ROWS, CodeMoments
from skhebae.likelihoods import GaussianLikelihood
from skhebae.model import Autoencoder
from skhebae.objectives import Objective

#: Rows per chunk of the pass over the residuals.
RESIDUAL_ROWS = 1024


def codes_and_sigma(model: Autoencoder, objective: Objective, x: Tensor) -> Tensor:
    """Posterior means and the diagonals of D_i side by side, (n, 2 d)."""
    mu, scales = model.encode(x)
    return torch.cat([mu, objective.spread(scales, mu.shape[1])], dim=1)


def measure_codes(
    model: Autoencoder, objective: Objective, rows: Rows, seed: int
) -> tuple[CodeMoments, NDArray[np.float32]]:
    """Moments of the codes of all rows, and at most `MIXTURE_ROWS` codes."""
    n_components = model.encoder.n_components

    def read(chunk: slice) -> Tensor:
        return rows.take(np.arange(chunk.start, chunk.stop))

    width = model.likelihood.location.numel()
    values = map_rows(
        lambda x: codes_and_sigma(model, objective, x), read, len(rows), numbers_per_row=width
    )
    check_finite({"code": float(np.abs(values).max())})
    codes, sigma = values[:, :n_components], values[:, n_components:]
    chosen = np.random.RandomState(seed).permutation(len(codes))[:MIXTURE_ROWS]
    return CodeMoments.measure(codes, sigma), codes[chosen]


def noise_covariance(objective: Objective, moments: CodeMoments) -> NDArray[np.float64]:
    """Covariance C of the posterior ``N(mu_i, D_i C D_i)``, from the training codes."""
    # A copy: a memory-mapped pickle gives read-only arrays.
    covariance = torch.from_numpy(np.array(moments.covariance))
    result: NDArray[np.float64] = objective.noise_covariance(covariance, moments.n_rows).numpy()
    return result


def fit_noise_variance(
    model: Autoencoder,
    objective: Objective,
    posterior_noise: NDArray[np.float64],
    rows: Rows,
    generator: torch.Generator,
) -> None:
    """Last step of training a Gaussian likelihood: its exact noise variances.

    Given the networks, ``v_j = mean_i E_q (x_ij - mean_j(z_i))^2`` maximises
    the bound, so one pass over the rows, with one draw of z each, finishes
    what Adam's small steps began. `posterior_noise` is C of `noise_covariance`.
    """
    likelihood = model.likelihood
    if not isinstance(likelihood, GaussianLikelihood):
        return
    factor = torch.from_numpy(np.linalg.cholesky(posterior_noise))
    factor = factor.to(model.device, torch.float32)
    n_components = len(factor)
    total = torch.zeros_like(likelihood.location)
    with torch.no_grad():
        for chunk in minibatch_indices(np.arange(len(rows)), RESIDUAL_ROWS):
            x = rows.take(chunk)
            values = codes_and_sigma(model, objective, x)
            mu, sigma = values[:, :n_components], values[:, n_components:]
            noise = torch.randn(mu.shape, generator=generator, device=mu.device)
            z = mu + sigma * (noise @ factor.T)
            total += (x - likelihood.mean(model.decode(z))).square().sum(dim=0)
    likelihood.set_noise_variance(total / len(rows))
