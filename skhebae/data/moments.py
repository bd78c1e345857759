"""Moments and ranges of features, measured one chunk of rows at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import min_max_axis

from skhebae.data.table import Matrix

#: Rows per chunk of a pass over the table.
CHUNK_ROWS = 4096


class FeatureMoments(NamedTuple):
    """Moments and ranges of the features of a table or a part of it, each (n_features,).

    Attributes
    ----------
    n_rows : int
    mean, variance : ndarray
        The divisor of the variance is `n_rows`; both are 0 without rows.
    low, high : ndarray
        Smallest and largest value; infinite without rows.
    """

    n_rows: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def measure(
        cls,
        X: Matrix,
        transform: Callable[[Matrix], Matrix] | None = None,
        columns: NDArray[np.intp] | None = None,
    ) -> FeatureMoments:
        """Measure a table, or some columns of it, chunk by chunk.

        A row-wise `transform`, if one is given, sees all columns.
        """
        n_features = X.shape[1] if columns is None else len(columns)
        low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        if X.shape[0] == 0:
            return cls(0, np.zeros(n_features), np.zeros(n_features), low, high)
        # scikit-learn's scaler merges chunks stably.
        is_sparse = sparse.issparse(X[:1])  # a table outside memory is not sparse itself
        scaler = StandardScaler(with_mean=not is_sparse)
        for rows in gen_batches(X.shape[0], CHUNK_ROWS):
            # A plain array: a memory map stays a subclass under slicing.
            chunk: Matrix = X[rows]
            chunk = chunk if sparse.issparse(chunk) else np.asarray(chunk)
            if chunk.dtype.kind != "f" or chunk.dtype == np.longdouble:
                chunk = chunk.astype(np.float64)
            if transform is not None:
                chunk = transform(chunk)
            if columns is not None:
                chunk = chunk[:, columns]
            if sparse.issparse(chunk):
                # scikit-learn would square sparse float32 in float32.
                chunk = chunk.astype(np.float64, copy=False)
            with np.errstate(over="ignore", invalid="ignore"):
                scaler.partial_fit(chunk)
            chunk_low, chunk_high = column_range(chunk)
            low, high = np.minimum(low, chunk_low), np.maximum(high, chunk_high)
        mean, variance = (np.asarray(of, dtype=np.float64) for of in (scaler.mean_, scaler.var_))
        return cls(int(X.shape[0]), mean, variance, low, high)

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """Combine with the moments of other rows (Chan, Golub and LeVeque, 1979)."""
        n_rows = self.n_rows + other.n_rows
        if min(self.n_rows, other.n_rows) == 0:
            return self if other.n_rows == 0 else other
        share = other.n_rows / n_rows
        with np.errstate(over="ignore", invalid="ignore"):
            difference = other.mean - self.mean
            variance = (1.0 - share) * self.variance + share * other.variance
            variance = variance + share * (1.0 - share) * np.square(difference)
        return FeatureMoments(
            n_rows,
            self.mean + share * difference,
            variance,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def is_constant(self) -> NDArray[np.bool_]:
        """Find the features that vary by no more than the rounding of their moments.

        The bound is that of Chan, Golub and LeVeque (1983) for passes over the table, which
        scikit-learn's scaler applies too.
        """
        eps = np.finfo(np.float64).eps
        bound = self.n_rows * eps * self.variance + np.square(self.n_rows * self.mean * eps)
        result: NDArray[np.bool_] = self.variance <= bound
        return result


def column_range(X: Matrix) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest value of each column of an ndarray or CSR matrix."""
    if sparse.issparse(X):
        return min_max_axis(X if X.dtype.kind == "f" else X.astype(np.float64), axis=0)  # type: ignore[no-any-return]
    X = np.asarray(X)  # a memory map stays a subclass under slicing
    return X.min(axis=0), X.max(axis=0)
