"""Facts about the numbers of a matrix, some of which may be missing."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse


def value_range(X: Any) -> tuple[float, float]:
    """Return the smallest and the largest number of an ndarray or CSR matrix, but for NaN.

    Of none, infinity and minus infinity.
    """
    values = np.asarray(X.data if sparse.issparse(X) else X)
    low, high = np.inf, -np.inf
    if sparse.issparse(X) and X.nnz < np.prod(X.shape):
        low = high = 0.0
    if values.size == 0:
        return low, high
    ends = float(values.min()), float(values.max())
    if np.isnan(ends).any():
        values = values[~np.isnan(values)]
        if values.size == 0:
            return low, high
        ends = float(values.min()), float(values.max())
    return min(low, ends[0]), max(high, ends[1])


def has_missing(X: Any) -> bool:
    """Whether an ndarray, a CSR matrix or a table outside memory has NaN in it."""
    if not isinstance(X, np.ndarray) and not sparse.issparse(X):
        found: bool = X.has_missing()
        return found
    values = np.asarray(X.data if sparse.issparse(X) else X)
    if values.dtype.kind != "f":
        return False
    with np.errstate(over="ignore", invalid="ignore"):
        total = values.sum()
    # A sum of huge numbers may not exist either.
    return bool(np.isnan(total) and np.isnan(values).any())
