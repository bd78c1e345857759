"""The affine map between the encoder's codes and those that users see, and the noise of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from skhebae.divergences import cholesky_factor, in_double, regularised_covariance
from skhebae.prior import Prior

#: Pseudo-rows of N(0, I) among the training codes, so that no direction is blown up without limit.
PSEUDO_ROWS = 1.0


class CodeMap(nn.Module):
    """The map ``z = A (mu - m)`` of the encoder's codes mu, with its inverse.

    Parameters
    ----------
    centre : Tensor of shape (d,)
        m.
    matrix, inverse : Tensor of shape (d, d)
        A, and its inverse.
    """

    centre: Tensor
    matrix: Tensor
    inverse: Tensor

    def __init__(self, centre: Tensor, matrix: Tensor, inverse: Tensor) -> None:
        super().__init__()
        self.register_buffer("centre", centre)
        self.register_buffer("matrix", matrix)
        self.register_buffer("inverse", inverse)

    @classmethod
    def empty(cls, n_components: int) -> Self:
        """Make a map whose numbers are to be loaded."""
        square = torch.zeros(n_components, n_components, dtype=torch.float32, device="cpu")
        return cls(square[0].clone(), square, square.clone())

    @classmethod
    def standardising(cls, mean: Tensor, covariance: Tensor, n_rows: float) -> Self:
        """Make the map that takes codes to mean 0 and covariance I.

        ``A = S^-1/2``, the root that moves codes least (Kessy, Lewin and Strimmer, 2018), with the
        covariance S of the codes and a pseudo-row of N(0, I): a direction in which they do not
        vary is stretched by at most the root of `n_rows`.

        Parameters
        ----------
        mean : Tensor of shape (d,), float64
        covariance : Tensor of shape (d, d), float64
            With divisor ``n_rows - 1``.
        n_rows : float
        """
        smoothed = regularised_covariance(covariance, n_rows, PSEUDO_ROWS)
        eigenvalues, vectors = torch.linalg.eigh(smoothed)
        # Rounding of far larger ones may leave the smallest eigenvalues below their bound.
        roots = eigenvalues.clamp_min(PSEUDO_ROWS / (PSEUDO_ROWS + n_rows - 1)).sqrt()
        matrix, inverse = ((vectors * root) @ vectors.T for root in (1.0 / roots, roots))
        return cls(mean.float(), matrix.float(), inverse.float())

    def forward(self, mu: Tensor) -> Tensor:
        """Map the encoder's codes (n, d) to those that users see, (n, d)."""
        return (mu - self.centre) @ self.matrix.T

    def undo(self, z: Tensor) -> Tensor:
        """Map codes that users see (n, d) to the decoder's input, (n, d)."""
        return z @ self.inverse.T + self.centre


@dataclass(frozen=True, eq=False)
class CodeNoise:
    """Noise of codes: the posterior of a row is ``N(mu_i, A D_i C D_i A^T)``.

    Each row has a diagonal D_i, its spread, and all share C and A.

    Attributes
    ----------
    factor : Tensor of shape (d, d)
        Lower factor L of ``C = L L^T``.
    matrix : Tensor of shape (d, d) or None
        A; None is the identity.
    """

    factor: Tensor
    matrix: Tensor | None = None

    @classmethod
    def of(cls, covariance: Tensor, code_map: CodeMap | None) -> Self:
        """Make the noise with C (d, d), in float64, behind a map."""
        matrix = None if code_map is None else in_double(code_map.matrix).to(covariance.device)
        return cls(cholesky_factor(covariance), matrix)

    def to(self, like: Tensor) -> Self:
        """Return it on the device and in the precision of a tensor."""
        matrix = None if self.matrix is None else self.matrix.to(like)
        return type(self)(self.factor.to(like), matrix)

    def mapped(self, rows: Tensor) -> Tensor:
        """Return rows (n, d) behind the map, without its centre."""
        return rows if self.matrix is None else rows @ self.matrix.T

    def draw(self, spread: Tensor, noise: Tensor) -> Tensor:
        """Turn standard normal numbers (n, d) into the noise of rows, (n, d)."""
        return self.mapped(spread * (noise @ self.factor.T))

    def factors(self, spread: Tensor) -> Tensor:
        """Return lower factors of the rows' covariances, (n, d, d), for spreads (n, d)."""
        factors = spread[:, :, None] * self.factor
        if self.matrix is None:
            return factors
        return lower_factor(self.matrix @ factors)

    def variance(self, spread: Tensor) -> Tensor:
        """Return the diagonals of the rows' covariances, (n, d)."""
        if self.matrix is None:
            return spread.square() * self.factor.square().sum(dim=1)
        rows = [((spread * row) @ self.factor).square().sum(dim=1) for row in self.matrix]
        return torch.stack(rows, dim=1)

    def covariance(self, products: Tensor) -> Tensor:
        """Return the mean covariance of rows with the mean `products` of spreads, (..., d, d).

        ``A (mean_i s_i s_i^T * C) A^T`` with the spreads s_i.
        """
        noise = products * (self.factor @ self.factor.T)
        return noise if self.matrix is None else self.matrix @ noise @ self.matrix.T

    def log_det(self, spread: Tensor) -> Tensor:
        """Return the logarithms of the determinants of the rows' covariances, (n,)."""
        half = spread.log().sum(dim=1) + self.factor.diagonal().log().sum()
        if self.matrix is not None:
            half = half + torch.linalg.slogdet(self.matrix).logabsdet
        return 2.0 * half

    def row_kl(self, prior: Prior, mu: Tensor, spread: Tensor) -> Tensor:
        """Return the divergence of each row's posterior from the prior, (n,), nats."""
        if self.matrix is None:
            return prior.scaled_kl(mu, spread, self.factor)
        return prior.gaussian_kl(mu, self.factors(spread))


def lower_factor(full: Tensor) -> Tensor:
    """Return the lower triangular L with ``L L^T = F F^T`` for full F, (n, d, d)."""
    # The triangle of the QR decomposition of F^T is lower when turned.
    lower = torch.linalg.qr(full.mT, mode="r").R.mT
    sign = torch.where(lower.diagonal(dim1=1, dim2=2) < 0.0, -1.0, 1.0).to(lower.dtype)
    result: Tensor = lower * sign[:, None, :]
    return result
