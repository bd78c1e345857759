"""The exponentially tilted Gaussian as a prior: most of it is near a sphere."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.divergences import diagonal_kl_to_standard, gaussian_kl_to_standard, in_double
from skhebae.prior import Prior
from skhebae.tilted import (
    best_length,
    expected_diagonal_length,
    expected_length,
    expected_unit_length,
    length_quantiles,
    log_partition,
    mean_length,
)

#: Tilt per root of the number of components where it is "auto". Codes then have about this many
#: times the deviation of their noise.
TILT = 3.0

#: Beyond this tilt, terms of the divergence would be too large for the digits of float64.
LARGEST_TILT = 10_000.0

#: Quantiles of lengths in a table, and the normal ones that they belong to, at most.
QUANTILES, FURTHEST = 4097, 8.0

#: Smallest length that is told from 0.
TINY = 1e-30


class TiltedPrior(Prior):
    """``p(z) = exp(tau |z|) N(z; 0, I) / Z``, most of which is near a sphere.

    For posteriors of unit variance, ``N(mu, I)``: the divergence then depends on the length of mu
    alone, and is smallest on a sphere of radius `best_length`, about ``sqrt(tau^2 - d)``. Up to a
    tilt of about the root of d that radius is 0.

    Parameters
    ----------
    n_components : int
    tilt : float or "auto", default="auto"
        tau >= 0; 0 is N(0, I). "auto" is `TILT` times the root of `n_components`.

    Attributes
    ----------
    tilt : float
    best_length : float
        The ``|mu|`` for which ``KL(N(mu, I) || p)`` is smallest.
    deviation : float
        Standard deviation of each component.

    References
    ----------
    .. [1] G. Floto, S. Kremer and M. Nica, "The Tilted Variational Autoencoder: Improving
       Out-of-Distribution Detection", arXiv:2111.15646.
    """

    def __init__(self, n_components: int, tilt: float | str = "auto") -> None:
        super().__init__(n_components)
        self.tilt = TILT * n_components**0.5 if isinstance(tilt, str) else float(tilt)
        self.log_partition = log_partition(n_components, self.tilt)
        # That of a kernel without large terms.
        self.log_normaliser = (
            self.log_partition - 0.5 * self.tilt**2 + 0.5 * n_components * math.log(2.0 * math.pi)
        )
        self.best_length = best_length(n_components, self.tilt)
        expected_square = n_components + self.tilt * mean_length(n_components, self.tilt)
        self.deviation = (expected_square / n_components) ** 0.5
        self._tables: dict[torch.device, list[Tensor]] = {}

    def log_prob(self, z: Tensor) -> Tensor:
        """Return ``tau |z| - |z|^2 / 2 - d / 2 log 2 pi - log Z``, (...)."""
        return self.log_kernel(z) - self.log_normaliser

    def log_kernel(self, z: Tensor) -> Tensor:
        """Return ``-(|z| - tau)^2 / 2``, (...)."""
        return -0.5 * (lengths(z) - self.tilt).square()

    def gradient(self, z: Tensor) -> Tensor:
        """Return ``(tau / |z| - 1) z``, 0 at the origin, (n, d)."""
        return (self.tilt / lengths(z)[..., None].clamp_min(TINY) - 1.0) * z

    def precision(self, z: Tensor) -> Tensor:
        """Return the negative Hessian, or along the sphere at least the prior's own precision.

        1 in the direction of z, and ``1 - tau / |z|`` in others, which is not positive within
        the sphere: there the inverse of the variance that codes have over all of it.
        """
        wide = in_double(z)
        length = lengths(wide)[:, None, None]
        along = (1.0 - self.tilt / length.clamp_min(TINY)).clamp_min(self.deviation**-2)
        unit = wide / length[:, 0].clamp_min(TINY)
        identity = torch.eye(z.shape[1], dtype=wide.dtype, device=z.device)
        return along * identity + (1.0 - along) * (unit[:, :, None] * unit[:, None, :])

    def gaussian_kl(self, mean: Tensor, factor: Tensor) -> Tensor:
        """Return ``KL(N(m, L L^T) || N(0, I)) + log Z - tau E |z|``, (...)."""
        mean, factor, kind = in_double(mean), in_double(factor), mean.dtype
        tilted = self.log_partition - self.tilt * expected_length(mean, factor)
        return (gaussian_kl_to_standard(mean, factor) + tilted).to(kind)

    def diagonal_kl(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """Return `gaussian_kl` for a diagonal covariance, (n,)."""
        mean, log_var, kind = in_double(mean), in_double(log_var), mean.dtype
        tilted = self.log_partition - self.tilt * expected_diagonal_length(mean, log_var.exp())
        return (diagonal_kl_to_standard(mean, log_var) + tilted).to(kind)

    def unit_kl(self, mean: Tensor) -> Tensor:
        """Return ``KL(N(mu, I) || p) = log Z + |mu|^2 / 2 - tau E |z|``, (...)."""
        length = lengths(in_double(mean))
        tilted = self.log_partition - self.tilt * expected_unit_length(length, mean.shape[-1])
        return (0.5 * length.square() + tilted).to(mean.dtype)

    def from_normal(self, noise: Tensor) -> Tensor:
        """Stretch normal draws (n, d), so that lengths keep their rank among all lengths."""
        before, after = (table.to(noise.dtype) for table in self._lengths(noise.device))
        length = lengths(noise)[..., None]
        place = torch.searchsorted(before, length).clamp(1, len(before) - 1)
        low, high = before[place - 1], before[place]
        share = (length - low) / (high - low).clamp_min(TINY)
        stretched = torch.lerp(after[place - 1], after[place], share)
        return noise * (stretched / length.clamp_min(TINY))

    def sample(self, n_samples: int, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Draw codes, (n_samples, d)."""
        noise = torch.from_numpy(rng.standard_normal((n_samples, self.n_components)))
        draws: NDArray[np.float64] = self.from_normal(noise).numpy()
        return draws

    def _lengths(self, device: torch.device) -> list[Tensor]:
        """Return lengths under N(0, I) and under the prior with the same ranks, 2 times (k,)."""
        if device not in self._tables:
            normal = np.linspace(-FURTHEST, FURTHEST, QUANTILES)
            tables = [length_quantiles(self.n_components, t, normal) for t in (0.0, self.tilt)]
            # Before the first quantile comes 0. What lies beyond the last lies in line with it.
            found = [torch.from_numpy(np.concatenate([[0.0], table])) for table in tables]
            if device.type == "mps":
                found = [table.float() for table in found]
            self._tables[device] = [table.to(device) for table in found]
        return self._tables[device]


def lengths(z: Tensor) -> Tensor:
    """Return the lengths of codes (..., d), (...)."""
    result: Tensor = torch.linalg.vector_norm(z, dim=-1)
    return result
