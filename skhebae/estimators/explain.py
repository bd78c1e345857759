"""What makes rows strange, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhebae.data import Matrix, Scaling, find_library
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted.explain import strangeness_parts
from skhebae.fitted.reference import Reference

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: Name of the column for what codes contribute.
CODE = "code"


def explain_rows(
    estimator: BaseAutoencoder,
    reference: Reference,
    X: Any,
    rows: Matrix,
    batch: ArrayLike | None,
    size_factor: ArrayLike | None,
    *,
    apart: bool,
) -> pandas.DataFrame:
    """Return the shares of columns in the squared distance of rows to their nearest points.

    Parameters
    ----------
    estimator : BaseAutoencoder
    reference : Reference
    X : table
        As the user gave it, for its index.
    rows : Matrix
        The same, validated.
    batch, size_factor : optional
    apart : bool
        Whether codes get a column of their own.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "explain returns a data frame, which needs pandas. Install it with pip install pandas."
        ) from error
    fitted = estimator.fitted_
    parts = strangeness_parts(fitted, reference, rows, batch, size_factor, apart=apart)
    of_columns = sum_per_column(parts[:, 1:], fitted.scaling)
    names = column_names(estimator, of_columns.shape[1])
    if apart:
        of_columns = np.column_stack([of_columns, parts[:, 0]])
        names.append(CODE)
    total = of_columns.sum(axis=1, keepdims=True)
    # A row at a reference point is not strange in any column.
    shares = np.divide(of_columns, total, out=np.zeros_like(of_columns), where=total > 0.0)
    return pd.DataFrame(shares, columns=names, index=index_of(X))


def sum_per_column(parts: NDArray[Any], scaling: Scaling) -> FloatArray:
    """Add up the parts of features (n, q) per column of the table, (n, p)."""
    wide = np.asarray(parts, dtype=np.float64)
    if scaling.columns is None:
        return wide
    n_columns = len(scaling.columns)
    # A row of which one column is known: the features that it sets are those of the column.
    known = np.where(np.eye(n_columns, dtype=bool), 0.0, np.nan)
    owns = ~np.isnan(scaling.standardise(known))
    result: FloatArray = wide @ owns.T.astype(np.float64)
    return result


def column_names(estimator: BaseAutoencoder, n_columns: int) -> list[Any]:
    """Return the names of the columns of the table."""
    columns = estimator.fitted_.columns
    if columns is not None:
        return list(columns.names)
    names = estimator.fitted_.names
    return [f"x{j}" for j in range(n_columns)] if names is None else list(names)


def index_of(X: Any) -> Any:
    """Return the index of a pandas frame, and None for other tables."""
    return X.index if find_library(X) == "pandas" else None
