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


class Prior(ABC):
    """Base class of densities p(z) over codes of `n_components` dimensions.

    To write a prior, implement the abstract methods. The others follow from them, and you can
    override them by something quicker. Codes may be on any device and in float32 or float64, so a
    prior that holds tensors must move them to the device and dtype of the codes.

    Parameters
    ----------
    n_components : int

    Attributes
    ----------
    log_normaliser : float
        ``log_kernel(z) - log_prob(z)``, the same for all codes.
    deviation : float
        Standard deviation of a component, with which codes start.
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

        That is the negative Hessian of `log_prob`, or a positive definite approximation. It is in
        float64 if the device supports it.
        """

    @abstractmethod
    def gaussian_kl(self, mean: Tensor, factor: Tensor) -> Tensor:
        """Return ``KL(N(m, L L^T) || p)`` for means (..., d) and lower factors (..., d, d), (...).

        It is infinite for points (L = 0).
        """

    def log_kernel(self, z: Tensor) -> Tensor:
        """Return `log_prob` up to the constant `log_normaliser`, (...).

        This is enough to find a mode, and has no rounding from a constant.
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

        Only objectives that compare codes with new draws from the prior in every step, such as
        WAE, need it.

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
    """The standard normal prior, ``p(z) = N(z; 0, I)``."""

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
