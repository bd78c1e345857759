"""What is measured of a table before training, one chunk of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import StandardScaler, normalize
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import min_max_axis

from skhebae.data.values import Values
from skhebae.processes import ALONE, Processes

#: A feature is divided by the larger of its standard deviation and this
#: fraction of its range. The standard deviation alone would blow a rare value
#: (a border pixel lit in one image of a thousand) up to tens of units, where
#: it dominates the encoder of every row that has it.
RANGE_FRACTION = 0.3

#: Standardised values beyond this have squares that float32 cannot sum.
LARGEST = 1e15

#: Offsets up to so many units are subtracted in float32 from float32.
SMALL_OFFSET = 16.0

#: Rows per chunk of a pass over the table.
CHUNK_ROWS = 4096

#: Counts of a feature that was never seen, so that its share has a logarithm.
UNSEEN_COUNTS = 0.1

Matrix = Any  # numpy.ndarray or scipy CSR; scipy's stubs have no common type


class Scaling(Protocol):
    """Between the caller's rows and those of the networks."""

    @property
    def location(self) -> NDArray[np.float64]:
        """Centre of what the encoder sees, (n_features,)."""
        ...

    @property
    def scale(self) -> NDArray[np.float64]:
        """Unit of what the encoder sees, (n_features,)."""
        ...

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Rows to float32, dense, for the networks: always a new array."""
        ...

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float32]:
        """Back to the original units, float32."""
        ...


class FeatureMoments(NamedTuple):
    """What a table, or a part of it, says about its features, each (n_features,).

    Attributes
    ----------
    n_rows : int
    mean, variance : ndarray
        Of divisor `n_rows`; 0 without rows.
    low, high : ndarray
        The least and the largest value; without rows infinite.
    """

    n_rows: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def measure(cls, X: Matrix, normalised_to: float | None = None) -> FeatureMoments:
        """Measure a table, chunk after chunk, as it is or log-normalised."""
        n_features = X.shape[1]
        low, high = np.full(n_features, np.inf), np.full(n_features, -np.inf)
        if X.shape[0] == 0:
            return cls(0, np.zeros(n_features), np.zeros(n_features), low, high)
        # scikit-learn's scaler merges chunks stably.
        is_sparse = sparse.issparse(X[:1])  # which a table outside memory is not itself
        scaler = StandardScaler(with_mean=not is_sparse)
        for rows in gen_batches(X.shape[0], CHUNK_ROWS):
            # A plain array: a memory map stays a subclass under slicing.
            chunk: Matrix = X[rows]
            chunk = chunk if sparse.issparse(chunk) else np.asarray(chunk)
            if chunk.dtype.kind != "f":
                chunk = chunk.astype(np.float64)
            if normalised_to is not None:
                chunk = log_normalised(chunk, normalised_to)
            with np.errstate(over="ignore", invalid="ignore"):
                scaler.partial_fit(chunk)
            chunk_low, chunk_high = (
                min_max_axis(chunk, axis=0)
                if sparse.issparse(chunk)
                else (chunk.min(axis=0), chunk.max(axis=0))
            )
            low, high = np.minimum(low, chunk_low), np.maximum(high, chunk_high)
        mean, variance = (np.asarray(of, dtype=np.float64) for of in (scaler.mean_, scaler.var_))
        return cls(int(X.shape[0]), mean, variance, low, high)

    def merge(self, other: FeatureMoments) -> FeatureMoments:
        """Moments of both parts together (Chan, Golub and LeVeque, 1979)."""
        n_rows = self.n_rows + other.n_rows
        if min(self.n_rows, other.n_rows) == 0:
            return self if other.n_rows == 0 else other
        share = other.n_rows / n_rows
        with np.errstate(over="ignore", invalid="ignore"):
            step = other.mean - self.mean
            variance = (1.0 - share) * self.variance + share * other.variance
            variance = variance + share * (1.0 - share) * np.square(step)
        return FeatureMoments(
            n_rows,
            self.mean + share * step,
            variance,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def is_constant(self) -> NDArray[np.bool_]:
        """Which features vary by no more than the rounding of their moments.

        The bound of Chan, Golub and LeVeque (1983) for passes over the table, as
        scikit-learn's scaler applies it.
        """
        eps = np.finfo(np.float64).eps
        bound = self.n_rows * eps * self.variance + np.square(self.n_rows * self.mean * eps)
        result: NDArray[np.bool_] = self.variance <= bound
        return result


@dataclass(frozen=True)
class FeatureScaling:
    """The map ``x -> (x - location) / scale`` and its inverse.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,), float64
    variance : ndarray of shape (n_features,), float64
        Variance of the rows on the standardised scale; 1 for constant features.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    variance: NDArray[np.float64]

    @classmethod
    def measure(
        cls, X: Matrix, normalised_to: float | None = None, processes: Processes = ALONE
    ) -> FeatureScaling:
        """Measure a validated table in one pass, a chunk at a time.

        As it is, or log-normalised to the total `normalised_to`; with the tables of all
        other processes.
        """
        moments = reduce(
            FeatureMoments.merge, processes.gather(FeatureMoments.measure(X, normalised_to))
        )
        low, high = moments.low, moments.high
        spread = np.sqrt(moments.variance)
        if not np.isfinite(spread).all():
            column = int(np.flatnonzero(~np.isfinite(spread))[0])
            raise ValueError(
                f"X has values in column {column} up to {high[column]:.4g}, whose variance "
                "overflows; use a larger unit."
            )
        constant = moments.is_constant()
        deviation = np.where(constant, 1.0, spread)
        scale = np.maximum(deviation, RANGE_FRACTION * (high - low))
        scale[constant] = 1.0
        # The running mean of a constant misses it by rounding.
        location = np.where(low == high, low, moments.mean)
        variance = np.where(constant, 1.0, np.square(deviation / scale))
        return cls(location, scale, variance)

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Rows to float32, dense, standardised: always a new array.

        The subtraction happens in float64 where an offset is large (a time stamp), so
        that it does not cost its feature the digits that vary.
        """
        # Not sparse.issparse: scipy's stubs narrow to a type without toarray.
        dense: NDArray[Any] = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        narrow = self._narrow if dense.dtype == np.float32 else None
        with np.errstate(over="ignore"):
            if narrow is None:
                wide: NDArray[Any] = (dense - self.location) / self.scale
            else:
                wide = dense - narrow[0]
                wide *= narrow[1]
            result: NDArray[np.float32] = wide.astype(np.float32, copy=False)
        if may_exceed(result, LARGEST) and (wide.min() < -LARGEST or wide.max() > LARGEST):
            row, column = np.unravel_index(np.abs(wide).argmax(), wide.shape)
            raise ValueError(
                f"X has the value {dense[row, column]:.4g} in column {column}, more than "
                f"{LARGEST:.0e} standard deviations from the rows of fit; remove such rows."
            )
        return result

    @cached_property
    def _narrow(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Location and inverse scale in float32, None where that would cost digits."""
        if (np.abs(self.location) > SMALL_OFFSET * self.scale).any():
            return None
        return self.location.astype(np.float32), (1.0 / self.scale).astype(np.float32)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float32]:
        """Back to the original units, float32."""
        result: NDArray[np.float32] = (standardised * self.scale + self.location).astype(np.float32)
        return result


def may_exceed(values: NDArray[np.float32], bound: float) -> bool:
    """Whether some number may lie beyond `bound`, by one pass that never misses one."""
    flat = torch.from_numpy(values.reshape(-1))
    # Not numpy's product: its threads and torch's would take the cores from each other.
    return not float(torch.dot(flat, flat)) <= bound * bound


def log_normalised(counts: Matrix, total: float) -> Matrix:
    """``log(1 + x total / sum x)`` of rows of counts, dense or sparse alike."""
    proportions: Matrix = normalize(counts, norm="l1")
    return (
        (proportions * total).log1p() if sparse.issparse(counts) else np.log1p(proportions * total)
    )


def row_totals(X: Matrix) -> NDArray[np.float64]:
    """Sum of each row, (n_samples,)."""
    # A sparse matrix has a matrix of sums, and integers of few bits overflow.
    return np.asarray(X.sum(axis=1, dtype=np.float64)).ravel()


@dataclass(frozen=True)
class CountScaling:
    """Rows of counts go to the networks as they are; the likelihood normalises them.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,), float64
        Of the log-normalised rows, as `FeatureScaling` measures them.
    proportions : ndarray of shape (n_features,), float64
        Share of each feature in all counts, positive.
    typical_size : ndarray of shape (), float64
        Median total of a row.
    log_size_deviation : ndarray of shape (), float64
        Standard deviation of the logarithm of the totals.
    size_unit : ndarray of shape (), float64
        Counts in one unit of the size factors that were given to `fit`, else 1.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    proportions: NDArray[np.float64]
    typical_size: NDArray[np.float64]
    log_size_deviation: NDArray[np.float64]
    size_unit: NDArray[np.float64]

    @classmethod
    def measure(
        cls,
        X: Matrix,
        size_factor: NDArray[np.float64] | None = None,
        processes: Processes = ALONE,
    ) -> CountScaling:
        """Measure a validated table of counts; a `size_factor` (n_samples,) may be in any unit.

        With the tables of all other processes.
        """
        totals = row_totals(X)
        positive = Values.gathered(totals[totals > 0], processes)
        if len(positive) == 0:
            raise ValueError("X has no counts at all: every entry is 0.")
        typical = positive.median()
        normalised = FeatureScaling.measure(X, typical, processes)
        of_columns = np.asarray(X.sum(axis=0, dtype=np.float64)).ravel()
        counts = np.sum(processes.gather(of_columns), axis=0) + UNSEEN_COUNTS
        unit = 1.0
        if size_factor is not None:
            unit = typical / Values.gathered(size_factor, processes).median()
        return cls(
            normalised.location,
            normalised.scale,
            counts / counts.sum(),
            np.asarray(typical),
            np.asarray(positive.log_deviation()),
            np.asarray(unit),
        )

    def log_size(
        self, n_rows: int, X: Matrix | None, size_factor: NDArray[np.float64] | None
    ) -> NDArray[np.float64]:
        """Logarithm of each row's exposure, (n_rows,).

        Its size factor; else its total in `X`; else the typical size.
        """
        sizes = np.full(n_rows, self.typical_size)
        if size_factor is not None:
            sizes = size_factor * self.size_unit
        elif X is not None:
            # A row of zeros says nothing, at any exposure.
            sizes = np.maximum(row_totals(X), 1.0)
        result: NDArray[np.float64] = np.log(sizes)
        return result

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Rows to float32, dense: always a new array."""
        dense: NDArray[Any] = X.toarray() if hasattr(X, "toarray") else np.array(X)
        return dense.astype(np.float32, copy=False)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows as they are."""
        return standardised
