"""Bernoulli likelihood: binary features, or proportions."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from skhebae.likelihoods.base import Likelihood


class BernoulliLikelihood(Likelihood):
    """``p(x_j | z) = b_j^x_j (1 - b_j)^(1 - x_j)``, ``logit b_j`` the decoder's output.

    For x in [0, 1] rather than {0, 1} this is the usual cross-entropy, a
    pseudo-likelihood that is not normalised over [0, 1].
    """

    def _original(self, x: Tensor) -> Tensor:
        return x * self.scale + self.location

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self.location) / self.scale

    def log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Negative cross-entropy summed over features (n,), nats."""
        cross_entropy = functional.binary_cross_entropy_with_logits(
            parameter, self._original(x), reduction="none"
        )
        return -cross_entropy.sum(dim=-1)

    def mean(self, parameter: Tensor) -> Tensor:
        """Success probability, standardised, (n, p)."""
        return self._standardised(parameter.sigmoid())

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw zeros and ones, standardised, (n, p)."""
        return self._standardised(torch.bernoulli(parameter.sigmoid(), generator=generator))

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """``b_j (1 - b_j)`` of each row, (n, p)."""
        probability = parameter.sigmoid()
        return probability * (1.0 - probability)

    def initial_bias(self) -> Tensor:
        """Logit of the feature means, kept within +-4.6 (1 % and 99 %), (p,)."""
        return torch.logit(self.location, eps=0.01)
