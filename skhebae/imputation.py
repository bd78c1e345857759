"""Missing entries of rows, given the observed ones, by importance weights on codes.

References
----------
.. [1] P.-A. Mattei and J. Frellsen, "MIWAE: Deep Generative Modelling and Imputation of
   Incomplete Data Sets", ICML 2019.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.model import Autoencoder
from skhebae.posterior import laplace


def expected_rows(
    model: Autoencoder,
    minibatch: Minibatch,
    noise: Tensor,
    value: Callable[[Tensor], Tensor],
) -> Tensor:
    """Return ``E[value(x_mis) | x_obs]`` of all entries of rows, (n, p).

    ``sum_k w_k value(z_k)`` with ``w_k`` proportional to ``p(x_obs | z_k) p(z_k) / q(z_k)``, the
    self-normalised estimator of [1]_. The proposal q is the Laplace approximation of ``p(z |
    x_obs)``.

    Parameters
    ----------
    model : Autoencoder
    minibatch : Minibatch
        With a mask.
    noise : Tensor of shape (K, d)
        Standard normal draws, the same for all rows. Pairs of opposite signs make the estimate
        exact for a linear decoder with gaussian likelihood.
    value : callable
        From the likelihood's parameter (n, p) to what is averaged, (n, p).
    """
    proposal = laplace(model, minibatch)
    best = torch.full((len(minibatch),), -torch.inf, dtype=noise.dtype, device=noise.device)
    total, rows = torch.zeros_like(best), torch.zeros_like(minibatch.x)
    for draw in noise:
        z, log_weight = proposal.log_weight(model, minibatch, draw)
        # Weights are kept relative to the largest one so far.
        larger = torch.maximum(best, log_weight)
        before, weight = (best - larger).exp(), (log_weight - larger).exp()
        best, total = larger, total * before + weight
        of_draw = value(model.decode_rows(z, minibatch))
        rows = rows * before[:, None] + weight[:, None] * of_draw
    return rows / total[:, None]


def resampled_codes(
    model: Autoencoder, minibatch: Minibatch, noise: Tensor, uniform: Tensor
) -> Tensor:
    """Draw codes of ``p(z | x_obs)`` by sampling-importance-resampling, (m, n, d).

    Parameters
    ----------
    model : Autoencoder
    minibatch : Minibatch
    noise : Tensor of shape (K, d)
        Standard normal draws, the same for all rows, K much larger than m.
    uniform : Tensor of shape (m, n)
        Uniform on [0, 1).
    """
    proposal = laplace(model, minibatch)
    weighted = [proposal.log_weight(model, minibatch, draw) for draw in noise]
    codes = torch.stack([z for z, _ in weighted])
    log_weights = torch.stack([log_weight for _, log_weight in weighted], dim=1)
    cumulated = log_weights.softmax(dim=1).cumsum(dim=1)
    # Rounding may leave the last sum under a number that was drawn.
    chosen = torch.searchsorted(cumulated, uniform.T.contiguous()).clamp_max(len(noise) - 1)
    return codes.gather(0, chosen.T[:, :, None].expand(-1, -1, codes.shape[2]))
