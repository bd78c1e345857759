"""What moments of few rows do to a divergence: the constants that undo it.

A minibatch drawn from N(0, I) has not the mean 0 and the covariance I, so the
divergence of its moments is above 0, by an amount that depends on its size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.special import digamma

#: Draws behind `expected_prior_kl`.
WISHART_DRAWS = 20_000


def log_det_bias(n_rows: int, n_components: int) -> float:
    """``c(B, d) = E log det S - log det Sigma`` for B rows of any Gaussian in R^d.

    ``c = sum_{k=1..d} digamma((B - k) / 2) + d log(2 / (B - 1))``, from the
    Bartlett decomposition of the Wishart matrix ``(B - 1) S``.

    Parameters
    ----------
    n_rows : int
        Rows B > d behind the covariance S, whose divisor is ``B - 1``.
    n_components : int
        Dimensions d.

    Returns
    -------
    float
        Nats, below 0.

    Raises
    ------
    ValueError
        If ``n_rows <= n_components``, where S is singular.
    """
    if n_rows <= n_components:
        raise ValueError(
            f"n_rows={n_rows} must exceed n_components={n_components}: the covariance of fewer "
            "rows is singular."
        )
    degrees = n_rows - np.arange(1, n_components + 1)
    return float(digamma(0.5 * degrees).sum() + n_components * np.log(2.0 / (n_rows - 1)))


@lru_cache(maxsize=256)
def expected_prior_kl(n_rows: int, n_components: int, pseudo_rows: float) -> float:
    """Mean of ``KL(N(m, S_nu) || N(0, I))`` over minibatches drawn from N(0, I).

    ``1/2 (d / B - E log det S_nu)``, with S_nu the covariance regularised by nu
    pseudo-rows: ``E m^T m = d / B`` and ``E tr S_nu = d``. As nu -> 0 and for
    B > d, ``E log det S_nu`` is `log_det_bias`. For nu > 0 it has no simple
    closed form: ``log det(nu I + W)`` of the Wishart matrix W is averaged over
    draws from a generator of fixed seed, with ``log det W``, whose mean is
    known, as control variate. The draws are of the bidiagonal form of W
    (Dumitriu and Edelman, J. Math. Phys. 43, 2002), whose determinant costs d
    operations.

    Parameters
    ----------
    n_rows : int
        Rows B >= 1 of a minibatch.
    n_components : int
        Dimensions d.
    pseudo_rows : float
        Weight nu > 0 of the hyperprior, in rows.

    Returns
    -------
    float
        Nats.

    Examples
    --------
    >>> from skhebae.finite_sample import expected_prior_kl
    >>> [round(expected_prior_kl(n_rows, 10, 1.0), 2) for n_rows in (16, 512)]
    [2.24, 0.06]
    """
    degrees = n_rows - 1
    # W has the non-zero eigenvalues of a Wishart matrix with the roles of rows
    # and dimensions swapped, which is the one of full rank if B <= d.
    size, other = sorted((n_components, degrees))
    rng = np.random.default_rng(0)
    plain, regularised = np.zeros((2, WISHART_DRAWS))
    share = np.zeros(WISHART_DRAWS)
    for i in range(size):
        # Pivots of nu I + L L^T, L lower bidiagonal: a tridiagonal matrix.
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
