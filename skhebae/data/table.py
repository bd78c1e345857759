"""A validated table on its way into a fit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skhebae.data.columns import Columns
from skhebae.distributed import SINGLE, Group
from skhebae.process import cached_property

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
    group : Group
    columns : Columns, optional
        Columns of a mixed frame, which `X` holds as numbers, NaN where they are missing.
    """

    X: Matrix
    batch: NDArray[Any] | None = None
    size_factor: NDArray[np.float64] | None = None
    group: Group = SINGLE
    columns: Columns | None = None

    def __len__(self) -> int:
        return int(self.X.shape[0])

    @property
    def n_features(self) -> int:
        """Number of columns."""
        return int(self.X.shape[1])

    @cached_property
    def total_rows(self) -> int:
        """Number of rows in all processes."""
        return sum(self.group.gather(len(self)))

    @cached_property
    def row_totals(self) -> NDArray[np.float64]:
        """Sum of each row of this process, (n_samples,)."""
        return row_totals(self.X)

    @cached_property
    def column_totals(self) -> NDArray[np.float64]:
        """Sum of each feature over the rows of all processes, (n_features,)."""
        own = np.asarray(self.X.sum(axis=0, dtype=np.float64)).ravel()
        total: NDArray[np.float64] = np.sum(self.group.gather(own), axis=0)
        return total


def row_totals(X: Matrix) -> NDArray[np.float64]:
    """Sum each row, (n_samples,)."""
    # A sparse matrix returns a matrix of sums, and integers of few bits would overflow.
    return np.asarray(X.sum(axis=1, dtype=np.float64)).ravel()
