"""Monte Carlo estimates of the terms of equation 10 of [1]_, and a two-sample test.

Pure tensor functions; divergences and information are in nats.

References
----------
.. [1] Cheng et al., "Generalizing Variational Autoencoders with Hierarchical
   Empirical Bayes", arXiv:2007.10389.
.. [2] Hoffman and Johnson, "ELBO surgery", NIPS workshop on Advances in
   Approximate Bayesian Inference, 2016.
.. [3] Gretton et al., "A Kernel Two-Sample Test", JMLR 13, 2012.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from skhebae.divergences import multiquadratic_kernel
from skhebae.prior import Prior

#: Target size of one block of pairwise differences, in entries.
BLOCK_NUMBERS = 2**22


class Divergences(NamedTuple):
    """The two parts of ``mean_i KL(q(z | x_i) || p(z))``, with one value per draw.

    For given rows, the mean of each part estimates the term, and its standard
    deviation divided by the square root of n estimates the standard error.

    Attributes
    ----------
    mutual_information : Tensor of shape (n,)
        ``log q(z_i | x_i) - log q(z_i)``; its mean has expectation I(i; z).
    aggregate : Tensor of shape (n,)
        ``log q(z_i) - log p(z_i)``; its mean has expectation KL(q(z) || p(z)).
    """

    mutual_information: Tensor
    aggregate: Tensor


def normal_log_density(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Return ``log N(z; mu_j, F_j F_j^T)`` for every point under every Gaussian.

    Parameters
    ----------
    z : Tensor of shape (m, d)
    mean : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Lower triangular F, non-singular.

    Returns
    -------
    Tensor of shape (m, n)
        Nats.
    """
    n_components = mean.shape[1]
    difference = (z[None] - mean[:, None]).transpose(1, 2)
    white = torch.linalg.solve_triangular(factor, difference, upper=False)
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    constant = 0.5 * n_components * math.log(2.0 * math.pi)
    log_density: Tensor = -0.5 * white.square().sum(dim=1) - (log_det + constant)[:, None]
    return log_density.T


def aggregated_log_density(z: Tensor, mean: Tensor, factor: Tensor) -> Tensor:
    """Return ``log q(z)`` for the aggregated posterior ``q(z) = 1/n sum_i q(z | x_i)``.

    Parameters
    ----------
    z : Tensor of shape (m, d)
    mean : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)

    Returns
    -------
    Tensor of shape (m,)
        Nats.
    """
    total = torch.full((len(z),), -torch.inf, dtype=z.dtype, device=z.device)
    rows = max(1, BLOCK_NUMBERS // z.numel())
    for start in range(0, len(mean), rows):
        some = slice(start, start + rows)
        block = normal_log_density(z, mean[some], factor[some])
        total = torch.logaddexp(total, block.logsumexp(dim=1))
    return total - math.log(len(mean))


def decompose_divergence(mean: Tensor, factor: Tensor, noise: Tensor, prior: Prior) -> Divergences:
    """Split the divergence of the rows' posteriors from the prior, as in equation 10 of [1]_.

    ``mean_i KL(q(z | x_i) || p(z)) = KL(q(z) || p(z)) + I(i; z)`` [2]_, where q(z)
    is the mixture of the n posteriors, p(z) the prior, and the index-code mutual
    information ``I = log n - E H(q(i | z))`` lies between 0 and log n.

    Parameters
    ----------
    mean : Tensor of shape (n, d)
    factor : Tensor of shape (n, d, d)
        Factors of the posteriors ``N(mu_i, F_i F_i^T)``; lower triangular,
        non-singular.
    noise : Tensor of shape (n, d)
        Standard normal noise, which gives one draw per posterior.
    prior : Prior

    Returns
    -------
    Divergences
        Values at the draws ``z_i = mu_i + F_i noise_i``.
    """
    z = mean + (factor @ noise[:, :, None])[:, :, 0]
    log_det = factor.diagonal(dim1=1, dim2=2).log().sum(dim=1)
    constant = 0.5 * mean.shape[1] * math.log(2.0 * math.pi)
    of_row = -0.5 * noise.square().sum(dim=1) - log_det - constant
    of_prior = prior.log_prob(z)
    of_all = aggregated_log_density(z, mean, factor)
    return Divergences(of_row - of_all, of_all - of_prior)


def mmd_test(codes: Tensor, prior_draws: Tensor, order: Tensor) -> tuple[float, float]:
    """Return the squared maximum mean discrepancy of two samples and its p-value [3]_.

    The statistic is that of `multiquadratic_mmd`. One kernel matrix of the
    pooled sample serves all permutations.

    Parameters
    ----------
    codes, prior_draws : Tensor of shape (n, d)
        Two samples of the same size, n >= 2.
    order : Tensor of shape (P, 2 n)
        Permutations of the pooled rows.

    Returns
    -------
    mmd : float
        Unbiased estimate, which can be negative.
    p_value : float
        Share of permutations, including the identity, whose discrepancy is at
        least as large.
    """
    n_rows = len(codes)
    pooled = torch.cat([codes, prior_draws])
    # Centring keeps distances and saves digits; an outlying row does not move the median.
    pooled = pooled - pooled.median(dim=0).values
    gram = multiquadratic_kernel(pooled, pooled).fill_diagonal_(0.0)
    # One column per permutation, the identity first; 1 marks a row of the first sample.
    first = torch.zeros((2 * n_rows, len(order) + 1), dtype=gram.dtype, device=gram.device)
    first[:n_rows, 0] = 1.0
    first[:, 1:].scatter_(0, order[:, :n_rows].T, 1.0)
    sums = gram @ first
    within_first = (first * sums).sum(dim=0)
    across = sums.sum(dim=0) - within_first
    within_second = gram.sum() - within_first - 2.0 * across
    mmd = (within_first + within_second) / (n_rows * (n_rows - 1)) - 2.0 * across / n_rows**2
    return float(mmd[0]), float((mmd >= mmd[0]).double().mean())
