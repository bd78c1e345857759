"""Rows whose missing entries are filled in, in the form in which they were given."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skhebae.data import Columns, Matrix, decode_frame

#: Draws of codes: for expected values, per completed copy, and at most.
IMPORTANCE_DRAWS, DRAWS_PER_COPY, MOST_DRAWS = 100, 4, 2000


def opposite_pairs(
    rng: np.random.RandomState, n_copies: int | None, n_components: int
) -> NDArray[np.float32]:
    """Return standard normal draws of codes (K, d), each with its opposite.

    Expected values of linear models are then exact, and the more copies are drawn, the more codes
    there are to choose from.
    """
    n_draws = max(IMPORTANCE_DRAWS, min(MOST_DRAWS, DRAWS_PER_COPY * (n_copies or 0)))
    half = rng.standard_normal((n_draws // 2, n_components))
    return np.concatenate([half, -half]).astype(np.float32)


def completed_like(
    X: Any, rows: Matrix, values: NDArray[np.floating[Any]], columns: Columns | None = None
) -> Any:
    """Return rows with `values` in place of NaN: a frame for a frame, else an array or CSR matrix.

    Parameters
    ----------
    X : object
        What the user passed.
    rows : ndarray, CSR matrix or StoredTable of shape (n, p)
        The same, validated.
    values : ndarray of shape (n, p)
    columns : Columns, optional
        Those of a mixed frame, which `rows` holds as numbers.
    """
    if sparse.issparse(rows):
        filled = rows.copy().astype(np.result_type(rows.dtype, np.float32))
        row = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
        missing = np.isnan(filled.data)
        filled.data[missing] = values[row[missing], filled.indices[missing]]
        return filled
    if not isinstance(rows, np.ndarray):  # outside memory
        return completed_like(X, rows[0 : rows.shape[0]], values)
    dense = np.asarray(rows)
    if dense.dtype.kind == "f":
        missing = np.isnan(dense)
        dense = np.where(missing, values, dense).astype(dense.dtype, copy=False)
    if columns is None:
        return framed_like(X, dense)
    frame = decode_frame(dense, columns)
    if hasattr(X, "index"):
        frame.index = X.index
    return frame


def framed_like(X: Any, dense: NDArray[Any]) -> Any:
    """Return an array as a frame of pandas or polars, if X is one, with its names and index."""
    pandas, polars = sys.modules.get("pandas"), sys.modules.get("polars")
    if pandas is not None and isinstance(X, pandas.DataFrame):
        return pandas.DataFrame(dense, index=X.index, columns=X.columns)
    if polars is not None and isinstance(X, polars.DataFrame):
        return polars.DataFrame(dense, schema=X.columns)
    return dense
