"""Variational autoencoder (arXiv:1312.6114), with a weight beta on its penalty."""

from __future__ import annotations

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.model import Autoencoder
from skhebae.objectives.base import Objective, Terms

#: Bound of the log-variance: float32 can still represent the squares that a row far from those
#: of training makes of it.
LARGEST_LOG_VAR = 40.0


def bounded_log_var(scales: Tensor) -> Tensor:
    """Turn the scale head into log-variances, (n, d)."""
    return scales.clamp(-LARGEST_LOG_VAR, LARGEST_LOG_VAR)


class VAEObjective(Objective):
    """Reconstruction plus the divergence of the posterior of each row from the prior.

    The loss is ``mean_i [-log p(x_i | z_i) + beta * KL(N(mu_i, diag sigma_i^2) || p(z))]``.

    Parameters
    ----------
    beta : float
        Weight of the penalty; 1 is the evidence lower bound.
    """

    # A log-variance: sigma = exp(-1). Starting at the prior's 1 invites collapse.
    initial_scale = -2.0

    def __init__(self, beta: float = 1.0) -> None:
        self.weight = beta
        self.row_weight = beta

    def n_scales(self, n_components: int) -> int:
        """Return one log-variance per component."""
        return n_components

    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Evaluate equations 1 to 4 on one minibatch."""
        mu, scales = model.encode(minibatch)
        log_var = bounded_log_var(scales)
        noise = minibatch.own(minibatch.draw(mu))
        z = mu + (0.5 * log_var).exp() * noise
        divergence = model.prior.diagonal_kl(mu, log_var)
        return Terms(
            reconstruction=-model.log_prob(minibatch, z),
            row_penalty=divergence,
            row_divergence=divergence,
        )

    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Return ``exp(log_var / 2)``, (n, d)."""
        return (0.5 * bounded_log_var(scales)).exp()

    def noise_covariance(self, code_covariance: Tensor, n_rows: float) -> Tensor:
        """Return the identity: the posterior is mean-field, (d, d)."""
        return torch.eye(
            len(code_covariance), dtype=code_covariance.dtype, device=code_covariance.device
        )
