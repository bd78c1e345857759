"""The aggregate of a minibatch's codes: HEBAE's central equations."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from skhebae.divergences import (
    cholesky_factor,
    gaussian_kl_to_standard,
    in_double,
    minibatch_moments,
    regularised_covariance,
)


class Aggregate(NamedTuple):
    """Results of `aggregate`.

    Attributes
    ----------
    noise : Tensor of shape (B, d)
        ``F eps_i`` of each row.
    divergence : Tensor of shape ()
        ``KL(N(m, S) || N(0, I))``, nats.
    factor : Tensor of shape (d, d)
        F, with ``F F^T = S``, or the root of the diagonal of S.
    """

    noise: Tensor
    divergence: Tensor
    factor: Tensor


def aggregate(
    mu: Tensor,
    eps: Tensor,
    pseudo_rows: float,
    diagonal: bool,
    weight: Tensor | None = None,
) -> Aggregate:
    """Compute the moments of codes, noise that follows them, and their divergence.

    Equations 7 and 8 of arXiv:2007.10389, with S under an inverse-Wishart hyperprior.

    Parameters
    ----------
    mu, eps : Tensor of shape (B, d)
        Codes, and standard normal numbers.
    pseudo_rows : float
        Weight of the hyperprior.
    diagonal : bool
        Whether F is the root of the diagonal of S instead of its Cholesky factor.
    weight : Tensor of shape (B,), optional
        How many rows each row stands for.

    Returns
    -------
    Aggregate
        NaN where S is not finite.
    """
    if weight is None:
        n_rows: int | Tensor = len(mu)
        mean, sample_covariance = minibatch_moments(in_double(mu))
    else:
        wide = in_double(weight)
        n_rows = wide.sum().clamp_min(1.0)
        mean, sample_covariance = minibatch_moments(in_double(mu), wide)
    covariance = regularised_covariance(sample_covariance, n_rows, pseudo_rows)
    root = cholesky_factor(covariance)
    factor = (covariance.diagonal().sqrt().diag() if diagonal else root).to(mu.dtype)
    divergence = gaussian_kl_to_standard(mean, root).to(mu.dtype)
    return Aggregate(eps @ factor.T, divergence, factor)
