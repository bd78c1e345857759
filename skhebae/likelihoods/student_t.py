"""Student's t likelihood: numbers with heavy tails."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skhebae.data import FeatureScaling, Scaling, Table
from skhebae.likelihoods.base import Evidence, as_tensor, identity_calibration
from skhebae.likelihoods.calibration import CALIBRATION_NUMBERS, most_likely_gains
from skhebae.likelihoods.count_scaling import quantiles
from skhebae.likelihoods.gaussian import GaussianLikelihood
from skhebae.likelihoods.grid import best_factor, with_code_noise

#: Degrees of freedom lie above the first number, and start at the second.
LEAST_FREEDOM, FIRST_FREEDOM = 1.0, 5.0

#: What they may have above the least.
FREEDOM_BOUNDS = (0.05, 200.0)

#: Rounds of gains, scale and freedom, each given the others.
ROUNDS = 3

#: Quartiles of N(0, 1) lie this far apart.
NORMAL_QUARTILES = 1.349


@dataclass(frozen=True)
class RobustScaling(FeatureScaling):
    """The map ``x -> (x - median) / scale``, the scale by quartiles: few values do not move it."""

    may_miss: ClassVar[bool] = True

    @classmethod
    def measure(cls, table: Table, transform: object = None) -> RobustScaling:
        """Measure the tables of all processes."""
        X, weight = np.asarray(table.X, dtype=np.float64), table.row_weights
        columns = [
            np.concatenate(table.group.gather(np.stack([x, weight])[:, ~np.isnan(x)]), axis=1)
            for x in X.T
        ]
        places = np.array([0.25, 0.5, 0.75])
        counts = None if table.weight is None else [own for _, own in columns]
        low, median, high = np.array(
            [
                quantiles(x, places, None if counts is None else counts[j])
                for j, (x, _) in enumerate(columns)
            ]
        ).T
        constant = np.array([x.min() == x.max() for x, _ in columns])
        deviation = np.array([np.cov(x, ddof=0, aweights=own) for x, own in columns]) ** 0.5
        unit = np.where(high > low, (high - low) / NORMAL_QUARTILES, deviation)
        unit[constant] = 1.0
        return cls(median, unit, np.ones(len(unit)), np.flatnonzero(constant))


class StudentTLikelihood(GaussianLikelihood):
    """``p(x_j | z)`` is Student's t around ``mean_j(z)``, with learned scale and freedom.

    Parameters
    ----------
    location, scale, variance : Tensor of shape (p,)
        As of `GaussianLikelihood`.
    """

    scaling_class: ClassVar[type[Scaling]] = RobustScaling
    accepts_missing: ClassVar[bool] = True

    def __init__(self, location: Tensor, scale: Tensor, variance: Tensor) -> None:
        super().__init__(location, scale, variance)
        start = math.log(math.expm1(FIRST_FREEDOM - LEAST_FREEDOM))
        self.raw_freedom = nn.Parameter(torch.full_like(variance, start))

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by a `RobustScaling`, in float32."""
        assert isinstance(scaling, FeatureScaling)
        parts = (scaling.location, scaling.scale, scaling.variance)
        return cls(*map(as_tensor, parts)).float()

    def freedom(self) -> Tensor:
        """Return the degrees of freedom, (p,)."""
        freedom: Tensor = LEAST_FREEDOM + nn.functional.softplus(self.raw_freedom)
        return freedom

    def encoder_input(self, x: Tensor) -> Tensor:
        """Return ``asinh x``, in which the tails do not drown all else, (n, p)."""
        return x.asinh()

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the log-density of each entry, (n, p), nats."""
        nu, variance = self.freedom(), self.noise_variance()
        constant = torch.lgamma(0.5 * (nu + 1.0)) - torch.lgamma(0.5 * nu)
        constant = constant - 0.5 * (nu.log() + variance.log() + math.log(math.pi))
        distance = (x - parameter).square() / (nu * variance)
        return constant - 0.5 * (nu + 1.0) * distance.log1p() - self.scale.log()

    def log_prob(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum the log-densities of each row's entries, (n,), nats."""
        entries = self.entry_log_prob(x, parameter)
        return (entries if mask is None else entries.where(mask, 0.0)).sum(dim=1)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Add noise of Student's distribution, (n, p).

        By Bailey's polar form (1994) of two uniform numbers, which needs no rejection.
        """
        nu = self.freedom()
        first, second = torch.rand(
            (2, *parameter.shape),
            generator=generator,
            dtype=parameter.dtype,
            device=parameter.device,
        )
        radius = (nu * torch.expm1(-2.0 / nu * (1.0 - first).log())).clamp_min(0.0).sqrt()
        noise: Tensor = radius * (2.0 * math.pi * second).cos()
        drawn: Tensor = parameter + self.noise_variance().sqrt() * noise
        return drawn

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return ``(nu + 1) / ((nu + 3) v)`` for every row, (n, p)."""
        nu = self.freedom()
        return ((nu + 1.0) / ((nu + 3.0) * self.noise_variance())).expand_as(parameter)

    def finish(self, evidence: Evidence) -> None:
        """Set the most likely gains, scale and freedom, given the networks."""
        if not evidence.is_part:
            self.calibration.copy_(identity_calibration(self.location))
        rows = evidence.decode_some(CALIBRATION_NUMBERS)
        for _ in range(1 if evidence.is_part else ROUNDS):
            if not evidence.is_part:
                gains = most_likely_gains(self, self.entry_log_prob, rows, evidence)
                self.calibration.copy_(gains)
            lacking = evidence.code_variance() if evidence.lacks_noise else None
            noised = with_code_noise(self, rows, lacking, calibrates=not evidence.is_part)
            start = self.noise_variance().detach().clone()
            best_factor(self, noised, evidence, start, self.set_noise_variance)
            start = self.freedom().detach() - LEAST_FREEDOM
            best_factor(self, noised, evidence, start, self.set_freedom)

    def set_freedom(self, above_least: Tensor) -> None:
        """Set the degrees of freedom above the least, (p,)."""
        above = above_least.clamp(*FREEDOM_BOUNDS)
        with torch.no_grad():
            self.raw_freedom.copy_(above + (-torch.expm1(-above)).log())

    def learned(self, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
        """Return nothing: the parameters are those of mixed tables."""
        return {}
