"""Variational autoencoder with a tilted prior (arXiv:2111.15646)."""

from __future__ import annotations

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.model import Autoencoder
from skhebae.objectives.base import Objective, Terms
from skhebae.prior import Prior
from skhebae.tilted_prior import TiltedPrior, lengths


class TiltedVAEObjective(Objective):
    """Reconstruction plus the squared distance of a code's length from its best length.

    The loss is ``mean_i [-log p(x_i | z_i) + beta * (|mu_i| - mu*)^2 / 2]`` with ``z_i`` drawn from
    N(mu_i, I). The penalty stands for ``KL(N(mu_i, I) || p(z))`` minus its smallest value, which
    mu* attains. `Terms.row_divergence` is the divergence itself. They differ for small tilts.

    Parameters
    ----------
    beta : float
        Weight of the penalty.
    """

    def __init__(self, beta: float = 1.0) -> None:
        self.weight = beta
        self.row_weight = beta

    def n_scales(self, n_components: int) -> int:
        """Return 0: there is no scale head."""
        return 0

    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Evaluate the loss on one minibatch."""
        prior = model.prior
        assert isinstance(prior, TiltedPrior)
        mu, _ = model.encode(minibatch)
        z = mu + minibatch.own(minibatch.draw(mu))
        length = lengths(mu)
        return Terms(
            reconstruction=-model.log_prob(minibatch, z),
            row_penalty=0.5 * (length - prior.best_length).square(),
            row_divergence=prior.unit_kl(mu.detach()),
        )

    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Return ones, (n, d)."""
        return scales.new_ones(len(scales), n_components)

    def noise_covariance(self, code_covariance: Tensor, n_rows: float) -> Tensor:
        """Return the identity, (d, d)."""
        return torch.eye(
            len(code_covariance), dtype=code_covariance.dtype, device=code_covariance.device
        )

    def supports(self, prior: Prior) -> bool:
        """Whether `prior` is tilted."""
        return isinstance(prior, TiltedPrior)
