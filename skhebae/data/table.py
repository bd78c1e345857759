"""A validated table on its way into a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skhebae.data.columns import Columns
from skhebae.data.values import has_missing
from skhebae.distributed import SINGLE, Group
from skhebae.process import cached_property

#: Rows per chunk of a pass over the table.
CHUNK_ROWS = 4096

#: Smallest share of the features that a row may have values in.
TINY = 1e-12

Matrix = Any  # numpy.ndarray, scipy CSR or StoredTable; scipy's stubs have no common type


@dataclass(frozen=True, eq=False)
class Checked:
    """A matrix in memory whose values are known to suit some likelihoods.

    Estimators take it in place of the matrix, and do not check the values again.

    Attributes
    ----------
    X : ndarray or CSR of shape (n_samples, n_features)
    likelihoods : frozenset of str
    """

    X: Matrix
    likelihoods: frozenset[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return tuple(self.X.shape)


@dataclass(frozen=True, eq=False)
class Table:
    """The rows of one process, and the group that holds the others.

    Attributes
    ----------
    X : ndarray, CSR or StoredTable of shape (n_samples, n_features)
        Validated rows.
    batch : ndarray of shape (n_samples,), optional
        Validated labels of experimental batches; where a `Scaling` measures the table, their
        indices.
    size_factor : ndarray of shape (n_samples,), optional
        Validated size factors.
    weight : ndarray of shape (n_samples,), optional
        How many rows each row stands for, validated. None, in all processes, where each stands
        for itself. Rows of weight 0 are as good as absent; only a table outside memory has any.
    group : Group
    columns : Columns, optional
        Columns of a mixed frame, which `X` holds as numbers, NaN where they are missing.
    """

    X: Matrix
    batch: NDArray[Any] | None = None
    size_factor: NDArray[np.float64] | None = None
    group: Group = SINGLE
    weight: NDArray[np.float64] | None = None
    columns: Columns | None = None

    def __len__(self) -> int:
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])

    @cached_property
    def total_rows(self) -> int:
        """Number of rows that count, in all processes."""
        return sum(self.group.gather(len(self.counted)))

    @cached_property
    def total_weight(self) -> float:
        """Summed weights of the rows of all processes: their number, an int, without any."""
        if self.weight is None:
            return self.total_rows
        return float(sum(self.group.gather(float(self.weight.sum()))))

    @property
    def row_weights(self) -> NDArray[np.float64]:
        """How many rows each row stands for, (n_samples,)."""
        return np.ones(len(self)) if self.weight is None else self.weight

    @property
    def rounded_weight(self) -> int:
        """Number of rows that those of all processes stand for, at least 1."""
        return max(1, round(self.total_weight))

    @property
    def counted(self) -> NDArray[np.intp]:
        """Indices of the rows of this process that count."""
        return np.arange(len(self)) if self.weight is None else np.flatnonzero(self.weight)

    @cached_property
    def has_missing(self) -> bool:
        """Whether an entry is missing in any process."""
        return any(self.group.gather(has_missing(self.X)))

    @cached_property
    def observed_counts(self) -> NDArray[np.intp]:
        """Number of rows of all processes in which each feature is observed, (n_features,)."""
        own = np.zeros(self.n_features, dtype=np.intp)
        for rows in gen_batches(len(self), CHUNK_ROWS):
            chunk = self.X[rows]
            if sparse.issparse(chunk):
                missing = chunk.indices[np.isnan(chunk.data)]
                own += chunk.shape[0] - np.bincount(missing, minlength=self.n_features)
            else:
                own += (~np.isnan(np.asarray(chunk, dtype=np.float64))).sum(axis=0)
        total: NDArray[np.intp] = np.sum(self.group.gather(own), axis=0)
        return total

    @cached_property
    def row_totals(self) -> NDArray[np.float64]:
        """Sum of each row of this process, (n_samples,)."""
        return row_totals(self.X)

    def weighted_sum(self, values: NDArray[np.float64]) -> float:
        """Add up a value of each row, over all processes."""
        own = values.sum() if self.weight is None else self.weight @ values
        return float(sum(self.group.gather(float(own))))

    def totals_at(self, shares: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Return `row_totals` with missing entries at these shares of features."""
        return row_totals(self.X, shares) if self.has_missing else self.row_totals

    @cached_property
    def column_totals(self) -> NDArray[np.float64]:
        """Weighted sum of each feature over the rows of all processes, (n_features,)."""
        if self.weight is None:
            own = np.asarray(self.X.sum(axis=0, dtype=np.float64)).ravel()
        else:
            own = np.zeros(self.n_features)
            for rows in gen_batches(len(self), CHUNK_ROWS):
                own += self.weight[rows] @ self.X[rows]
        total: NDArray[np.float64] = np.sum(self.group.gather(own), axis=0)
        return total


def row_totals(X: Matrix, shares: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Sum each row, (n_samples,).

    Where entries are missing, as if they had the usual share of the row.

    Parameters
    ----------
    X : ndarray, CSR or StoredTable of shape (n_samples, n_features)
    shares : ndarray of shape (n_features,), optional
        Of features in all rows, which add up to 1; by default missing entries count as 0.
    """
    # A sparse matrix returns a matrix of sums, and integers of few bits would overflow.
    totals: NDArray[np.float64] = np.asarray(X.sum(axis=1, dtype=np.float64)).ravel()
    if not np.isnan(totals).any():
        return totals
    for rows in gen_batches(len(totals), CHUNK_ROWS):
        lacking = np.flatnonzero(np.isnan(totals[rows]))
        if len(lacking):
            known, seen = observed_part(X[rows][lacking])
            part = 1.0 if shares is None else np.maximum(seen @ shares, TINY)
            totals[rows.start + lacking] = known.sum(axis=1) / part
    return totals


def observed_part(X: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return dense rows with 0 where an entry is missing, and 1 where it is not and 0 where it is.

    Both of shape (n, p).
    """
    dense: NDArray[np.float64] = (X.toarray() if sparse.issparse(X) else np.asarray(X)).astype(
        np.float64
    )
    missing = np.isnan(dense)
    return np.where(missing, 0.0, dense), 1.0 - missing
