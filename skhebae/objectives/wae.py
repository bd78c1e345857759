"""Wasserstein autoencoder with a maximum-mean-discrepancy penalty (arXiv:1711.01558)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skhebae.divergences import multiquadratic_mmd
from skhebae.objectives.base import Objective, Terms
from skhebae.processes import WHOLE, Part

if TYPE_CHECKING:
    from skhebae.model import Autoencoder


class WAEObjective(Objective):
    """``mean_i -log p(x_i | mu_i) + reg_weight * MMD(codes, prior)``.

    The encoder is deterministic, the prior sample fresh in every minibatch.

    Parameters
    ----------
    reg_weight : float
        Weight of the penalty.
    """

    def __init__(self, reg_weight: float) -> None:
        self.weight = reg_weight

    def n_scales(self, n_components: int) -> int:
        """No scale head."""
        return 0

    def __call__(
        self,
        model: Autoencoder,
        x: Tensor,
        generator: torch.Generator,
        input_noise: float = 0.0,
        part: Part = WHOLE,
    ) -> Terms:
        """Algorithm 2 of the WAE paper on one minibatch."""
        mu, _ = model.encode(x, input_noise, generator)
        prior_draws = part.draw(mu, generator)
        return Terms(
            reconstruction=-model.log_prob(x, mu),
            minibatch_penalty=multiquadratic_mmd(part.gather(mu), prior_draws),
        )

    def spread(self, scales: Tensor, n_components: int) -> Tensor:
        """Zeros: a code is a point, (n, d)."""
        return scales.new_zeros(len(scales), n_components)

    def noise_covariance(self, code_covariance: Tensor, n_rows: int) -> Tensor:
        """Identity, which a spread of 0 multiplies, (d, d)."""
        return torch.eye(len(code_covariance), dtype=code_covariance.dtype)
