"""Missing entries of what the encoder sees, filled in by factor analysis."""

from __future__ import annotations

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

#: Steps of expectation maximisation, at most, and the largest change of a noise variance, as a
#: share of it, that ends them.
EM_STEPS, SETTLED = 100, 3e-3

#: Smallest noise variance, as a share of the mean variance of a feature, and of any feature.
SMALLEST_NOISE, TINY = 1e-3, 1e-12

#: Observed entries by which the noise variance of a feature is pulled towards this share of its
#: variance: one feature in a hundred rows must not end without any noise.
PSEUDO_ENTRIES, PSEUDO_SHARE = 1.0, 0.1


class Factors(NamedTuple):
    """Factor analysis ``x = centre + loadings z + e`` with z ~ N(0, I), e ~ N(0, diag noise).

    Attributes
    ----------
    centre : Tensor of shape (p,)
    loadings : Tensor of shape (p, k)
    noise : Tensor of shape (p,)
        Positive variances.
    """

    centre: Tensor
    loadings: Tensor
    noise: Tensor


def expected_factors(x: Tensor, mask: Tensor, factors: Factors) -> tuple[Tensor, Tensor]:
    """Return ``E[z | x_obs]`` (n, k) and the lower Cholesky factor of its precision (n, k, k).

    The precision is ``I + V_o^T diag(1 / v_o) V_o`` over the observed entries o of a row
    (Tipping and Bishop, "Probabilistic principal component analysis", 1999, appendix; with one
    variance per feature).

    Parameters
    ----------
    x : Tensor of shape (n, p)
    mask : Tensor of shape (n, p)
        1 where an entry is observed, else 0.
    factors : Factors
    """
    centre, loadings, noise = factors
    p, k = loadings.shape
    scaled = loadings / noise[:, None]
    products = (scaled[:, :, None] * loadings[:, None, :]).reshape(p, k * k)
    identity = torch.eye(k, dtype=x.dtype, device=x.device)
    root = torch.linalg.cholesky_ex((mask @ products).view(-1, k, k) + identity).L
    right = ((x - centre) * mask) @ scaled
    return torch.cholesky_solve(right[:, :, None], root)[:, :, 0], root


def fit_factors(x: Tensor, mask: Tensor, start: Factors, weight: Tensor | None = None) -> Factors:
    """Fit factor analysis to rows with missing entries, by expectation maximisation.

    Loadings have independent normal priors with one precision per factor, which is learned
    (Bishop, "Variational principal components", 1999): factors that the rows do not show vanish,
    so their number need not be chosen. The noise that loadings fit by chance counts as noise, and
    so does at the end what is not known about them: otherwise noise of small tables is too small.

    Parameters
    ----------
    x : Tensor of shape (n, p), float64
        Anything where an entry is missing.
    mask : Tensor of shape (n, p), float64
        1 where an entry is observed, else 0. Each feature has an observed entry.
    start : Factors
    weight : Tensor of shape (n,), optional
        How many rows each row stands for.
    """
    centre, loadings, noise = start
    p, k = loadings.shape
    counted = mask if weight is None else mask * weight[:, None]
    counts = counted.sum(dim=0)
    precision = torch.ones(k, dtype=x.dtype, device=x.device)
    variance = ((x - centre).square() * counted).sum(dim=0) / counts
    least = SMALLEST_NOISE * variance.mean().clamp_min(TINY)
    for _ in range(EM_STEPS):
        residual = (x - centre) * counted
        z, root = expected_factors(x, mask, Factors(centre, loadings, noise))
        covariance = torch.cholesky_inverse(root)
        second = (covariance + z[:, :, None] * z[:, None, :]).reshape(-1, k * k)
        within = (counted.T @ second).view(p, k, k)
        # Covariances of the loadings of each feature, in the unit of its noise variance.
        unsure = torch.linalg.inv(within + noise[:, None, None] * precision.diag())
        loadings = (unsure @ (residual.T @ z)[:, :, None])[:, :, 0]
        variances = noise[:, None] * unsure.diagonal(dim1=1, dim2=2)
        precision = p / (loadings.square() + variances).sum(dim=0).clamp_min(TINY)
        residual = x - centre - z @ loadings.T
        shift = (residual * counted).sum(dim=0) / counts
        spread = ((counted.T @ covariance.reshape(-1, k * k)).view(p, k, k) @ loadings[:, :, None])[
            ..., 0
        ]
        squares = (residual.square() * counted).sum(dim=0) - counts * shift.square()
        squares = squares + (spread * loadings).sum(dim=1)
        squares = squares + noise * (unsure * within).sum(dim=(1, 2))
        before = noise
        noise = (squares + PSEUDO_ENTRIES * PSEUDO_SHARE * variance) / (counts + PSEUDO_ENTRIES)
        noise = noise.clamp_min(least)
        centre = centre + shift
        if float(((noise - before) / before).abs().max()) < SETTLED:
            break
    return Factors(centre, loadings, noise + variances.sum(dim=1))


def start_factors(x: Tensor, mask: Tensor, n_factors: int) -> Factors:
    """Return the principal components of rows whose missing entries are 0 after centring.

    Parameters
    ----------
    x : Tensor of shape (n, p), float64
    mask : Tensor of shape (n, p), float64
    n_factors : int
    """
    counts = mask.sum(dim=0).clamp_min(1.0)
    centre = (x * mask).sum(dim=0) / counts
    centred = (x - centre) * mask
    variance = centred.square().sum(dim=0) / counts
    _, deviations, directions = torch.linalg.svd(centred, full_matrices=False)
    k = min(n_factors, len(deviations))
    loadings = torch.zeros(x.shape[1], n_factors, dtype=x.dtype, device=x.device)
    loadings[:, :k] = directions[:k].T * (deviations[:k] / len(x) ** 0.5)
    noise = 0.5 * variance + 0.1 * variance.mean()
    return Factors(centre, loadings, noise.clamp_min(TINY))


class LinearFill(nn.Module):
    """Fills missing entries with ``E[x_mis | x_obs]`` under factor analysis.

    Parameters
    ----------
    factors : Factors
    """

    centre: Tensor
    loadings: Tensor
    noise: Tensor

    def __init__(self, factors: Factors) -> None:
        super().__init__()
        for name, tensor in factors._asdict().items():
            self.register_buffer(name, tensor.float())

    @classmethod
    def empty(cls, n_features: int, n_factors: int) -> Self:
        """Make one whose numbers are to be loaded."""
        zeros = torch.zeros(n_features, dtype=torch.float32, device="cpu")
        return cls(Factors(zeros, zeros[:, None].repeat(1, n_factors), zeros + 1.0))

    def forward(self, x: Tensor, mask: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return rows (n, p) with expected values where the `mask` (n, p) is False.

        With a `generator`, with draws from p(x_mis | x_obs) instead, whose covariance is not that
        of expected values but that of complete rows.
        """
        factors = Factors(self.centre, self.loadings, self.noise)
        z, root = expected_factors(x, mask.to(x.dtype), factors)
        filled = self.centre + z @ self.loadings.T
        if generator is not None:

            def draw(*shape: int) -> Tensor:
                return torch.randn(shape, generator=generator, dtype=x.dtype, device=x.device)

            # L^-T e of standard normal e has the covariance (L L^T)^-1.
            drawn = torch.linalg.solve_triangular(root.mT, draw(*z.shape, 1), upper=True)[:, :, 0]
            noise = self.noise.sqrt() * draw(*x.shape)
            filled = filled + drawn @ self.loadings.T + noise
        return torch.where(mask, x, filled)
