"""Circular likelihood: angles, hours and other values without a beginning and an end."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Matrix, Scaling, Table
from skhebae.files import check_floats
from skhebae.likelihoods.base import Likelihood, as_tensor
from skhebae.likelihoods.normal_scores import find_step, round_to

#: Mean length of the vectors on the circle from which the decoder starts, at most: at 1 all
#: values would be the same, and the concentration infinite.
LARGEST_LENGTH = 0.95

#: Smallest squared concentration, whose root has a derivative.
TINY = 1e-12


@dataclass(frozen=True)
class Circular:
    """The family of a column whose values return to their beginning.

    Parameters
    ----------
    period : float
        Values that differ by it are the same: 24 for hours, 360 for degrees.
    """

    period: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.period) and self.period > 0.0):
            raise ValueError(f"period={self.period!r} must be a number > 0, for example 24.")


@dataclass(frozen=True)
class CircularScaling(Scaling):
    """From values (n, p) to standardised sines and cosines (n, 2 p), and back.

    Sine and cosine of a column stand side by side, and have one unit, in which their variances
    add up to 1.

    Attributes
    ----------
    location, scale : ndarray of shape (2 p,), float64
    period, step : ndarray of shape (p,)
        The period, and what all values are multiples of, or 0.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    period: NDArray[np.float64]
    step: NDArray[np.float64]
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    may_miss: ClassVar[bool] = True

    @classmethod
    def measure(cls, table: Table) -> Self:
        """Measure the tables of all processes."""
        assert table.columns is not None
        period = np.array([column.options["period"] for column in table.columns.items])
        X = np.asarray(table.X, dtype=np.float64)
        angles = on_circle(X, period)
        weight = table.row_weights
        own = (weight @ np.nan_to_num(angles), weight @ np.isfinite(angles))
        steps = table.group.gather([find_step(x[~np.isnan(x)]) for x in X.T])
        sums, counts = (
            np.sum(parts, axis=0) for parts in zip(*table.group.gather(own), strict=True)
        )
        location = sums / np.maximum(counts, TINY)
        length = np.square(location.reshape(-1, 2)).sum(axis=1)
        constant = length > 1.0 - 1e-12
        deviation = np.sqrt(np.where(constant, 1.0, 1.0 - length))
        return cls(
            location,
            np.repeat(deviation, 2),
            period,
            np.min(steps, axis=0),
            np.flatnonzero(np.repeat(constant, 2)),
        )

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        check_floats(self.period, "period", (n_features // 2,), above=0.0)
        check_floats(self.step, "step", (n_features // 2,))

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map values to standardised sines and cosines; NaN stays."""
        points = on_circle(np.asarray(X, dtype=np.float64), self.period)
        result: NDArray[np.float32] = ((points - self.location) / self.scale).astype(np.float32)
        return result

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map sines and cosines of any length to values from 0 to the period."""
        points = standardised.astype(np.float64) * self.scale + self.location
        angles = np.arctan2(points[:, ::2], points[:, 1::2])
        values = np.mod(angles / (2.0 * np.pi), 1.0) * self.period
        for j, step in enumerate(self.step):
            values[:, j] = round_to(values[:, j], float(step))
        values[values >= self.period] = 0.0  # by rounding
        return values


def on_circle(X: NDArray[np.float64], period: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return sines and cosines of values (n, p) side by side, (n, 2 p)."""
    angles = 2.0 * np.pi * X / period
    return np.stack([np.sin(angles), np.cos(angles)], axis=2).reshape(len(X), 2 * len(period))


def log_i0(kappa: Tensor) -> Tensor:
    """Return the logarithm of the modified Bessel function I_0."""
    result: Tensor = torch.special.i0e(kappa).log() + kappa
    return result


class CircularLikelihood(Likelihood):
    """The von Mises density of a value that returns to its beginning.

    The density is ``exp(eta . v) / (period I_0(|eta|))`` for v on the unit circle. The decoder's
    output is eta. Its direction is the most likely one, and its length the concentration.

    Parameters
    ----------
    location, scale : Tensor of shape (2 p,)
    period : Tensor of shape (p,)
    """

    scaling_class: ClassVar[type[Scaling]] = CircularScaling
    accepts_missing: ClassVar[bool] = True
    starts_linear: ClassVar[bool] = True

    period: Tensor

    def __init__(self, location: Tensor, scale: Tensor, period: Tensor) -> None:
        super().__init__(location, scale)
        self.register_buffer("period", period, persistent=False)

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by a `CircularScaling`, in float32."""
        assert isinstance(scaling, CircularScaling)
        parts = (scaling.location, scaling.scale, scaling.period)
        return cls(*map(as_tensor, parts)).float()

    def _concentration(self, parameter: Tensor) -> Tensor:
        """Return the length of eta, (..., p)."""
        squares = parameter.square()
        return (squares[..., ::2] + squares[..., 1::2]).clamp_min(TINY).sqrt()

    def _length(self, parameter: Tensor) -> tuple[Tensor, Tensor]:
        """Return concentrations and the lengths of mean vectors, both (..., p)."""
        kappa = self._concentration(parameter)
        return kappa, torch.special.i1e(kappa) / torch.special.i0e(kappa)

    def _vectors(self, parameter: Tensor) -> Tensor:
        """Return the mean of v, (..., 2 p)."""
        kappa, length = self._length(parameter)
        return parameter * (length / kappa).repeat_interleave(2, dim=-1)

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the log-density of each value at its sine, and 0 at its cosine, (n, 2 p)."""
        products = parameter * (x * self.scale + self.location)
        total = products[..., ::2] + products[..., 1::2]
        density = total - log_i0(self._concentration(parameter)) - self.period.log()
        return torch.stack([density, torch.zeros_like(density)], dim=-1).flatten(start_dim=-2)

    def mean(self, parameter: Tensor) -> Tensor:
        """Return the mean of sine and cosine, standardised, (n, 2 p)."""
        return (self._vectors(parameter) - self.location) / self.scale

    def average(self, parameters: Tensor) -> Tensor:
        """Return the eta of the average mean vector, (n, 2 p)."""
        return natural_parameter(self._vectors(parameters).mean(dim=0))

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from the von Mises distribution (Best and Fisher, 1979), (n, 2 p)."""
        kappa = self._concentration(parameter)
        tau = 1.0 + (1.0 + 4.0 * kappa.square()).sqrt()
        # For a small concentration the quotient of small differences is 1 / kappa.
        rho = (tau - (2.0 * tau).sqrt()) / (2.0 * kappa)
        r = ((1.0 + rho.square()) / (2.0 * rho)).where(kappa > 1e-3, 1.0 / kappa)
        angle = torch.zeros_like(kappa)
        waiting = torch.ones_like(kappa, dtype=torch.bool)
        while bool(waiting.any()):
            first, second, third = torch.rand(
                (3, *kappa.shape), generator=generator, dtype=kappa.dtype, device=kappa.device
            )
            z = (math.pi * first).cos()
            f = ((1.0 + r * z) / (r + z)).clamp(-1.0, 1.0)
            c = kappa * (r - f)
            taken = (c * (2.0 - c) > second) | ((c / second.clamp_min(TINY)).log() + 1.0 >= c)
            drawn = f.arccos() * (third - 0.5).sign()
            angle = drawn.where(waiting & taken, angle)
            waiting = waiting & ~taken
        centre = torch.atan2(parameter[..., ::2], parameter[..., 1::2])
        points = torch.stack([(centre + angle).sin(), (centre + angle).cos()], dim=-1)
        return (points.flatten(start_dim=-2) - self.location) / self.scale

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return the variance of v in a direction, the mean over directions, (n, 2 p).

        The covariance of sine and cosine is not diagonal in general; that of the mean over
        directions is, and both have the same trace.
        """
        _, length = self._length(parameter)
        return (0.5 * (1.0 - length.square())).clamp_min(1e-6).repeat_interleave(2, dim=-1)

    def initial_bias(self) -> Tensor:
        """Return the eta of the mean vector of fit, (2 p,)."""
        return natural_parameter(self.location)

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Divide by the slope of the mean vector in eta, the variance of v."""
        slope = self.fisher_information(self.initial_bias())
        return loadings * (self.scale / slope)[:, None]


def natural_parameter(vectors: Tensor) -> Tensor:
    """Return an eta with these mean vectors of v, (..., 2 p), to about 1 %.

    By the approximation ``kappa = R (2 - R^2) / (1 - R^2)`` (Banerjee et al., 2005).
    """
    squares = vectors.square()
    length = (squares[..., ::2] + squares[..., 1::2]).clamp_min(TINY).sqrt()
    kept = length.clamp_max(LARGEST_LENGTH)
    kappa = kept * (2.0 - kept.square()) / (1.0 - kept.square())
    return vectors * (kappa / length).repeat_interleave(2, dim=-1)
