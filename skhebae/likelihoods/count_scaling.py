"""Standardisation of counts: rows stay as they are, and the likelihood normalises them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple, dataclass, field, replace
from functools import reduce
from itertools import pairwise
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.special import logit
from sklearn.preprocessing import normalize
from sklearn.utils import gen_batches

from skhebae.data import (
    FeatureScaling,
    Matrix,
    Scaling,
    Table,
    first_variation,
    has_missing,
    observed_part,
    row_totals,
)
from skhebae.distributed import Group
from skhebae.files import check_floats
from skhebae.likelihoods.distinct_values import DistinctValues

#: Counts of a feature that was never seen, so that its share has a logarithm.
UNSEEN_COUNTS = 0.1

#: Smallest ``1 / theta`` at which training starts; next to it, counts up to a million are Poisson.
SMALLEST_DISPERSION = 1e-8

#: Shares of extra zeros among which a start is chosen.
ZERO_SHARES = np.linspace(0.01, 0.95, 48)

#: Rows per chunk of a pass over a table with missing entries, which is made dense.
CHUNK_ROWS = 1024

#: Quantiles that describe a distribution of exposures: every fortieth part.
SIZE_QUANTILES = 41


def log_normalised(counts: Matrix, total: float) -> Matrix:
    """Return ``log(1 + x total / sum x)`` of rows of counts, dense or sparse as they are."""
    proportions: Matrix = normalize(counts, norm="l1")
    return (
        (proportions * total).log1p() if sparse.issparse(counts) else np.log1p(proportions * total)
    )


@dataclass(frozen=True)
class CountScaling(Scaling):
    """Unscaled rows, with the moments that the likelihood needs to normalise them.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,), float64
        Centre and unit of the log-normalised rows, as `FeatureScaling` measures them.
    proportions : ndarray of shape (n_features,), float64
        Share of each feature in all counts, positive.
    typical_size : ndarray of shape (), float64
        Median total of a row.
    log_size_deviation : ndarray of shape (), float64
        Standard deviation of the logarithm of the totals.
    size_unit : ndarray of shape (), float64
        Counts per unit of the size factors that `fit` was given, else 1.
    dispersion : ndarray of shape (n_features,), float64, optional
        ``1 / theta`` of each feature by its second moment, positive. Files of version 0.1 lack
        this and what follows.
    zero_share : ndarray of shape (n_features,), float64, optional
        Share of the rows in which a feature is zero.
    log_size_quantiles : ndarray of shape (1 + n_batches, n_quantiles), float64, optional
        Evenly spaced quantiles, from the smallest to the largest, of the logarithms of the
        exposures of all rows, and of those of each experimental batch.
    constant : ndarray of int
        Features that have not varied so far, most of them without a count.
    """

    may_miss: ClassVar[bool] = True

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    proportions: NDArray[np.float64]
    typical_size: NDArray[np.float64]
    log_size_deviation: NDArray[np.float64]
    size_unit: NDArray[np.float64]
    dispersion: NDArray[np.float64] | None = None
    zero_share: NDArray[np.float64] | None = None
    log_size_quantiles: NDArray[np.float64] | None = None
    # Files of version 0.1 do not say.
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    @classmethod
    def measure(cls, table: Table) -> CountScaling:
        """Measure a validated table of counts; its size factors may be in any unit.

        Its `batch` holds the index of each row's experimental batch.

        Raises
        ------
        ValueError
            If there are no counts at all.
        """
        group = table.group
        shares = usual_shares(table) if table.has_missing else None
        totals = table.totals_at(shares)
        weight = table.weight
        some = totals > 0
        if weight is not None:
            some &= weight > 0
        positive = DistinctValues.gather(
            totals[some], group, None if weight is None else weight[some]
        )
        if positive.total() == 0:
            raise ValueError("X has no counts at all: every entry is 0.")
        typical, unit, sizes = positive.median(), 1.0, totals
        if table.size_factor is not None:
            # Means then add up to the counts. Medians, of skewed totals, would not do that.
            pair = (totals, table.size_factor)
            own = [float(of.sum() if weight is None else weight @ of) for of in pair]
            parts = group.gather(own)
            unit = sum(own for own, _ in parts) / sum(own for _, own in parts)
            sizes = table.size_factor * unit
        second = SecondMoments(typical, sizes, weight, None if shares is None else totals)
        normalised = FeatureScaling.measure(table, second)
        if shares is None:
            counts = table.column_totals + UNSEEN_COUNTS
        else:
            counts = shares * table.weighted_sum(totals) + UNSEEN_COUNTS
        proportions = counts / counts.sum()
        sums = second.over_all(group)
        return cls(
            normalised.location,
            normalised.scale,
            proportions,
            np.asarray(typical),
            np.asarray(positive.log_deviation()),
            np.asarray(unit),
            dispersion=sums.dispersion(proportions),
            zero_share=sums.zeros / sums.n_rows,
            log_size_quantiles=log_size_quantiles(sizes, table.batch, group, weight),
            constant=normalised.constant,
        )

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        check_floats(self.proportions, "proportions", (n_features,), above=0.0)
        check_floats(self.typical_size, "typical_size", (), above=0.0)
        check_floats(self.log_size_deviation, "log_size_deviation", ())
        check_floats(self.size_unit, "size_unit", (), above=0.0)
        if self.dispersion is not None:
            check_floats(self.dispersion, "dispersion", (n_features,), above=0.0)
        if self.zero_share is not None:
            check_floats(self.zero_share, "zero_share", (n_features,))
        if self.log_size_quantiles is not None:
            shape = (len(self.log_size_quantiles), SIZE_QUANTILES)
            check_floats(self.log_size_quantiles, "log_size_quantiles", shape)

    def take_in(self, table: Table, n_rows: float) -> tuple[Self, NDArray[np.intp]]:
        """Measure the features that vary for the first time, over all rows so far."""
        sizes = totals = table.totals_at(self.proportions)
        if table.size_factor is not None:
            sizes = table.size_factor * self.size_unit
        second = SecondMoments(
            float(self.typical_size),
            sizes,
            table.weight,
            totals if table.has_missing else None,
        )
        features, measured = first_variation(self, table, n_rows, second)
        if len(features) == 0:
            return self, features
        sums = second.over_all(table.group).with_zeros(features, n_rows, float(self.typical_size))
        shares = self.proportions.copy()
        all_counts = n_rows * self.typical_size + table.weighted_sum(totals)
        shares[features] = (sums.counts + UNSEEN_COUNTS) / all_counts
        parts = {"proportions": shares / shares.sum()}
        if self.dispersion is not None and self.zero_share is not None:
            own = {"dispersion": sums.dispersion(shares[features])}
            own["zero_share"] = sums.zeros / sums.n_rows
            for name, values in own.items():
                parts[name] = getattr(self, name).copy()
                parts[name][features] = values
        scaling = self.with_features(features, measured, ("location", "scale"))
        return replace(scaling, **parts), features

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Return rows as dense float32; always a new array."""
        dense: NDArray[Any] = X.toarray() if hasattr(X, "toarray") else np.array(X)
        return dense.astype(np.float32, copy=False)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows as they are."""
        return standardised

    def log_size(
        self,
        n_rows: int,
        totals: Callable[..., NDArray[np.float64]] | None,
        size_factor: NDArray[np.float64] | None,
    ) -> NDArray[np.float64]:
        """Return the logarithm of each row's exposure, (n_rows,).

        The exposure is the row's size factor, else its total, else the typical size.
        """
        sizes = np.full(n_rows, self.typical_size)
        if size_factor is not None:
            sizes = size_factor * self.size_unit
        elif totals is not None:
            # A row of zeros says nothing, at any exposure.
            sizes = np.maximum(totals(self.proportions), 1.0)
        result: NDArray[np.float64] = np.log(sizes)
        return result

    def size_factors(self, totals: Callable[..., NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return size factors that decode rows at their own totals, (n_rows,)."""
        result: NDArray[np.float64] = np.maximum(totals(self.proportions), 1.0) / self.size_unit
        return result

    def draw_size_factors(
        self, n_rows: int, rng: np.random.RandomState, batch: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64]:
        """Draw size factors from the distribution of the exposures of `fit`, (n_rows,).

        For a row of an experimental batch, from that of the batch. The distribution is that
        between neighbouring quantiles on a logarithmic scale; models of version 0.1 have none,
        and get log-normal ones of all rows.
        """
        if self.log_size_quantiles is None:
            spread = self.log_size_deviation * rng.standard_normal(n_rows)
            log_size = np.log(self.typical_size) + spread
        else:
            place = rng.random_sample(n_rows) * (self.log_size_quantiles.shape[1] - 1)
            own = self.log_size_quantiles[0 if batch is None else 1 + batch]
            own = np.broadcast_to(own, (n_rows, own.shape[-1]))
            below = place.astype(np.intp)
            rows = np.arange(n_rows)
            low, high = own[rows, below], own[rows, below + 1]
            log_size = low + (place - below) * (high - low)
        result: NDArray[np.float64] = np.exp(log_size) / self.size_unit
        return result

    def zero_inflated_moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return log theta and the logit of extra zeros by second moments and zeros, (p,) each.

        With a share pi of extra zeros, ``1 + dispersion = (1 + 1 / theta) / (1 - pi)``. Of the
        shares on a grid, the one under which zeros at the typical size are as frequent as those
        of the table. Where there are no surplus zeros it is the smallest, and theta that of
        `dispersion`.
        """
        assert self.dispersion is not None
        assert self.zero_share is not None
        shares = ZERO_SHARES[:, None]
        dispersion = np.maximum((1.0 + self.dispersion) * (1.0 - shares) - 1.0, SMALLEST_DISPERSION)
        mean = self.proportions * self.typical_size / (1.0 - shares)
        zeros = shares + (1.0 - shares) * np.exp(-np.log1p(dispersion * mean) / dispersion)
        best = np.abs(zeros - self.zero_share).argmin(axis=0)
        columns = np.arange(len(best))
        return -np.log(dispersion[best, columns]), logit(ZERO_SHARES[best])


class SecondMoments:
    """Log-normalises chunks of counts in order, and adds up their second moments as they pass.

    A table outside memory is read once for both.

    Parameters
    ----------
    total : float
        What rows are normalised to.
    sizes : ndarray of shape (n_rows,)
        Exposures of all rows of this process.
    weight : ndarray of shape (n_rows,), optional
        How many rows each row stands for.
    totals : ndarray of shape (n_rows,), optional
        Totals of rows some of whose entries are missing.
    """

    def __init__(
        self,
        total: float,
        sizes: NDArray[np.float64],
        weight: NDArray[np.float64] | None = None,
        totals: NDArray[np.float64] | None = None,
    ) -> None:
        self._total, self._sizes, self._weight, self._done = total, sizes, weight, 0
        self._totals = totals
        self._sums: CountSums | None = None

    def __call__(self, counts: Matrix) -> Matrix:
        """Return `log_normalised` counts."""
        rows = slice(self._done, self._done + counts.shape[0])
        self._done += counts.shape[0]
        weight = None if self._weight is None else self._weight[rows]
        own = CountSums.of(counts, self._sizes[rows], weight)
        self._sums = own if self._sums is None else self._sums + own
        if self._totals is None or not has_missing(counts):
            return log_normalised(counts, self._total)
        factor = (self._total / np.maximum(self._totals[rows], 1.0))[:, None]
        if sparse.issparse(counts):
            return counts.multiply(factor).tocsr().log1p()
        return np.log1p(counts * factor)

    def over_all(self, group: Group) -> CountSums:
        """Return the sums over the rows of all processes."""
        return reduce(CountSums.__add__, [own for own in group.gather(self._sums) if own])


@dataclass(frozen=True)
class CountSums:
    """Sums over rows, as often as each counts, that give the dispersions of features.

    Attributes
    ----------
    n_rows : float or ndarray of shape (n_features,)
        Rows in which each feature is observed.
    counts, squares, by_size, zeros : ndarray of shape (n_features,)
        Sums of counts, of their squares, of counts times exposures, and of zeros.
    square_sizes : float or ndarray of shape (n_features,)
        Sum of their squared exposures.
    """

    n_rows: float | NDArray[np.float64]
    counts: NDArray[np.float64]
    squares: NDArray[np.float64]
    by_size: NDArray[np.float64]
    zeros: NDArray[np.float64]
    square_sizes: float | NDArray[np.float64]

    @classmethod
    def of(
        cls,
        counts: Matrix,
        sizes: NDArray[np.float64],
        weight: NDArray[np.float64] | None = None,
    ) -> CountSums:
        """Add up the rows of an ndarray or CSR matrix."""
        if has_missing(counts):
            return cls._of_observed(counts, sizes, weight)
        if weight is not None:
            return cls._of_weighted(counts, sizes, weight)
        wide = counts.astype(np.float64)
        squares = wide.multiply(wide) if sparse.issparse(wide) else np.square(wide)
        present = np.asarray((counts != 0).sum(axis=0), dtype=np.float64).ravel()
        return cls(
            counts.shape[0],
            np.asarray(wide.sum(axis=0)).ravel(),
            np.asarray(squares.sum(axis=0)).ravel(),
            np.asarray(wide.T @ sizes).ravel(),
            counts.shape[0] - present,
            float(sizes @ sizes),
        )

    @classmethod
    def _of_weighted(
        cls, counts: Matrix, sizes: NDArray[np.float64], weight: NDArray[np.float64]
    ) -> CountSums:
        """Add up rows with weights."""
        wide = counts.astype(np.float64)
        squares = wide.multiply(wide) if sparse.issparse(wide) else np.square(wide)
        total = float(weight.sum())
        return cls(
            total,
            weight @ wide,
            weight @ squares,
            (weight * sizes) @ wide,
            total - weight @ (counts != 0).astype(np.float64),
            float(weight @ np.square(sizes)),
        )

    @classmethod
    def _of_observed(
        cls, counts: Matrix, sizes: NDArray[np.float64], weight: NDArray[np.float64] | None
    ) -> CountSums:
        """Add up rows with missing entries, which do not count."""
        weight = np.ones(len(sizes)) if weight is None else weight
        known, seen = observed_part(counts)
        return cls(
            weight @ seen,
            weight @ known,
            weight @ np.square(known),
            (weight * sizes) @ known,
            weight @ (seen * (known == 0.0)),
            (weight * np.square(sizes)) @ seen,
        )

    def with_zeros(
        self, features: NDArray[np.intp], n_rows: float, typical_size: float
    ) -> CountSums:
        """Return the sums of some features over further rows, of typical exposure, without them."""
        own_rows, own_sizes = (
            of[features] if isinstance(of, np.ndarray) else of
            for of in (self.n_rows, self.square_sizes)
        )
        return CountSums(
            own_rows + n_rows,
            self.counts[features],
            self.squares[features],
            self.by_size[features],
            self.zeros[features] + n_rows,
            own_sizes + n_rows * typical_size**2,
        )

    def __add__(self, other: CountSums) -> CountSums:
        return CountSums(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def dispersion(self, proportions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return ``1 / theta`` of each feature whose mean is its proportion of the exposure, (p,).

        ``sum_i ((x_i - m_i)^2 - x_i) / sum_i m_i^2``, shrunk towards that of all features
        together the more, the larger its standard error ``(sum_i m_i^2 / 2)^-1/2``.
        """
        means = np.square(proportions) * self.square_sizes
        excess = self.squares - 2.0 * proportions * self.by_size + means - self.counts
        common = max(excess.sum() / means.sum(), (2.0 / means.sum()) ** 0.5)
        own, prior = 0.5 * means, common**-2
        result: NDArray[np.float64] = (0.5 * excess + prior * common) / (own + prior)
        return np.maximum(result, SMALLEST_DISPERSION)


def usual_shares(table: Table) -> NDArray[np.float64]:
    """Return the share of each feature in the counts of rows with missing entries, (n_features,).

    Each feature's counts over the depths of the rows in which it is observed. The depths follow
    from shares in turn, hence two passes.
    """
    weight = np.ones(len(table)) if table.weight is None else table.weight
    shares = np.full(table.n_features, 1.0 / table.n_features)
    depths = np.ones(len(table))
    for _ in range(2):
        sums = np.zeros((2, table.n_features))
        for rows in gen_batches(len(table), CHUNK_ROWS):
            known, seen = observed_part(table.X[rows])
            sums += np.stack([weight[rows] @ known, (weight[rows] * depths[rows]) @ seen])
        counts, exposure = np.sum(table.group.gather(sums), axis=0)
        shares = counts / np.maximum(exposure, SMALLEST_DISPERSION)
        shares = shares / max(shares.sum(), SMALLEST_DISPERSION)
        depths = row_totals(table.X, shares)
    result: NDArray[np.float64] = shares
    return result


def log_size_quantiles(
    sizes: NDArray[np.float64],
    batch: NDArray[np.intp] | None,
    group: Group,
    weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return quantiles of the logarithms of exposures: of all rows, and of each batch.

    A batch without a positive exposure gets those of all rows.
    """
    kept = sizes > 0 if weight is None else (sizes > 0) & (weight > 0)
    last = -1 if batch is None else int(batch.max(initial=-1))
    labels, own_weight = (None if of is None else of[kept] for of in (batch, weight))
    parts = group.gather((sizes[kept], labels, last, own_weight))
    every = np.log(np.concatenate([own for own, *_ in parts]))
    counts = None if weight is None else np.concatenate([own for *_, own in parts])
    places = np.linspace(0.0, 1.0, SIZE_QUANTILES)
    rows = [quantiles(every, places, counts)]
    n_batches = 1 + max(last for _, _, last, _ in parts)
    if n_batches:
        index = np.concatenate([own for _, own, _, _ in parts])
        order = np.argsort(index, kind="stable")
        ends = np.searchsorted(index[order], np.arange(n_batches + 1))
        for start, stop in pairwise(ends):
            some = order[start:stop]
            own_counts = None if counts is None else counts[some]
            rows.append(quantiles(every[some], places, own_counts) if len(some) else rows[0])
    return np.stack(rows)


def quantiles(
    values: NDArray[np.float64],
    places: NDArray[np.float64],
    counts: NDArray[np.float64] | None = None,
) -> NDArray[np.float64]:
    """Return quantiles of values that occur as often as `counts` says, by default once."""
    if counts is None:
        result: NDArray[np.float64] = np.quantile(values, places)
        return result
    order = np.argsort(values, kind="stable")
    ends = np.cumsum(counts[order])
    # As numpy interpolates between neighbours of the repeated values.
    at = places * max(ends[-1] - 1.0, 0.0)
    below = np.floor(at)
    low, high = (
        np.asarray(values[order][np.searchsorted(ends, of, side="right").clip(max=len(ends) - 1)])
        for of in (below, np.ceil(at))
    )
    between: NDArray[np.float64] = (at - below) * (high - low)
    return low + between
