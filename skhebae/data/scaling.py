"""Per-feature standardisation, measured one chunk of rows at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.preprocessing import StandardScaler
from sklearn.utils import gen_batches
from sklearn.utils.sparsefuncs import min_max_axis

#: A feature is divided by the larger of its standard deviation and this
#: fraction of its range. The standard deviation alone would blow a rare value
#: (a border pixel lit in one image of a thousand) up to tens of units, where
#: it dominates the encoder of every row that has it.
RANGE_FRACTION = 0.3

#: Standardised values beyond this have squares that float32 cannot sum.
LARGEST = 1e15

#: Rows per chunk of a pass over the table.
CHUNK_ROWS = 4096

Matrix = Any  # numpy.ndarray or scipy CSR; scipy's stubs have no common type


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
    def measure(cls, X: Matrix) -> FeatureScaling:
        """Measure a validated table in one pass, a chunk at a time."""
        # scikit-learn's scaler merges chunks stably and knows when a feature
        # is constant up to rounding.
        scaler = StandardScaler(with_mean=not sparse.issparse(X))
        low = np.full(X.shape[1], np.inf)
        high = np.full(X.shape[1], -np.inf)
        for rows in gen_batches(X.shape[0], CHUNK_ROWS):
            # A plain array: a memory map stays a subclass under slicing.
            chunk: Matrix = X[rows]
            chunk = chunk if sparse.issparse(chunk) else np.asarray(chunk)
            if chunk.dtype.kind != "f":
                chunk = chunk.astype(np.float64)
            with np.errstate(over="ignore", invalid="ignore"):
                scaler.partial_fit(chunk)
            chunk_low, chunk_high = (
                min_max_axis(chunk, axis=0)
                if sparse.issparse(chunk)
                else (chunk.min(axis=0), chunk.max(axis=0))
            )
            low, high = np.minimum(low, chunk_low), np.maximum(high, chunk_high)
        deviation = np.asarray(scaler.scale_, dtype=np.float64)
        # Where the variance is 0 up to rounding, the scaler's `scale_` is 1
        # and no longer the root of its `var_`.
        spread = np.sqrt(np.asarray(scaler.var_, dtype=np.float64))
        if not np.isfinite(spread).all():
            column = int(np.flatnonzero(~np.isfinite(spread))[0])
            raise ValueError(
                f"X has values in column {column} up to {high[column]:.4g}, whose variance "
                "overflows; use a larger unit."
            )
        constant = deviation != spread
        scale = np.maximum(deviation, RANGE_FRACTION * (high - low))
        scale[constant] = 1.0
        location = np.asarray(scaler.mean_, dtype=np.float64)
        # The running mean of a constant misses it by rounding.
        location = np.where(low == high, low, location)
        variance = np.where(constant, 1.0, np.square(deviation / scale))
        return cls(location, scale, variance)

    def standardise(self, X: Matrix) -> NDArray[np.float32]:
        """Rows to float32, dense, standardised: always a new array.

        The subtraction happens in float64, so a large offset (a time stamp)
        does not cost its feature the digits that vary.
        """
        # Not sparse.issparse: scipy's stubs narrow to a type without toarray.
        dense: NDArray[Any] = X.toarray() if hasattr(X, "toarray") else np.asarray(X)
        with np.errstate(over="ignore"):
            wide = (dense - self.location) / self.scale
        if wide.min() < -LARGEST or wide.max() > LARGEST:
            row, column = np.unravel_index(np.abs(wide).argmax(), wide.shape)
            raise ValueError(
                f"X has the value {dense[row, column]:.4g} in column {column}, more than "
                f"{LARGEST:.0e} standard deviations from the rows of fit; remove such rows."
            )
        result: NDArray[np.float32] = wide.astype(np.float32)
        return result

    def restore(self, standardised: NDArray[np.float32]) -> NDArray[np.float32]:
        """Back to the original units, float32."""
        result: NDArray[np.float32] = (standardised * self.scale + self.location).astype(np.float32)
        return result
