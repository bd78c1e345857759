"""Mathematics of the exponentially tilted Gaussian, ``exp(tau |z|) N(z; 0, I) / Z``.

The direction of z is uniform, and its length r has the density ``r^(d-1) exp(tau r - r^2 / 2)`` up
to a constant. Z overflows for the tilts in use (log Z is 336.5 in 10 dimensions at tau = 25), so
all that contains it is in logarithms. Pass tensors in float64 where the device has it: divergences
are small differences of large terms.

References
----------
.. [1] G. Floto, S. Kremer and M. Nica, "The Tilted Variational Autoencoder: Improving
   Out-of-Distribution Detection", arXiv:2111.15646.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, log_ndtr, logsumexp, ndtri
from torch import Tensor

FloatArray = NDArray[np.float64]

#: The logarithm of the length's density has a second derivative of at most -1, so beyond this
#: distance from its mode there is less than the rounding of float64.
REACH = 11.0

#: Panels over that range, and Gauss-Legendre nodes on each.
PANELS, NODES = 2048, 4

#: Step and number of the trapezoids of `expected_length`. In the new variable the integrand is
#: analytic in a strip of half width pi / 4, and decays at least as ``exp(-2 u)``: both errors are
#: about 1e-13.
STEP, TRAPEZOIDS = 0.15, 101

#: Smallest mean of |z|^2 that is told from 0.
TINY = 1e-30


def most_likely_length(n_components: int, tilt: float) -> float:
    """Return the mode of ``r^(d-1) exp(tau r - r^2 / 2)``."""
    return 0.5 * (tilt + math.sqrt(tilt**2 + 4.0 * (n_components - 1)))


def length_panels(n_components: int, tilt: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return edges of panels (k + 1,), nodes (k, m) and log-masses of the nodes (k, m).

    The masses are those of ``r^(d-1) exp(tau r - r^2 / 2)``, not normalised.
    """
    mode = most_likely_length(n_components, tilt)
    low, share = max(0.0, mode - REACH), np.linspace(0.0, 1.0, PANELS + 1)
    # Narrow ones at 0, where a quantile depends on r^d.
    edges = low + (mode + REACH - low) * (share**2 if low == 0.0 else share)
    points, weights = np.polynomial.legendre.leggauss(NODES)
    half = 0.5 * np.diff(edges)[:, None]
    nodes = edges[:-1, None] + half * (1.0 + points)
    log_density = (n_components - 1) * np.log(nodes) + tilt * nodes - 0.5 * nodes**2
    return edges, nodes, log_density + np.log(half * weights)


def log_partition(n_components: int, tilt: float) -> float:
    """Return ``log Z = log E exp(tau |z|)`` for z from N(0, I), by quadrature.

    [1]_ has it as a sum of two of Kummer's functions, which overflow.

    Examples
    --------
    >>> from skhebae.tilted import log_partition
    >>> round(log_partition(10, 25.0), 1)
    336.5
    """
    _, _, masses = length_panels(n_components, tilt)
    half = 0.5 * n_components
    return float(logsumexp(masses) - (half - 1.0) * math.log(2.0) - gammaln(half))


def mean_length(n_components: int, tilt: float) -> float:
    """Return ``E |z|`` under the tilted Gaussian.

    By partial integration ``E |z|^2 = d + tau E |z|``.
    """
    _, nodes, masses = length_panels(n_components, tilt)
    shares = np.exp(masses - masses.max())
    return float((shares * nodes).sum() / shares.sum())


def length_quantiles(n_components: int, tilt: float, normal: FloatArray) -> FloatArray:
    """Return the lengths that are quantiles as `normal` (k,), within +-9, are of N(0, 1)."""
    edges, _, masses = length_panels(n_components, tilt)
    shares = np.exp(masses - masses.max()).sum(axis=1)
    # From both ends, as a share near 1 has lost the digits of its distance from 1.
    below = np.concatenate([[0.0], np.cumsum(shares)])
    above = np.concatenate([np.cumsum(shares[::-1])[::-1], [0.0]])
    total = shares.sum()
    at = np.where(below < above, ndtri(below / total), -ndtri(above / total))
    inside = np.isfinite(at)
    at, edges = at[inside], edges[inside]
    # Near 0 the share below a length grows with its d-th power.
    nearer = edges[0] * np.exp((log_ndtr(normal) - log_ndtr(at[0])) / n_components)
    lengths: FloatArray = np.where(normal < at[0], nearer, np.interp(normal, at, edges))
    return lengths


def best_length(n_components: int, tilt: float) -> float:
    """Return mu*, the |mu| for which ``KL(N(mu, I) || p)`` is smallest.

    The divergence changes with |mu| as ``|mu| (1 - tau A)``, where ``A = E 1 / |z|`` for z from
    N(mu, I) in d + 2 dimensions, which falls with |mu| and is at most ``1 / |mu|``. So mu* is 0
    for tilts up to ``1 / A(0)``, about the root of d, and less than tau beyond.
    """

    def slope(length: float) -> float:
        # E 1 / sqrt(q) = 2 / sqrt(pi) times the integral of E exp(-v^2 q) over v > 0.
        u = STEP * np.arange(TRAPEZOIDS)
        scale = (n_components + 2.0 + length**2) ** -0.5
        t = np.square(scale * np.sinh(u))
        terms = np.exp(
            -0.5 * (n_components + 2.0) * np.log1p(2.0 * t) - t * length**2 / (1.0 + 2.0 * t)
        )
        terms *= scale * np.cosh(u)
        terms[0] *= 0.5
        return 1.0 - tilt * float(terms.sum()) * STEP * 2.0 / math.sqrt(math.pi)

    if slope(0.0) >= 0.0:
        return 0.0
    return float(brentq(slope, 0.0, tilt, xtol=1e-12))


def expected_unit_length(length: Tensor, n_components: int) -> Tensor:
    """Return ``E |z|`` for z from N(mu, I) with ``|mu| = length``, (...).

    ``sqrt(pi / 2) L_{1/2}^{(d/2-1)}(-|mu|^2 / 2)`` with Laguerre's function ([1]_), as an
    integral: see `expected_length`.
    """
    square = length.square()
    v, weight = trapezoids(square + n_components)
    square = square[..., None]
    t = v.square()
    shrunk = 1.0 / (1.0 + 2.0 * t)
    log_laplace = 0.5 * n_components * shrunk.log() - t * shrunk * square
    slope = n_components * shrunk + square * shrunk.square()
    return (weight * slope * log_laplace.exp()).sum(dim=-1)


def expected_length(mean: Tensor, factor: Tensor) -> Tensor:
    """Return ``E |z|`` for z from N(m, L L^T), means (..., d) and factors (..., d, d), (...).

    With ``sqrt(q) = 2 / sqrt(pi)`` times the integral over v > 0 of ``q exp(-v^2 q)``, the mean
    of a root is an integral over the derivative of the Laplace transform of ``q = |z|^2``, which
    is elementary (Mathai and Provost, *Quadratic Forms in Random Variables*, 1992). In u with
    ``v = sinh(u) / sqrt(E q)`` the trapezoidal rule converges exponentially.
    """
    covariance = factor @ factor.mT
    # A factor that is not finite makes the divergence NaN elsewhere, and no error here.
    finite = covariance.detach().isfinite().all(dim=-1).all(dim=-1)[..., None, None]
    vectors = torch.linalg.eigh(covariance.detach().where(finite, 0.0)).eigenvectors
    # The vectors are constants, as their derivatives do not exist where eigenvalues are equal.
    # What S varies in other directions then stands beside the diagonal, where it is 0 but for
    # rounding, and counts to first order.
    turned = vectors.mT @ covariance @ vectors
    variances = turned.diagonal(dim1=-2, dim2=-1)
    beside = turned - variances.diag_embed() if turned.requires_grad else None
    return expected_diagonal_length(
        (vectors.mT @ mean[..., None])[..., 0], variances.clamp_min(0.0), beside
    )


def expected_diagonal_length(
    mean: Tensor, variances: Tensor, beside: Tensor | None = None
) -> Tensor:
    """Return ``E |z|`` for z from N(m, diag s^2), for means and variances (..., d), (...).

    `beside` (..., d, d) is what a covariance has beside its diagonal, so little that only its
    first derivative counts.
    """
    square = mean.square()
    expected = (square + variances).sum(dim=-1)
    v, weights = trapezoids(expected)
    total = torch.zeros_like(expected)
    # One node after another, as all of them together would take a hundred times the memory.
    for node, weight in zip(v.movedim(-1, 0), weights.movedim(-1, 0), strict=True):
        t = node.square()[..., None]
        shrunk = 1.0 / (1.0 + 2.0 * t * variances)
        log_laplace = 0.5 * shrunk.log().sum(dim=-1) - (t * shrunk * square).sum(dim=-1)
        slope = (variances * shrunk + square * shrunk.square()).sum(dim=-1)
        if beside is not None:
            t = t[..., 0]
            pulled = (beside @ (shrunk * mean)[..., None])[..., 0]
            log_laplace = log_laplace + 2.0 * t.square() * (shrunk * mean * pulled).sum(dim=-1)
            slope = slope - 4.0 * t * (shrunk.square() * mean * pulled).sum(dim=-1)
        total = total + weight * slope * log_laplace.exp()
    return total


def trapezoids(expected: Tensor) -> tuple[Tensor, Tensor]:
    """Return nodes v and weights of the integral over v, (..., k), for means of |z|^2 (...).

    They are constants: the integral does not depend on where its nodes are.
    """
    scale = expected.detach().clamp_min(TINY).rsqrt()[..., None]
    # Made on the device, as a step that is recorded there may not copy.
    u = STEP * torch.arange(TRAPEZOIDS, dtype=scale.dtype, device=scale.device)
    weight = (2.0 * STEP / math.sqrt(math.pi)) * u.cosh()
    weight = torch.where(u == 0.0, 0.5 * weight, weight)
    return scale * u.sinh(), scale * weight
