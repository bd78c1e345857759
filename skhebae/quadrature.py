"""Points for expectations under Gaussians, and draws for importance sampling: plain arrays."""

from __future__ import annotations

import math
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln, roots_genlaguerre

#: Degrees of freedom and share of the wide part of the proposal of importance sampling. Its tails
#: are heavier than those of any posterior under a prior with Gaussian tails, so that weights have
#: a variance.
TAIL_DEGREES, TAIL_SHARE = 5.0, 0.25


class Rule(NamedTuple):
    """Points and weights for expectations under N(0, I), in blocks that estimate it separately.

    Attributes
    ----------
    points : ndarray of shape (n_blocks, n_points, d)
    weights : ndarray of shape (n_points,)
        Of the points of each block, with sum 1.
    """

    points: NDArray[np.float32]
    weights: NDArray[np.float32]

    @classmethod
    def rotated(
        cls, n_components: int, n_radii: int, n_blocks: int, rng: np.random.RandomState
    ) -> Self:
        """Make a stochastic radial-spherical rule (Genz and Monahan, 1998).

        Each block has the points ``+- r_m Q e_j`` with a random rotation Q of its own, and radii r
        by Gauss and Laguerre's rule for ``r^2 / 2 ~ Gamma(d / 2)``. A block is exact for
        polynomials of degree 3, and for polynomials of degree ``4 n_radii - 1`` in the radius; for
        d = 1 it is the rule of Gauss and Hermite with ``2 n_radii`` points.
        """
        shape = 0.5 * n_components
        nodes, weights = roots_genlaguerre(n_radii, shape - 1.0)
        radii = np.sqrt(2.0 * nodes)
        weights = weights / math.exp(gammaln(shape)) / (2 * n_components)
        blocks = []
        for _ in range(n_blocks):
            upright, triangle = np.linalg.qr(rng.standard_normal((n_components, n_components)))
            axes = (upright * np.sign(np.diag(triangle))).T
            directions = np.concatenate([axes, -axes])
            blocks.append((radii[:, None, None] * directions).reshape(-1, n_components))
        return cls(
            np.stack(blocks).astype(np.float32),
            np.repeat(weights, 2 * n_components).astype(np.float32),
        )


class Proposal(NamedTuple):
    """Draws for importance sampling around Gaussians, in units of each.

    Attributes
    ----------
    draws : ndarray of shape (K, d)
    log_density : ndarray of shape (K,)
        Of the mixture of N(0, I) and a Student's t distribution that they are from.
    share : ndarray of shape (K,)
        Density of N(0, I) over that of the mixture; its mean is 1.
    """

    draws: NDArray[np.float32]
    log_density: NDArray[np.float64]
    share: NDArray[np.float64]

    @classmethod
    def draw(cls, n_draws: int, n_components: int, rng: np.random.RandomState) -> Self:
        """Draw from the mixture, a fixed number from each part."""
        d, degrees = n_components, TAIL_DEGREES
        normal_draws = rng.standard_normal((n_draws, d))
        n_wide = round(TAIL_SHARE * n_draws)
        normal_draws[:n_wide] /= np.sqrt(rng.chisquare(degrees, n_wide) / degrees)[:, None]
        draws = normal_draws.astype(np.float32)
        squares = np.square(draws.astype(np.float64)).sum(axis=1)
        normal = -0.5 * (squares + d * math.log(2.0 * math.pi))
        wide = gammaln(0.5 * (degrees + d)) - gammaln(0.5 * degrees)
        wide -= 0.5 * d * math.log(degrees * math.pi)
        wide = wide - 0.5 * (degrees + d) * np.log1p(squares / degrees)
        share = n_wide / n_draws
        mixture = np.logaddexp(
            math.log1p(-share) + normal, math.log(share) + wide if share else -np.inf
        )
        return cls(draws, mixture, np.exp(normal - mixture))
