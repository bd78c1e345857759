"""Standardisation of counts: rows stay as they are, and the likelihood normalises them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import normalize

from skhebae.data import FeatureScaling, Matrix, Scaling, Table, first_variation, row_totals
from skhebae.likelihoods.distinct_values import DistinctValues

#: Counts of a feature that was never seen, so that its share has a logarithm.
UNSEEN_COUNTS = 0.1


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
    constant : ndarray of int
        Features that have not varied so far, most of them without a count.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    proportions: NDArray[np.float64]
    typical_size: NDArray[np.float64]
    log_size_deviation: NDArray[np.float64]
    size_unit: NDArray[np.float64]
    # Files of version 0.1 do not say.
    constant: NDArray[np.intp] = field(default_factory=lambda: np.empty(0, dtype=np.intp))

    @classmethod
    def measure(cls, table: Table) -> CountScaling:
        """Measure a validated table of counts; its size factors may be in any unit.

        Raises
        ------
        ValueError
            If there are no counts at all.
        """
        totals = table.row_totals
        positive = DistinctValues.gather(totals[totals > 0], table.group)
        if positive.total() == 0:
            raise ValueError("X has no counts at all: every entry is 0.")
        typical = positive.median()
        normalised = FeatureScaling.measure(table, partial(log_normalised, total=typical))
        counts = table.column_totals + UNSEEN_COUNTS
        unit = 1.0
        if table.size_factor is not None:
            unit = typical / DistinctValues.gather(table.size_factor, table.group).median()
        return cls(
            normalised.location,
            normalised.scale,
            counts / counts.sum(),
            np.asarray(typical),
            np.asarray(positive.log_deviation()),
            np.asarray(unit),
            normalised.constant,
        )

    def take_in(self, table: Table, n_rows: int) -> tuple[Self, NDArray[np.intp]]:
        """Measure the features that vary for the first time, over all rows so far."""
        transform = partial(log_normalised, total=float(self.typical_size))
        features, measured = first_variation(self, table, n_rows, transform)
        if len(features) == 0:
            return self, features
        counts = table.column_totals
        shares = self.proportions.copy()
        all_counts = n_rows * self.typical_size + counts.sum()
        shares[features] = (counts[features] + UNSEEN_COUNTS) / all_counts
        scaling = self.with_features(features, measured, ("location", "scale"))
        return replace(scaling, proportions=shares / shares.sum()), features

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
        totals: Callable[[], NDArray[np.float64]] | None,
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
            sizes = np.maximum(totals(), 1.0)
        result: NDArray[np.float64] = np.log(sizes)
        return result

    def size_factors(self, totals: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64]:
        """Return size factors that decode rows at their own totals, (n_rows,)."""
        result: NDArray[np.float64] = np.maximum(totals(), 1.0) / self.size_unit
        return result

    def draw_size_factors(self, n_rows: int, rng: np.random.RandomState) -> NDArray[np.float64]:
        """Draw log-normal size factors with the spread of the totals of `fit`, (n_rows,)."""
        spread = self.log_size_deviation * rng.standard_normal(n_rows)
        result: NDArray[np.float64] = self.typical_size * np.exp(spread) / self.size_unit
        return result

    def usual_values(
        self, rows: NDArray[np.floating[Any]], found: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return counts whose log-normalised value at each row's depth is the mean of `fit`.

        They need not be integers.
        """
        depth = row_totals(rows) / self.proportions[found].sum()
        result: NDArray[np.float64] = depth[:, None] * (np.expm1(self.location) / self.typical_size)
        return result
