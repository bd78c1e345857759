"""What the columns of pandas and of polars have in common on their way into numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]

#: Nanoseconds per second.
NANOSECONDS = 1e9


def finite(values: FloatArray) -> FloatArray:
    """Return values, which may be NaN and not infinite."""
    if np.isinf(values).any():
        raise ValueError("it contains infinity")
    return values


def seconds(nanoseconds: NDArray[np.int64], missing: NDArray[np.bool_]) -> FloatArray:
    """Return times in seconds, NaN where they are missing."""
    values: FloatArray = nanoseconds / NANOSECONDS
    values[missing] = np.nan
    return values


def refused(name: Any, dtype: Any) -> ValueError:
    """Return the error for a column that no family takes."""
    return ValueError(
        f"X has a column {name!r} of dtype {dtype}, which is neither a number, a category, text, "
        "a boolean nor a date. Convert it, or drop the column."
    )
