"""Standardisation, measured before training one chunk of rows at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import min_max_axis

from skhebae.data.table import Matrix, Table
from skhebae.files import check_floats
from skhebae.process import cached_property

#: A feature is divided by the larger of its standard deviation and this fraction of its range.
#: The standard deviation alone would blow a rare value (a border pixel lit in one image of a
#: thousand) up to tens of units, where it dominates the encoder for every row that has it.
RANGE_FRACTION = 0.3

#: Standardised values beyond this have squares that float32 cannot sum.
LARGEST = 1e15

#: Largest step between two neighbouring numbers of float32, in units of a feature, that may
#: separate restored values; and how many units from the centre they may lie.
COARSEST_STEP, FURTHEST = 1e-3, 1e3

#: Offsets of up to this many units are subtracted from float32 values in float32.
SMALL_OFFSET = 16.0

#: Rows per chunk of a pass over the table.
CHUNK_ROWS = 4096


class Scaling(ABC):
    """The map between a caller's rows and the rows that networks see.

    A frozen dataclass whose fields are arrays: a saved model holds just those.

    Attributes
    ----------
    location, scale : ndarray of shape (n_features,), float64
        Centre and unit of the encoder's input.
    may_miss : bool
        Whether `standardise` may return NaN, which then marks missing entries.
    """

    location: NDArray[np.float64]
    scale: NDArray[np.float64]
    may_miss: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def measure(cls, table: Table) -> Self:
        """Measure a validated table, together with those of all other processes."""

    def check(self, n_features: int) -> None:
        """Check fields that come from a file; a subclass adds those of its own.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        check_floats(self.location, "location", (n_features,))
        check_floats(self.scale, "scale", (n_features,), above=0.0)

    @abstractmethod
    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map rows to dense float32 rows for the networks; always return a new array."""

    @abstractmethod
    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Map rows back to the original units: float32, or float64 where that loses digits."""

    def log_size(
        self,
        n_rows: int,
        totals: Callable[[], NDArray[np.float64]] | None,
        size_factor: NDArray[np.float64] | None,
    ) -> NDArray[np.float64] | None:
        """Return the logarithm of each row's exposure, (n_rows,); None if rows have none.

        Parameters
        ----------
        n_rows : int
        totals : callable or None
            Returns row totals, which are the exposures where no size factors are given.
        size_factor : ndarray of shape (n_rows,) or None

        Raises
        ------
        ValueError
            If size factors are given and rows have no exposure.
        """
        if size_factor is not None:
            raise ValueError(
                "size_factor= is the exposure of counts, which this likelihood does not have. Use "
                "likelihood='negative_binomial', or leave size_factor= out."
            )
        return None

    def size_factors(self, totals: Callable[[], NDArray[np.float64]]) -> NDArray[np.float64] | None:
        """Return size factors that decode rows at their own totals; None if rows have none."""
        return None

    def draw_size_factors(
        self, n_rows: int, rng: np.random.RandomState, batch: NDArray[np.intp] | None = None
    ) -> NDArray[np.float64] | None:
        """Draw size factors for sampled rows of some batches; None if rows have none."""
        return None

    def usual_values(
        self, rows: NDArray[np.floating[Any]], found: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return what to fill into features that rows lack, (n_features,) or (n, n_features).

        Parameters
        ----------
        rows : ndarray of shape (n, n_features)
            In the original units, 0 where a feature is lacking.
        found : ndarray of bool of shape (n_features,)
            False for features that all rows lack.
        """
        return self.location


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
        cls, X: Matrix, transform: Callable[[Matrix], Matrix] | None = None
    ) -> FeatureMoments:
        """Measure a table chunk by chunk, after a row-wise `transform` if one is given."""
        n_features = X.shape[1]
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
            if chunk.dtype.kind != "f":
                chunk = chunk.astype(np.float64)
            if transform is not None:
                chunk = transform(chunk)
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


@dataclass(frozen=True)
class FeatureScaling(Scaling):
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
        cls, table: Table, transform: Callable[[Matrix], Matrix] | None = None
    ) -> FeatureScaling:
        """Measure the tables of all processes in one pass, a chunk at a time.

        Parameters
        ----------
        table : Table
        transform : callable, optional
            Applied to each chunk of rows first.

        Raises
        ------
        ValueError
            If the variance of a feature overflows.
        """
        own = FeatureMoments.measure(table.X, transform)
        moments = reduce(FeatureMoments.merge, table.group.gather(own))
        low, high = moments.low, moments.high
        spread = np.sqrt(moments.variance)
        if not np.isfinite(spread).all():
            column = int(np.flatnonzero(~np.isfinite(spread))[0])
            raise ValueError(
                f"X has values in column {column} up to {high[column]:.4g}, whose variance "
                "overflows. Use a larger unit."
            )
        constant = moments.is_constant()
        deviation = np.where(constant, 1.0, spread)
        scale = np.maximum(deviation, RANGE_FRACTION * (high - low))
        scale[constant] = 1.0
        # The running mean of a constant is off by rounding.
        location = np.where(low == high, low, moments.mean)
        variance = np.where(constant, 1.0, np.square(deviation / scale))
        return cls(location, scale, variance)

    def check(self, n_features: int) -> None:
        """Check fields that come from a file.

        Raises
        ------
        ValueError
            Naming the field that cannot be right.
        """
        super().check(n_features)
        check_floats(self.variance, "variance", (n_features,), above=0.0)

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Map rows to dense, standardised float32 rows; always return a new array.

        Where an offset is large (a time stamp), it is subtracted in float64, so that it does not
        cost its feature the digits that vary.
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
                f"{LARGEST:.0e} standard deviations from the rows of fit. Remove such rows."
            )
        return result

    @cached_property
    def _narrow(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Location and inverse scale in float32; None where that would cost digits."""
        if (np.abs(self.location) > SMALL_OFFSET * self.scale).any():
            return None
        return self.location.astype(np.float32), (1.0 / self.scale).astype(np.float32)

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.floating[Any]]:
        """Map rows back to the original units, in `restored_dtype`."""
        wide: NDArray[np.float64] = standardised * self.scale + self.location
        return wide.astype(self.restored_dtype, copy=False)

    @cached_property
    def restored_dtype(self) -> np.dtype[Any]:
        """float32, or float64 where float32 cannot hold the spread of a feature.

        Because the feature's offset is large (a time stamp in seconds, of events a minute apart),
        or because its unit is at the ends of the range of float32.
        """
        single = np.finfo(np.float32)
        magnitude = np.abs(self.location)
        steps = np.maximum(single.eps * magnitude, float(single.tiny))
        fits = (steps <= COARSEST_STEP * self.scale) & (
            magnitude + FURTHEST * self.scale <= float(single.max)
        )
        return np.dtype(np.float32 if fits.all() else np.float64)


def may_exceed(values: NDArray[np.float32], bound: float) -> bool:
    """Whether some number may lie beyond `bound`, by one pass that never misses one."""
    flat = torch.from_numpy(values.reshape(-1))
    # Not numpy's product: its threads and torch's would compete for the cores.
    return not float(torch.dot(flat, flat)) <= bound * bound
