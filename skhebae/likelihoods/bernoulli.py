"""Bernoulli likelihood: binary features, or proportions."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from skhebae.data import Matrix, Scaling, value_range
from skhebae.likelihoods.base import (
    LEAST_PROBABILITY,
    Evidence,
    Float32Array,
    Likelihood,
    identity_calibration,
)
from skhebae.likelihoods.calibration import CALIBRATION_NUMBERS, most_likely_gains

#: Smallest unit of a feature within [0, 1].
SMALLEST_UNIT = 1e-30


class BernoulliLikelihood(Likelihood):
    """``p(x_j | z) = b_j^x_j (1 - b_j)^(1 - x_j)``; the decoder's output is ``logit b_j``.

    For x in [0, 1] rather than {0, 1} this is the usual cross-entropy, a
    pseudo-likelihood that is not normalised over [0, 1].
    """

    accepts_missing: ClassVar[bool] = True
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __init__(self, location: Tensor, scale: Tensor) -> None:
        # In single precision a smaller unit is 0, and all that is divided by it infinite.
        super().__init__(location, scale.clamp_min(SMALLEST_UNIT))

    @classmethod
    def check(cls, X: Matrix, name: str) -> None:
        """Raise unless all values lie within [0, 1].

        Raises
        ------
        ValueError
            Naming the range of the values, and the cure.
        """
        low, high = value_range(X)
        if low < 0 or high > 1:
            raise ValueError(
                f"likelihood={name!r} needs X within [0, 1], got values from {low:.4g} to "
                f"{high:.4g} (negative values in data are not a probability). Rescale X with "
                "MinMaxScaler(clip=True), or use likelihood='gaussian'."
            )

    def original_rows(self, rows: Float32Array, scaling: Scaling, *, drawn: bool) -> Float32Array:
        """Map to original units; keep means within [0, 1] and draws at 0 or 1."""
        # The way through standardised units may round a hair past the ends, and off 0 and 1.
        table = scaling.restore(rows).clip(0.0, 1.0)
        return table.round() if drawn else table

    def _original(self, x: Tensor) -> Tensor:
        return x * self.scale + self.location

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self.location) / self.scale

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the negative cross-entropy of each entry, (n, p), nats."""
        cross_entropy = functional.binary_cross_entropy_with_logits(
            parameter, self._original(x), reduction="none"
        )
        return -cross_entropy

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Return the logit; after training, calibrated, (n, p)."""
        return output if self.training else self.calibrate(output, self.calibration)

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Divide by the slope of the probability in the logit, ``b (1 - b)``, at the means."""
        probability = self.initial_bias().sigmoid()
        slope = probability * (1.0 - probability)
        return loadings * (self.scale / slope)[:, None]

    def finish(self, evidence: Evidence) -> None:
        """Set the most likely calibration, given the networks; not in a stream."""
        if evidence.is_part:
            return
        self.calibration.copy_(identity_calibration(self.location))
        rows = evidence.decode_some(CALIBRATION_NUMBERS)
        self.calibration.copy_(most_likely_gains(self, self.entry_log_prob, rows, evidence))

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the success probability, standardised, (n, p)."""
        return self._standardised(parameter.sigmoid())

    def average(self, parameters: Tensor) -> Tensor:
        """Return the logit of the average probability, (n, p)."""
        # log sum b - log sum (1 - b), whose digits near 0 and 1 are not lost.
        inside, outside = (functional.logsigmoid(sign * parameters) for sign in (1.0, -1.0))
        return inside.logsumexp(dim=0) - outside.logsumexp(dim=0)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw zeros and ones, standardised, (n, p)."""
        return self._standardised(torch.bernoulli(parameter.sigmoid(), generator=generator))

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return ``b_j (1 - b_j)`` of each row, (n, p)."""
        probability = parameter.sigmoid()
        return probability * (1.0 - probability)

    def pearson_residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return ``(x - b) / sqrt(b (1 - b))``, which is ``x e^(-l/2) - (1 - x) e^(l/2)``, (n, p).

        For logits l, kept within probabilities that are not too small.
        """
        most = -0.5 * math.log(LEAST_PROBABILITY)
        half, original = (0.5 * parameter).clamp(-most, most), self._original(x)
        return original * (-half).exp() - (1.0 - original) * half.exp()

    def initial_bias(self) -> Tensor:
        """Return the logit of the feature means, kept within +-4.6 (1 % and 99 %), (p,)."""
        return torch.logit(self.location, eps=0.01)
