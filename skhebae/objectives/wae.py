"""Wasserstein autoencoder with a maximum-mean-discrepancy penalty (arXiv:1711.01558)."""

from __future__ import annotations

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.divergences import multiquadratic_mmd
from skhebae.model import Autoencoder
from skhebae.objectives.base import Objective, Terms
from skhebae.prior import Prior


class WAEObjective(Objective):
    """Reconstruction plus the maximum mean discrepancy of codes and draws from the prior.

    The loss is ``mean_i -log p(x_i | mu_i) + reg_weight * MMD(codes, prior)``. The encoder is
    deterministic, and every minibatch draws anew from the prior.

    Parameters
    ----------
    reg_weight : float
        Weight of the penalty.
    """

    def __init__(self, reg_weight: float = 10.0) -> None:
        self.weight = reg_weight
        self.standardises_codes = reg_weight > 0.0

    def n_scales(self, n_components: int) -> int:
        """Return 0: there is no scale head."""
        return 0

    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Evaluate algorithm 2 of the WAE paper on one minibatch."""
        mu, _ = model.encode(minibatch)
        prior_draws = model.prior.from_normal(minibatch.draw(mu))
        return Terms(
            reconstruction=-model.log_prob(minibatch, mu),
            minibatch_penalty=multiquadratic_mmd(
                minibatch.gather(mu), prior_draws, minibatch.gathered_weight()
            ),
        )

    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Return zeros: a code is a point, (n, d)."""
        return scales.new_zeros(len(scales), n_components)

    def noise_covariance(self, code_covariance: Tensor, n_rows: float) -> Tensor:
        """Return the identity, which a spread of 0 multiplies, (d, d)."""
        return torch.eye(
            len(code_covariance), dtype=code_covariance.dtype, device=code_covariance.device
        )

    def supports(self, prior: Prior) -> bool:
        """Whether `prior` can turn normal draws into its own."""
        return type(prior).from_normal is not Prior.from_normal
