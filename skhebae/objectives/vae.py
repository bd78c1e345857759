"""Variational autoencoder (arXiv:1312.6114), with a weight beta on its penalty."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skhebae.divergences import diagonal_kl_to_standard
from skhebae.objectives.base import Objective, Terms
from skhebae.processes import WHOLE, Part

if TYPE_CHECKING:
    from skhebae.model import Autoencoder


#: Bound of the log-variance: float32 still has the squares of what a row far
#: from those of training makes of it.
LARGEST_LOG_VAR = 40.0


def bounded_log_var(scales: Tensor) -> Tensor:
    """Turn the scale head into log-variances, (n, d)."""
    return scales.clamp(-LARGEST_LOG_VAR, LARGEST_LOG_VAR)


class VAEObjective(Objective):
    """``mean_i [ -log p(x_i | z_i) + beta * KL(N(mu_i, diag sigma_i^2) || N(0, I)) ]``.

    Parameters
    ----------
    beta : float
        Weight of the penalty; 1 is the evidence lower bound.
    """

    # A log-variance: sigma = exp(-1). Starting at the prior's 1 invites collapse.
    initial_scale = -2.0

    def __init__(self, beta: float) -> None:
        self.weight = beta
        self.row_weight = beta

    def n_scales(self, n_components: int) -> int:
        """One log-variance a component."""
        return n_components

    def __call__(
        self,
        model: Autoencoder,
        x: Tensor,
        generator: torch.Generator,
        input_noise: float = 0.0,
        part: Part = WHOLE,
    ) -> Terms:
        """Equations 1 to 4 on one minibatch."""
        mu, scales = model.encode(x, input_noise, generator)
        log_var = bounded_log_var(scales)
        noise = part.own(part.draw(mu, generator))
        z = mu + (0.5 * log_var).exp() * noise
        divergence = diagonal_kl_to_standard(mu, log_var)
        return Terms(
            reconstruction=-model.log_prob(x, z),
            row_penalty=divergence,
            row_divergence=divergence,
        )

    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """``exp(log_var / 2)``, (n, d)."""
        return (0.5 * bounded_log_var(scales)).exp()

    def noise_covariance(self, code_covariance: Tensor, n_rows: int) -> Tensor:
        """Identity: the posterior is mean-field, (d, d)."""
        return torch.eye(len(code_covariance), dtype=code_covariance.dtype)
