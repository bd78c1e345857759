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

from skhebae.data.table import CHUNK_ROWS, Matrix


class FeatureMoments(NamedTuple):
    """Moments and ranges of the features of a table or a part of it, each (n_features,).

    They are those of the observed entries, which are not NaN, of rows with a positive weight.

    Attributes
    ----------
    n_rows : ndarray
        Summed weights of the observed entries: their number where rows have no weights.
    mean, variance : ndarray
        The divisor of the variance is `n_rows`; both are 0 without observed entries.
    low, high : ndarray
        Smallest and largest value; plus and minus infinity without observed entries.
    """

    n_rows: NDArray[np.float64]
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
        weight: NDArray[np.float64] | None = None,
    ) -> FeatureMoments:
        """Measure a table, or some columns of it, chunk by chunk.

        A row-wise `transform`, if one is given, sees all rows and columns. Explicit NaN of a CSR
        matrix are missing; what it does not store is 0. `weight` (n_samples,) counts each row.
        """
        n_features = X.shape[1] if columns is None else len(columns)
        if X.shape[0] == 0:
            return cls.of_nothing(n_features)
        # scikit-learn's scaler merges chunks stably. It fails where a chunk has no value of a
        # feature, so chunks with NaN or weights are measured here.
        is_sparse = sparse.issparse(X[:1])  # a table outside memory is not sparse itself
        scaler = StandardScaler(with_mean=not is_sparse)
        low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        n_whole, others = 0, cls.of_nothing(n_features)
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
            if weight is not None:
                others = others.merge(cls.of_chunk(chunk, weight[rows]))
                continue
            chunk_low, chunk_high = range_or_nan(chunk)
            if np.isnan(chunk_low).any():
                others = others.merge(cls.of_chunk(chunk, np.ones(chunk.shape[0])))
                continue
            with np.errstate(over="ignore", invalid="ignore"):
                scaler.partial_fit(chunk)
            n_whole += chunk.shape[0]
            low, high = np.minimum(low, chunk_low), np.maximum(high, chunk_high)
        if n_whole == 0:
            return others
        mean, variance = (np.asarray(of, dtype=np.float64) for of in (scaler.mean_, scaler.var_))
        whole = cls(np.full(n_features, float(n_whole)), mean, variance, low, high)
        return whole.merge(others)

    @classmethod
    def of_nothing(cls, n_features: int) -> FeatureMoments:
        """Return the moments of no rows."""
        nothing, infinite = np.zeros(n_features), np.full(n_features, np.inf)
        return cls(nothing, nothing, nothing, infinite, -infinite)

    @classmethod
    def of_chunk(cls, chunk: Matrix, weight: NDArray[np.float64]) -> FeatureMoments:
        """Measure some rows by two passes (Chan, Golub and LeVeque, 1983).

        Parameters
        ----------
        chunk : ndarray or CSR of shape (n_samples, n_features)
            NaN where an entry is missing.
        weight : ndarray of shape (n_samples,)
        """
        chunk, weight = chunk[weight > 0.0], weight[weight > 0.0]
        if chunk.shape[0] == 0:
            return cls.of_nothing(chunk.shape[1])
        measure = sparse_sums if sparse.issparse(chunk) else dense_sums
        with np.errstate(over="ignore", invalid="ignore"):
            n_rows, mean, squares, rest = measure(chunk, weight)
            # `rest` would be 0 if the mean were exact.
            variance = np.maximum(squares - rest * over(rest, n_rows), 0.0)
        return cls(n_rows, mean, over(variance, n_rows), *column_range(chunk))

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """Combine with the moments of other rows (Chan, Golub and LeVeque, 1979)."""
        n_rows = self.n_rows + other.n_rows
        share = over(other.n_rows, n_rows)
        with np.errstate(over="ignore", invalid="ignore"):
            difference = other.mean - self.mean
            variance = (1.0 - share) * self.variance + share * other.variance
            variance = variance + share * (1.0 - share) * np.square(difference)
            mean = self.mean + share * difference
        # As they are, where one of the two has no rows.
        for absent, one in ((other.n_rows == 0.0, self), (self.n_rows == 0.0, other)):
            mean = np.where(absent, one.mean, mean)
            variance = np.where(absent, one.variance, variance)
        return FeatureMoments(
            n_rows,
            mean,
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


def over(total: NDArray[np.float64], n_rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the totals of features by their rows; 0 where there are none."""
    result: NDArray[np.float64] = np.divide(
        total, n_rows, out=np.zeros_like(n_rows), where=n_rows > 0.0
    )
    return result


#: Of each feature: summed weights, mean, weighted squares about the mean, weighted distances to it.
Sums = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def dense_sums(X: NDArray[Any], weight: NDArray[np.float64]) -> Sums:
    """Add up observed entries, each (n_features,)."""
    observed = ~np.isnan(X)
    n_rows = weight @ observed
    values = np.where(observed, X, 0.0).astype(np.float64, copy=False)
    mean = over(weight @ values, n_rows)
    distance = np.where(observed, values - mean, 0.0)
    return n_rows, mean, weight @ np.square(distance), weight @ distance


def sparse_sums(X: Matrix, weight: NDArray[np.float64]) -> Sums:
    """Add up observed entries of a CSR matrix, each (n_features,)."""
    stored = np.repeat(weight, np.diff(X.indptr))
    missing = np.isnan(X.data)
    places, stored, values = X.indices[~missing], stored[~missing], X.data[~missing]

    def add_up(of: NDArray[np.float64], at: NDArray[Any] = places) -> NDArray[np.float64]:
        total = np.bincount(at, weights=of, minlength=X.shape[1])
        return total.astype(np.float64, copy=False)

    lost = add_up(np.repeat(weight, np.diff(X.indptr))[missing], X.indices[missing])
    n_rows = weight.sum() - lost
    # A feature that is missing in all rows must not keep a remainder of rounding.
    n_rows[X.shape[0] == np.bincount(X.indices[missing], minlength=X.shape[1])] = 0.0
    mean = over(add_up(stored * values), n_rows)
    zeros = n_rows - add_up(stored)
    distance = values - mean[places]
    squares = add_up(stored * np.square(distance)) + zeros * np.square(mean)
    return n_rows, mean, squares, add_up(stored * distance) - zeros * mean


def range_or_nan(X: Matrix) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest value of each column, NaN where one is missing."""
    if sparse.issparse(X):
        return min_max_axis(X if X.dtype.kind == "f" else X.astype(np.float64), axis=0)  # type: ignore[no-any-return]
    X = np.asarray(X)  # a memory map stays a subclass under slicing
    return X.min(axis=0), X.max(axis=0)


def column_range(X: Matrix) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the smallest and the largest value of each column of an ndarray or CSR matrix.

    NaN is no value: a column of nothing else ranges from plus to minus infinity.
    """
    low, high = range_or_nan(X)
    if not np.isnan(low).any():
        return low, high
    if sparse.issparse(X):
        low, high = min_max_axis(X, axis=0, ignore_nan=True)
    else:
        low, high = np.fmin.reduce(np.asarray(X), axis=0), np.fmax.reduce(np.asarray(X), axis=0)
    return np.where(np.isnan(low), np.inf, low), np.where(np.isnan(high), -np.inf, high)
