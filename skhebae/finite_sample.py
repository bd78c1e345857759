"""Constants that correct the divergence of moments for the number of rows behind them.

The sample mean and covariance of a minibatch drawn from N(0, I) are not exactly 0
and I, so their divergence from N(0, I) is above 0, by an amount that depends on the
number of rows.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.special import digamma
from torch import Tensor

#: Number of random matrices that `expected_prior_kl` averages over.
WISHART_DRAWS = 20_000

#: Numbers of rows, evenly spaced by their logarithm, at which `expected_group_kl` is computed.
GROUP_KNOTS = 24

#: The same per doubling of the summed weights of a minibatch.
KNOTS_PER_OCTAVE = 8

#: Below so many rows the mean itself is interpolated, between neighbouring numbers.
FEW_ROWS = 32


def log_det_bias(n_rows: int, n_components: int) -> float:
    """Return ``c(B, d) = E log det S - log det Sigma`` for B rows of a Gaussian in R^d.

    ``c = sum_{k=1..d} digamma((B - k) / 2) + d log(2 / (B - 1))``, which follows
    from the Bartlett decomposition of the Wishart matrix ``(B - 1) S``. The bias is
    the same for every mean and covariance of the Gaussian.

    Parameters
    ----------
    n_rows : int
        Number of rows B > d behind the covariance S, whose divisor is ``B - 1``.
    n_components : int
        Number of dimensions d.

    Returns
    -------
    float
        Bias in nats, always negative.

    Raises
    ------
    ValueError
        If ``n_rows <= n_components``, because S is then singular.
    """
    if n_rows <= n_components:
        raise ValueError(
            f"n_rows={n_rows} must exceed n_components={n_components}, because the covariance of "
            "so few rows is singular."
        )
    degrees = n_rows - np.arange(1, n_components + 1)
    return float(digamma(0.5 * degrees).sum() + n_components * np.log(2.0 / (n_rows - 1)))


@lru_cache(maxsize=256)
def expected_group_kl(
    most_rows: int, n_components: int, pseudo_rows: float, device: torch.device
) -> Tensor:
    """Return the mean of one group's term of `group_kl_to_standard` over draws from N(0, I).

    For groups of 0 to `most_rows` rows, (most_rows + 1,), float32: ``-1/2 E log det S_nu``, because
    the mean of ``|m|^2`` is that of ``tr S_nu / n``. It is `expected_prior_kl` less ``d / (2 n)``
    and smooth in the number of rows, so it is computed for some numbers and interpolated.

    Parameters
    ----------
    most_rows : int
    n_components : int
    pseudo_rows : float
        Weight of the hyperprior.
    device : torch.device
        Where the result is to be, which is kept there.
    """
    n_rows = np.arange(1, most_rows + 1)
    knots = np.unique(np.rint(np.geomspace(1, most_rows, GROUP_KNOTS)).astype(int))
    values = [
        expected_prior_kl(int(knot), n_components, pseudo_rows) - 0.5 * n_components / knot
        for knot in knots
    ]
    smooth = np.interp(np.log(n_rows), np.log(knots), values)
    return torch.from_numpy(np.float32(np.concatenate([[0.0], smooth]))).to(device)


def expected_prior_kl_of_weight(
    total_weight: float, n_components: int, pseudo_rows: float
) -> float:
    """Return `expected_prior_kl` of a minibatch whose weights add up to any number.

    That differs from minibatch to minibatch, and each number of rows takes a moment. So some are
    computed, and n times the mean is interpolated, which hardly depends on n.
    """
    n_rows = max(total_weight, 1.0)
    if n_rows < FEW_ROWS:
        below = int(n_rows)
        low, high = (expected_prior_kl(n, n_components, pseudo_rows) for n in (below, below + 1))
        return low + (n_rows - below) * (high - low)
    step = math.floor(KNOTS_PER_OCTAVE * math.log2(n_rows))
    knots = sorted({round(2.0 ** (k / KNOTS_PER_OCTAVE)) for k in range(step - 1, step + 3)} - {0})
    values = [knot * expected_prior_kl(knot, n_components, pseudo_rows) for knot in knots]
    return float(np.interp(math.log(n_rows), np.log(knots), values)) / n_rows


@lru_cache(maxsize=256)
def expected_prior_kl(n_rows: int, n_components: int, pseudo_rows: float) -> float:
    """Return the mean of ``KL(N(m, S_nu) || N(0, I))`` over minibatches from N(0, I).

    The mean is ``1/2 (d / B - E log det S_nu)``, where S_nu is the covariance
    regularised by nu pseudo-rows, because ``E m^T m = d / B`` and
    ``E tr S_nu = d``. As nu -> 0 with B > d, ``E log det S_nu`` tends to
    `log_det_bias`. For nu > 0 it has no simple closed form. The function therefore
    averages ``log det(nu I + W)`` over draws of the Wishart matrix W from a
    generator with a fixed seed, and uses ``log det W``, whose mean is known, as a
    control variate. It draws the bidiagonal form of W (Dumitriu and Edelman,
    J. Math. Phys. 43, 2002), whose determinant costs O(d) operations.

    Parameters
    ----------
    n_rows : int
        Number of rows B >= 1 in a minibatch.
    n_components : int
        Number of dimensions d.
    pseudo_rows : float
        Weight nu > 0 of the hyperprior, in rows.

    Returns
    -------
    float
        Mean divergence in nats.

    Examples
    --------
    >>> from skhebae.finite_sample import expected_prior_kl
    >>> [round(expected_prior_kl(n_rows, 10, 1.0), 2) for n_rows in (16, 512)]
    [2.24, 0.06]
    """
    degrees = n_rows - 1
    # Swapping the roles of rows and dimensions gives a Wishart matrix with the same
    # non-zero eigenvalues. If B <= d, that matrix is the one of full rank.
    size, other = sorted((n_components, degrees))
    rng = np.random.default_rng(0)
    plain, regularised = np.zeros((2, WISHART_DRAWS))
    share = np.zeros(WISHART_DRAWS)
    for i in range(size):
        # Pivots of nu I + L L^T, which is tridiagonal because L is lower bidiagonal.
        diagonal = rng.chisquare(other - i, WISHART_DRAWS)
        pivot = pseudo_rows + diagonal
        if i > 0:
            pivot += rng.chisquare(size - i, WISHART_DRAWS) * (1.0 - share)
        share = diagonal / pivot
        plain += np.log(diagonal)
        regularised += np.log(pivot)
    log_det = regularised.mean()
    if size > 0:
        expected_plain = log_det_bias(other + 1, size) + size * np.log(other)
        slope = np.cov(plain, regularised)[0, 1] / plain.var(ddof=1)
        log_det -= slope * (plain.mean() - expected_plain)
    log_det += (n_components - size) * np.log(pseudo_rows)
    log_det -= n_components * np.log(pseudo_rows + degrees)
    return float(0.5 * (n_components / n_rows - log_det))
