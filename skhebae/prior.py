"""Priors p(z) of codes: pure tensor functions, in nats."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.divergences import (
    diagonal_kl_to_standard,
    gaussian_kl_to_standard,
    in_double,
    scaled_kl_to_standard,
)
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


class Prior(ABC):
    """A density p(z) over codes of `n_components` dimensions.

    A new prior implements the abstract methods. The others follow from them, and may be
    overridden by something quicker. Codes may be on any device and in float32 or float64: a prior
    that holds tensors must bring them to those of the codes, and one that holds numbers need not.

    Parameters
    ----------
    n_components : int

    Attributes
    ----------
    log_normaliser : float
        ``log_kernel(z) - log_prob(z)``, the same for all codes.
    deviation : float
        Standard deviation of a component, in which codes start.
    is_standard : bool
        Whether the prior is N(0, I), for which some quantities have closed forms.
    """

    log_normaliser: float = 0.0
    deviation: float = 1.0
    is_standard: ClassVar[bool] = False

    def __init__(self, n_components: int) -> None:
        self.n_components = n_components

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return the normalised log-density of codes (..., d), (...)."""

    @abstractmethod
    def sample(self, n_samples: int, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Draw codes, (n_samples, d)."""

    @abstractmethod
    def precision(self, z: Tensor) -> Tensor:
        """Return the prior's part of a posterior's precision at codes z (n, d), (n, d, d).

        The negative Hessian of `log_prob`, or a positive definite approximation; in float64
        where the device has it.
        """

    @abstractmethod
    def gaussian_kl(self, mean: Tensor, factor: Tensor) -> Tensor:
        """Return ``KL(N(m, L L^T) || p)`` for means (..., d) and lower factors (..., d, d), (...).

        Infinite for points (L = 0).
        """

    def log_kernel(self, z: Tensor) -> Tensor:
        """Return `log_prob` up to the constant `log_normaliser`, (...).

        Enough to find a mode, and without the rounding that a constant adds.
        """
        return self.log_prob(z)

    def gradient(self, z: Tensor) -> Tensor:
        """Return the gradient of `log_prob` at codes z (n, d), (n, d)."""
        with torch.enable_grad():
            leaf = z.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.log_prob(leaf).sum(), leaf)
        return gradient

    def diagonal_kl(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """Return ``KL(N(mu, diag sigma^2) || p)`` for means and log-variances (n, d), (n,)."""
        return self.gaussian_kl(mean, (0.5 * log_var).exp().diag_embed())

    def scaled_kl(self, mean: Tensor, spread: Tensor, factor: Tensor) -> Tensor:
        """Return ``KL(N(mu_i, D_i S D_i) || p)`` for a common S, (n,).

        Parameters
        ----------
        mean, spread : Tensor of shape (n, d)
            ``mu_i`` and the diagonal of ``D_i``.
        factor : Tensor of shape (d, d)
            Lower Cholesky factor of S.
        """
        return self.gaussian_kl(mean, spread[:, :, None] * factor)

    def from_normal(self, noise: Tensor) -> Tensor:
        """Turn standard normal draws (n, d) into draws from p(z), on any device.

        Only objectives that compare codes with fresh draws from the prior in every step (WAE)
        need it.

        Raises
        ------
        TypeError
            If the prior does not define it.
        """
        raise TypeError(
            f"{type(self).__name__} does not define from_normal, which this objective needs to "
            "draw from the prior in every training step."
        )


class StandardNormalPrior(Prior):
    """``p(z) = N(z; 0, I)``."""

    is_standard: ClassVar[bool] = True

    def __init__(self, n_components: int) -> None:
        super().__init__(n_components)
        self.log_normaliser = 0.5 * n_components * math.log(2.0 * math.pi)

    def log_prob(self, z: Tensor) -> Tensor:
        """Return ``-(|z|^2 + d log 2 pi) / 2``, (...)."""
        return self.log_kernel(z) - self.log_normaliser

    def log_kernel(self, z: Tensor) -> Tensor:
        """Return ``-|z|^2 / 2``, (...)."""
        return -0.5 * z.square().sum(dim=-1)

    def gradient(self, z: Tensor) -> Tensor:
        """Return ``-z``, (n, d)."""
        return -z

    def sample(self, n_samples: int, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Draw codes, (n_samples, d)."""
        return rng.standard_normal((n_samples, self.n_components))

    def precision(self, z: Tensor) -> Tensor:
        """Return the identity for every code, (n, d, d)."""
        wide = in_double(z)
        identity = torch.eye(z.shape[1], dtype=wide.dtype, device=z.device)
        return identity.expand(len(z), -1, -1)

    def gaussian_kl(self, mean: Tensor, factor: Tensor) -> Tensor:
        """Return `gaussian_kl_to_standard`, (...)."""
        return gaussian_kl_to_standard(mean, factor)

    def diagonal_kl(self, mean: Tensor, log_var: Tensor) -> Tensor:
        """Return `diagonal_kl_to_standard`, (n,)."""
        return diagonal_kl_to_standard(mean, log_var)

    def scaled_kl(self, mean: Tensor, spread: Tensor, factor: Tensor) -> Tensor:
        """Return `scaled_kl_to_standard`, (n,)."""
        return scaled_kl_to_standard(mean, spread, factor)

    def from_normal(self, noise: Tensor) -> Tensor:
        """Return `noise`."""
        return noise


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
