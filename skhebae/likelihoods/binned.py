"""Binned likelihood: a number falls into one of a few bins, as a softmax, and anywhere in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr
from torch import Tensor

from skhebae.data import Matrix, Scaling, Table
from skhebae.files import check_floats
from skhebae.likelihoods.base import Float32Array, Likelihood, as_tensor
from skhebae.likelihoods.categorical import CategoricalLikelihood, CategoricalScaling
from skhebae.likelihoods.normal_scores import Segments, round_to
from skhebae.likelihoods.quantile import END, QuantileLikelihood, QuantileScaling

#: Bins of a column, at most and at least, and the rows that each holds, about.
MOST_BINS, FEWEST_BINS, BIN_ROWS = 32, 4, 25

#: A value has a bin of its own if it holds as large a share of the rows as a bin, or this share and
#: so many times as many rows as the values beside it usually do.
SPIKE_SHARE, SPIKE_FACTOR, NEIGHBOURS = 0.004, 3.0, 5

#: A bin holds at least this part of its share.
SPARE = 0.05

#: Smallest count in a quotient.
TINY = 1e-300

#: Information about what the decoder does not decide; positive, as it has to be.
NO_INFORMATION = 1e-9

#: About the variance of a score within its bin, in that of the score, for residuals.
WITHIN_BINS = 0.01


@dataclass(frozen=True)
class BinnedScaling(Scaling):
    """From numbers (n, p) to their normal scores and the indicators of their bins, and back.

    The scores of all columns come first. Scores and indicators of a column have half of its
    variance each, which is 1.

    Attributes
    ----------
    scores : QuantileScaling
    bins : CategoricalScaling
    edges : ndarray of float64
        Scores at which the bins of each column end, but for the last one, column after column.
    means : ndarray of float64
        Mean of the rows of `fit` in each bin, column after column.
    """

    scores: QuantileScaling
    bins: CategoricalScaling
    edges: NDArray[np.float64]
    means: NDArray[np.float64]
    may_miss: ClassVar[bool] = True

    @property
    def location(self) -> NDArray[np.float64]:  # type: ignore[override]
        """Centre of each feature."""
        return np.concatenate([self.scores.location, self.bins.location])

    @property
    def scale(self) -> NDArray[np.float64]:  # type: ignore[override]
        """Unit of each feature."""
        scale: NDArray[np.float64] = np.concatenate([self.scores.scale, self.bins.scale])
        shared: NDArray[np.float64] = scale * 2.0**0.5
        return shared

    @property
    def constant(self) -> NDArray[np.intp]:  # type: ignore[override]
        """Features that did not vary."""
        later = self.bins.constant + len(self.scores.location)
        return np.concatenate([self.scores.constant, later]).astype(np.intp)

    @classmethod
    def measure(cls, table: Table) -> Self:
        """Measure the distribution of each column in the tables of all processes."""
        scores = QuantileScaling.measure(table)
        n_rows = table.total_rows
        found = [find_edges(column, n_rows) for column in scores.by_column()]
        codes = bin_codes(np.asarray(table.X, dtype=np.float64), scores, found)
        n_levels = [len(own) + 1 for own in found]
        bins = CategoricalScaling.of_codes(codes, n_levels, table.group, table.weight)
        return cls(scores, bins, np.concatenate(found), bin_averages(table, codes, n_levels))

    def by_column(self) -> list[NDArray[np.float64]]:
        """Return the edges of each column."""
        n_bins = np.diff(self.bins.starts)
        return np.split(self.edges, np.cumsum(n_bins - 1)[:-1])

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        self.scores.check(len(self.scores.location))
        self.bins.check(len(self.bins.location))
        edges = np.asarray(self.edges)
        if len(self.bins.starts) != len(self.scores.location) + 1 or edges.dtype != np.float64:
            raise ValueError("bins are not those of the columns")
        if edges.shape != (len(self.bins.location) - len(self.scores.location),):
            raise ValueError("edges do not divide the bins")
        check_floats(self.means, "means", (len(self.bins.location),))
        if any((np.diff(own) <= 0.0).any() or np.isnan(own).any() for own in self.by_column()):
            raise ValueError("edges do not increase")

    def pack(self) -> dict[str, Any]:
        """Return the fields, as JSON values and arrays."""
        parts = {"scores": self.scores.pack(), "bins": self.bins.pack()}
        return {**parts, "edges": self.edges, "means": self.means}

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> Self:
        """Invert `pack`."""
        return cls(
            QuantileScaling.unpack(packed["scores"]),
            CategoricalScaling.unpack(packed["bins"]),
            packed["edges"],
            packed["means"],
        )

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map numbers to standardised scores and indicators; NaN where the number is missing."""
        X = np.asarray(X, dtype=np.float64)
        codes = bin_codes(X, self.scores, self.by_column())
        parts = [self.scores.standardise(X), self.bins.standardise(codes)]
        result: NDArray[np.float32] = np.concatenate(parts, axis=1) / np.float32(np.sqrt(2.0))
        return result

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map scores to numbers within the range of fit, in steps where it had any."""
        p = len(self.scores.location)
        return self.scores.restore(standardised[:, :p] * np.float32(np.sqrt(2.0)))

    def restore_means(self, standardised: NDArray[np.float32]) -> NDArray[np.float64]:
        """Map mean indicators, the probabilities of bins, to mean numbers, in steps if any."""
        p, scores = len(self.scores.location), self.scores
        wide = standardised[:, p:].astype(np.float64) * 2.0**0.5
        probability = wide * self.bins.scale + self.bins.location
        # Of a column, they add up to 1 but for rounding.
        of_columns = np.add.reduceat(probability * self.means, self.bins.starts[:-1], axis=1)
        total = np.add.reduceat(probability, self.bins.starts[:-1], axis=1)
        means: NDArray[np.float64] = (of_columns / total).clip(scores.low, scores.high)
        for j, step in enumerate(scores.steps):
            means[:, j] = round_to(means[:, j], float(step))
        return means


def bin_averages(
    table: Table, codes: NDArray[np.float64], n_levels: Sequence[int]
) -> NDArray[np.float64]:
    """Return the mean of the rows of all processes in each bin, column after column."""
    parts = []
    for j, n_codes in enumerate(n_levels):
        seen = ~np.isnan(codes[:, j])
        own, weight = codes[seen, j].astype(np.intp), table.row_weights[seen]
        values = np.asarray(table.X, dtype=np.float64)[seen, j]
        sums = [np.bincount(own, weights=of, minlength=n_codes) for of in (weight, weight * values)]
        counts, totals = np.sum(table.group.gather(np.stack(sums)), axis=0)
        parts.append(totals / np.maximum(counts, TINY))
    return np.concatenate(parts)


def find_edges(segments: Segments, n_rows: int) -> NDArray[np.float64]:
    """Return the scores at which the bins of a column end, but for the last one.

    They are ends of segments.
    """
    mass = ndtr(segments.end) - ndtr(segments.start)
    is_atom = segments.slope == 0.0
    share = 1.0 / min(MOST_BINS, max(FEWEST_BINS, n_rows // BIN_ROWS))
    usual = np.array(
        [
            np.median(
                np.concatenate(
                    [mass[max(0, k - NEIGHBOURS) : k], mass[k + 1 : k + 1 + NEIGHBOURS], mass[:0]]
                )
            )
            if len(mass) > 1
            else 0.0
            for k in range(len(mass))
        ]
    )
    spikes = (mass >= SPIKE_SHARE) & (mass >= SPIKE_FACTOR * usual)
    alone = is_atom & ((mass >= share) | spikes)
    edges, collected = [], 0.0
    for k in range(len(mass) - 1):
        collected += mass[k]
        is_full = alone[k] or alone[k + 1] or collected + mass[k + 1] > share
        # What next to no row has joins the bin beside it.
        if is_full and (collected > SPARE * share or alone[k]):
            edges.append(segments.end[k])
            collected = 0.0
    if edges and 1.0 - ndtr(edges[-1]) < SPARE * share and not alone[-1]:
        edges.pop()
    return np.array(edges)


def bin_codes(
    X: NDArray[np.float64], scores: QuantileScaling, edges: list[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return the bin of each number, NaN where it is missing, (n, p)."""
    codes = np.empty(X.shape)
    for j, (segments, own) in enumerate(zip(scores.by_column(), edges, strict=True)):
        u = segments.scores(X[:, j])
        codes[:, j] = np.where(np.isnan(u), np.nan, np.searchsorted(own, u))
    return codes


class BinnedLikelihood(Likelihood):
    """``p(x | z) = softmax(l(z))_k p_k(x)``, k the bin of x, and p_k its distribution there in fit.

    The softmax tilts the distribution of a column: given z, a number may have several modes.

    Parameters
    ----------
    location, scale : Tensor of shape (p + q,)
        Of p scores and q indicators.
    scores : QuantileLikelihood
        Of the scores, without what networks decide.
    bins : CategoricalLikelihood
    log_mass : Tensor of shape (p, s)
        Logarithm of the share of the bin that each segment is in.
    ends : Tensor of shape (q, 2)
        Share of the rows below each bin, and of those up to its end.
    """

    scaling_class: ClassVar[type[Scaling]] = BinnedScaling
    accepts_missing: ClassVar[bool] = True
    starts_linear: ClassVar[bool] = True

    log_mass: Tensor
    ends: Tensor

    def __init__(
        self,
        location: Tensor,
        scale: Tensor,
        scores: QuantileLikelihood,
        bins: CategoricalLikelihood,
        log_mass: Tensor,
        ends: Tensor,
    ) -> None:
        super().__init__(location, scale)
        self.scores, self.bins = scores, bins
        # It has no use here, and the optimiser is not to see it.
        self.scores.log_noise.requires_grad_(False)
        self.n_columns = len(scores.location)
        self.register_buffer("log_mass", log_mass, persistent=False)
        self.register_buffer("ends", ends, persistent=False)
        middle = bin_means(ends)
        self.register_buffer("middle", middle, persistent=False)

    middle: Tensor

    @classmethod
    def from_scaling(cls, scaling: Scaling) -> Self:
        """Make the likelihood of rows standardised by a `BinnedScaling`, in float32."""
        assert isinstance(scaling, BinnedScaling)
        scores = QuantileLikelihood.from_scaling(scaling.scores)
        bins = CategoricalLikelihood.from_scaling(scaling.bins)
        log_mass = np.zeros(scores.slopes.shape)
        ends = []
        for j, (segments, own) in enumerate(
            zip(scaling.scores.by_column(), scaling.by_column(), strict=True)
        ):
            below = np.concatenate([[0.0], ndtr(own), [1.0]])
            place = np.searchsorted(own, segments.start, side="right")
            log_mass[j, : len(place)] = np.log(np.diff(below))[place]
            ends.append(np.column_stack([below[:-1], below[1:]]))
        parts = map(as_tensor, (scaling.location, scaling.scale))
        tables = map(as_tensor, (log_mass, np.concatenate(ends)))
        location, scale = parts
        return cls(location, scale, scores, bins, *tables).float()

    def _split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return what belongs to scores and to indicators."""
        return values[..., : self.n_columns], values[..., self.n_columns :]

    def parameter(self, output: Tensor, log_size: Tensor | None) -> Tensor:
        """Return zeros for the scores, and log-probabilities of bins, (n, p + q)."""
        scores, bins = self._split(output)
        return torch.cat([torch.zeros_like(scores), self.bins.parameter(bins, log_size)], dim=-1)

    def entry_log_prob(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return log-densities within bins, and log-probabilities of these, (n, p + q), nats."""
        (scores, indicators), (_, log_probability) = self._split(x), self._split(parameter)
        scores, indicators = scores * 2.0**0.5, indicators * 2.0**0.5
        usual = self.scores
        segment = usual.segments_of(scores)
        centre = (-usual.location / usual.scale).expand_as(scores)
        within = usual.log_prob_in(scores, segment, centre, 1.0 / usual.scale)
        within = within - self.log_mass.gather(1, segment).T
        return torch.cat([within, self.bins.entry_log_prob(indicators, log_probability)], dim=-1)

    def mean(self, parameter: Tensor) -> Tensor:
        """Return mean scores, and probabilities of bins, standardised, (n, p + q)."""
        bins = self._split(parameter)[1]
        probability = self.bins.fisher_information(bins)
        scores = (probability * self.middle) @ self.bins.members
        standardised = (scores - self.scores.location) / self.scores.scale
        means: Tensor = torch.cat([standardised, self.bins.mean(bins)], dim=-1) / 2.0**0.5
        return means

    def average(self, parameters: Tensor) -> Tensor:
        """Return the logarithms of average probabilities, (n, p + q)."""
        scores, bins = self._split(parameters)
        return torch.cat([scores.mean(dim=0), self.bins.average(bins)], dim=-1)

    def sample(self, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw a bin, and a score within it, (n, p + q)."""
        bins = self._split(parameter)[1]
        drawn = self.bins.sample(bins, generator)
        indicators = (drawn * self.bins.scale + self.bins.location).round()
        low, high = ((indicators * of) @ self.bins.members for of in self.ends.unbind(dim=1))
        uniform = torch.rand(low.shape, generator=generator, dtype=low.dtype, device=low.device)
        share = (low + (high - low) * uniform).double().clamp(1e-9, 1.0 - 1e-9)
        scores = torch.special.ndtri(share).to(low.dtype)
        standardised = (scores - self.scores.location) / self.scores.scale
        rows: Tensor = torch.cat([standardised, drawn], dim=-1) / 2.0**0.5
        return rows

    def fisher_information(self, parameter: Tensor) -> Tensor:
        """Return next to nothing for scores, and the probabilities of bins, (n, p + q)."""
        scores, bins = self._split(parameter)
        nothing = torch.full_like(scores, NO_INFORMATION)
        return torch.cat([nothing, self.bins.fisher_information(bins)], dim=-1)

    def variance(self, parameter: Tensor) -> Tensor:
        """Return the variance of scores between bins, and that of indicators, (n, p + q)."""
        bins = self._split(parameter)[1]
        probability = bins.exp()
        mean = (probability * self.middle) @ self.bins.members
        gap = self.middle - mean @ self.bins.members.T
        between = (probability * gap.square()) @ self.bins.members / self.scores.scale.square()
        return torch.cat([between, self.bins.variance(bins)], dim=-1) / 2.0

    def pearson_residual(self, x: Tensor, parameter: Tensor) -> Tensor:
        """Return residuals of scores, and those of indicators of bins, (n, p + q).

        Scores tell a number that is far out from others of its bin.
        """
        (_, indicators), (_, bins) = self._split(x), self._split(parameter)
        gap = self._split(x - self.mean(parameter))[0]
        between = self._split(self.variance(parameter))[0]
        of_bins = self.bins.pearson_residual(indicators * 2.0**0.5, bins)
        return torch.cat([gap / (between + WITHIN_BINS).sqrt(), of_bins], dim=-1)

    def initial_bias(self) -> Tensor:
        """Return 0 for scores, and the logarithms of the shares of bins, (p + q,)."""
        return torch.cat([torch.zeros_like(self.scores.location), self.bins.initial_bias()])

    def linear_loadings(self, loadings: Tensor) -> Tensor:
        """Return no loadings for scores, and those of the bins, (p + q, d)."""
        p = self.n_columns
        own = self.bins.linear_loadings(2.0**0.5 * loadings[p:])
        return torch.cat([torch.zeros_like(loadings[:p]), own])

    def original_rows(self, rows: Float32Array, scaling: Scaling, *, drawn: bool) -> Any:
        """Map drawn scores, or the mean probabilities of bins, to numbers."""
        assert isinstance(scaling, BinnedScaling)
        return scaling.restore(rows) if drawn else scaling.restore_means(rows)


def bin_means(ends: Tensor) -> Tensor:
    """Return the mean of N(0, 1) within bins between shares (q, 2), (q,)."""
    wide = ends.double()
    at = torch.special.ndtri(wide).clamp(-END, END)
    density = (-0.5 * at.square()).exp() / (2.0 * torch.pi) ** 0.5
    mean: Tensor = (density[:, 0] - density[:, 1]) / (wide[:, 1] - wide[:, 0]).clamp_min(1e-12)
    return mean.to(ends.dtype)
