"""Quantile likelihood: a normal distribution of the normal scores of a column."""

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
from skhebae.likelihoods.base import Decoded, Evidence, as_tensor, identity_calibration
from skhebae.likelihoods.calibration import CALIBRATION_NUMBERS, most_likely_gains
from skhebae.likelihoods.gaussian import GaussianLikelihood
from skhebae.likelihoods.grid import best_factor, with_code_noise
from skhebae.likelihoods.intervals import log_interval
from skhebae.likelihoods.normal_scores import Segments, find_segments, find_step, round_to

#: Scores beyond which there is no probability, in place of infinity.
END = 1e4

#: Half a step is short, as a part of the score's standard deviation, and its probability that of
#: its middle.
SHORT = 1e-3

#: The widest atoms of a column, so many, which take information away.
WIDEST = 16

#: Probability of an atom below which it hides nothing, and the least information that is left.
SMALLEST, LEAST_SHARE = 1e-12, 1e-3

#: Rounds of gains and noise, each given the other.
ROUNDS = 3


@dataclass(frozen=True)
class QuantileScaling(Scaling):
    """From numbers (n, p) to their standardised normal scores, and back.

    Attributes
    ----------
    location, scale : ndarray of shape (p,), float64
        Mean and standard deviation of the scores.
    segments : ndarray of shape (s, 5), float64
        The fields of the `Segments` of all columns, one column after another.
    starts : ndarray of int of shape (p + 1,)
        Where the segments of each column begin.
    steps : ndarray of shape (p,)
        What all values are multiples of, or 0.
    low, high : ndarray of shape (p,)
        Smallest and largest value, which restored values keep to.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    segments: NDArray[np.float64]
    starts: NDArray[np.intp]
    steps: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))
    may_miss: ClassVar[bool] = True

    @classmethod
    def measure(cls, table: Table) -> Self:
        """Measure the distribution of each column in the tables of all processes."""
        assert table.columns is not None
        found, moments, steps, ranges = [], [], [], []
        for j, column in enumerate(table.columns.items):
            x = np.asarray(table.X[:, j], dtype=np.float64)
            parts = table.group.gather(np.unique(x[~np.isnan(x)], return_counts=True))
            merged = np.concatenate([values for values, _ in parts])
            values, place = np.unique(merged, return_inverse=True)
            held = np.concatenate([count for _, count in parts])
            counts = np.bincount(place.ravel(), weights=held).astype(np.float64)
            step = column_step(column.kind, values)
            is_ordinal = column.levels is not None
            segments = find_segments(values, counts, step, only_atoms=is_ordinal)
            scores = segments.scores(values)
            mean = float(np.average(scores, weights=counts))
            deviation = float(np.average(np.square(scores - mean), weights=counts)) ** 0.5
            found.append(np.column_stack(segments))
            moments.append((mean, deviation))
            steps.append(0.0 if is_ordinal else step)
            ranges.append((values[0], values[-1]))
        mean, deviation = np.array(moments).T
        constant = np.array([low == high for low, high in ranges])
        low, high = np.array(ranges).T
        return cls(
            location=mean,
            scale=np.where(constant, 1.0, deviation),
            segments=np.concatenate(found),
            starts=np.cumsum([0, *map(len, found)], dtype=np.intp),
            steps=np.array(steps),
            low=low,
            high=high,
            constant=np.flatnonzero(constant),
        )

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        starts = np.asarray(self.starts)
        if starts.dtype.kind != "i" or starts.shape != (n_features + 1,):
            raise ValueError("starts are no places of columns")
        if starts[0] != 0 or starts[-1] != len(self.segments) or (np.diff(starts) < 1).any():
            raise ValueError(f"starts do not divide {len(self.segments)} segments")
        if self.segments.dtype != np.float64 or self.segments.shape[1:] != (5,):
            raise ValueError("segments have not five numbers each")
        if np.isnan(self.segments).any() or not np.isfinite(self.segments[:, 2:]).all():
            raise ValueError("segments have numbers that are not finite")
        for name in ("steps", "low", "high"):
            check_floats(getattr(self, name), name, (n_features,))

    def by_column(self) -> list[Segments]:
        """Return the segments of each column."""
        bounds = zip(self.starts[:-1], self.starts[1:], strict=True)
        return [Segments(*self.segments[low:high].T) for low, high in bounds]

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map numbers to standardised scores; NaN stays."""
        x = np.asarray(X, dtype=np.float64)
        scores = np.empty(x.shape)
        for j, segments in enumerate(self.by_column()):
            scores[:, j] = segments.scores(x[:, j])
        result: NDArray[np.float32] = ((scores - self.location) / self.scale).astype(np.float32)
        return result

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map scores to numbers within the range of fit, in steps where it had any."""
        scores = standardised.astype(np.float64) * self.scale + self.location
        for j, segments in enumerate(self.by_column()):
            values = segments.values(scores[:, j])
            scores[:, j] = round_to(values.clip(self.low[j], self.high[j]), float(self.steps[j]))
        return scores


def column_step(kind: str, values: NDArray[np.float64]) -> float:
    """Return the step between values of a column."""
    if kind in ("integer", "boolean"):
        return 1.0
    if kind not in ("datetime", "timedelta"):
        return find_step(values)
    for step in (86400.0, 3600.0, 60.0, 1.0):
        if (np.remainder(values, step) == 0.0).all():
            return step
    return 0.0


class QuantileLikelihood(GaussianLikelihood):
    """``u(x) ~ N(m(z), s^2)``, u the normal score of x under the distribution of fit.

    A value that many rows share is a whole interval of scores, whose probability is ``Phi((high -
    m) / s) - Phi((low - m) / s)``, an ordered probit. Elsewhere the density of x is that of u
    times du/dx. So is the probability of a number that is one of equal steps, by its interval.

    Parameters
    ----------
    location, scale : Tensor of shape (p,)
        Mean and standard deviation of the scores.
    bounds : Tensor of shape (p, s + 1)
        Where segments begin and end, standardised; filled up by `END`.
    slopes : Tensor of shape (p, s)
        Change of x per unit of the standardised score; 0 for atoms.
    steps : Tensor of shape (p,)
        What all values are multiples of, or 0.
    """

    scaling_class: ClassVar[type[Scaling]] = QuantileScaling
    accepts_missing: ClassVar[bool] = True

    bounds: Tensor
    slopes: Tensor
    steps: Tensor
    atoms_low: Tensor
    atoms_high: Tensor

    def __init__(
        self, location: Tensor, scale: Tensor, bounds: Tensor, slopes: Tensor, steps: Tensor
    ) -> None:
        super().__init__(location, scale, torch.ones_like(location))
        self.register_buffer("bounds", bounds, persistent=False)
        self.register_buffer("slopes", slopes, persistent=False)
        self.register_buffer("steps", steps, persistent=False)
        widths = (bounds[:, 1:] - bounds[:, :-1]).where(slopes == 0.0, 0.0)
        widest = widths.topk(min(WIDEST, widths.shape[1]), dim=1).indices
        self.register_buffer("atoms_low", bounds.gather(1, widest), persistent=False)
        high = bounds.gather(1, widest + 1).where(widths.gather(1, widest) > 0.0, self.atoms_low)
        self.register_buffer("atoms_high", high, persistent=False)

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by a `QuantileScaling`, in float32."""
        assert isinstance(scaling, QuantileScaling)
        columns = scaling.by_column()
        widest = max(len(column.start) for column in columns)
        bounds = np.full((len(columns), widest + 1), END)
        slopes = np.ones((len(columns), widest))
        for j, column in enumerate(columns):
            ends = np.append(column.start, np.inf)
            standardised = (ends - scaling.location[j]) / scaling.scale[j]
            bounds[j, : len(ends)] = standardised.clip(-END, END)
            slopes[j, : len(ends) - 1] = column.slope * scaling.scale[j]
        parts = (scaling.location, scaling.scale, bounds, slopes, scaling.steps)
        return cls(*map(as_tensor, parts)).float()

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return the log-probability of each atom or step, or the log-density, (n, p), nats."""
        deviation = self.noise_variance().sqrt()
        return self.log_prob_in(x, self.segments_of(x), parameter, deviation)

    def segments_of(self, x: Tensor) -> Tensor:
        """Return the segment in which each standardised score lies, (p, n)."""
        inner = self.bounds[:, 1:-1].contiguous()
        return torch.searchsorted(inner, x.detach().T.contiguous())

    def log_prob_in(
        self, x: Tensor, segment: Tensor, parameter: Tensor, deviation: Tensor
    ) -> Tensor:
        """Return `entry_log_prob` for scores of a deviation (p,), given their segments (p, n)."""
        low = self.bounds.gather(1, segment).T
        high = self.bounds.gather(1, segment + 1).T
        slope = self.slopes.gather(1, segment).T
        is_atom = slope == 0.0
        slope = slope.where(~is_atom, 1.0)
        half = 0.5 * self.steps / slope
        low, high = low.where(is_atom, x - half), high.where(is_atom, x + half)
        # The ends of a short step are one number in single precision.
        is_point = ~is_atom & (half < SHORT)
        # What is not asked for has to be finite all the same.
        high = high.where(~is_point, low + 1.0)
        intervals = log_interval((low - parameter) / deviation, (high - parameter) / deviation)
        distance = ((x - parameter) / deviation).square()
        points = -0.5 * (distance + math.log(2.0 * math.pi)) - deviation.log()
        points = points - slope.log() + self.steps.where(self.steps > 0.0, 1.0).log()
        return points.where(is_point, intervals)

    def log_prob(self, x: Tensor, parameter: Tensor, mask: Tensor | None = None) -> Tensor:
        """Sum the entries of each row, (n,), nats."""
        entries = self.entry_log_prob(x, parameter)
        return (entries if mask is None else entries.where(mask, 0.0)).sum(dim=1)

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return the information about m, (n, p).

        ``1 / s^2``, less what atoms hide: within one, only the probability of all of it tells.
        """
        deviation = self.noise_variance().sqrt()[:, None]
        low, high = (
            (of - parameter[..., None]) / deviation for of in (self.atoms_low, self.atoms_high)
        )
        inside = torch.special.ndtr(high) - torch.special.ndtr(low)
        at_low, at_high = (normal_density(of) for of in (low, high))
        hidden = inside - (high * at_high - low * at_low)
        told = (at_low - at_high).square() / inside.clamp_min(SMALLEST)
        share = 1.0 - hidden.sum(dim=-1) + told.where(inside > SMALLEST, 0.0).sum(dim=-1)
        information: Tensor = share.clamp(LEAST_SHARE, 1.0) / self.noise_variance()
        return information

    def finish(self, evidence: Evidence) -> None:
        """Set the most likely gains, and noise, given the networks; in a stream, the noise."""
        if not evidence.is_part:
            self.calibration.copy_(identity_calibration(self.location))
        rows = evidence.decode_some(CALIBRATION_NUMBERS)
        if evidence.is_part:
            self.fit_noise(rows, evidence)
            return
        for _ in range(ROUNDS):
            self.calibration.copy_(most_likely_gains(self, self.entry_log_prob, rows, evidence))
            self.fit_noise(rows, evidence)

    def fit_noise(self, rows: list[Decoded], evidence: Evidence) -> None:
        """Set the noise variance by which rows are most likely.

        Where codes of training have less noise than their posterior, outputs have what they lack.
        """
        lacking = evidence.code_variance() if evidence.lacks_noise else None
        rows = with_code_noise(self, rows, lacking, calibrates=not evidence.is_part)
        best_factor(
            self, rows, evidence, self.noise_variance().detach().clone(), self.set_noise_variance
        )

    def learned(self, scaling: Scaling) -> dict[str, NDArray[np.float64]]:
        """Return nothing: the noise is that of scores, which have no unit."""
        return {}


def normal_density(x: Tensor) -> Tensor:
    """Return the density of N(0, 1)."""
    density: Tensor = (-0.5 * x.square()).exp() / (2.0 * math.pi) ** 0.5
    return density
