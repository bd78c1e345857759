"""Frames whose columns have families of their own: at the door, and on the way out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import validate_data

from skhebae._sklearn import BaseEstimator
from skhebae.data import Columns, encode_frame, find_kinds, find_library, measure_columns
from skhebae.distributed import SINGLE, Group
from skhebae.estimators.recognise import named
from skhebae.likelihoods import BY_DTYPE, choose_families, is_mixed, resolve_likelihood


def find_columns(X: Any, likelihood: Any, group: Group) -> Columns | None:
    """Return the columns of a frame that is to have a family per column; None for other tables.

    The same in all processes.

    Raises
    ------
    ValueError
        If a column holds what no family takes, or `likelihood` names a column that is not there.
    """
    if isinstance(likelihood, type) or (isinstance(likelihood, str) and likelihood not in BY_DTYPE):
        return None
    library = find_library(X)
    kinds = None
    if library is not None and not (likelihood == "auto" and has_only_numbers(X, library)):
        kinds = find_kinds(X, library)
    known = [own for own in group.gather(kinds) if own is not None]
    if not known or not any(is_mixed(likelihood, own) for own in known):
        return None
    if kinds is None or library is None:
        raise ValueError(
            "X is a frame with columns of several kinds in some processes and not in others. Give "
            "all of them the same columns."
        )
    families = choose_families(known[0], likelihood)
    own = measure_columns(X, library, known[0], families)
    columns: list[Columns] = group.gather(own)
    merged = columns[0].merge(columns[1:])
    refuse_empty(merged)
    return merged


def is_gaussian(X: Any, likelihood: Any) -> bool:
    """Whether a table is gaussian as a whole, if `likelihood` is the parameter of an estimator."""
    is_mixed = find_columns(X, likelihood, SINGLE) is not None
    return bool(resolve_likelihood(likelihood, is_mixed=is_mixed) == "gaussian")


def has_only_numbers(X: Any, library: str) -> bool:
    """Whether all dtypes are those of numbers, which is quick to see."""
    if library == "pandas":
        return all(getattr(dtype, "kind", "O") in "fiub" for dtype in X.dtypes)
    return all(dtype.is_numeric() for dtype in X.dtypes)


def refuse_empty(columns: Columns) -> None:
    """Refuse columns without any value.

    Raises
    ------
    ValueError
        Naming them.
    """
    empty = [column.name for column in columns.items if column.low is None]
    if empty:
        raise ValueError(
            f"X has columns in which all values are missing: {empty[:5]}. Drop them, for example "
            "by X.dropna(axis=1, how='all')."
        )


def read_frame(
    estimator: BaseEstimator, X: Any, columns: Columns, *, reset: bool, min_samples: int
) -> NDArray[np.float64]:
    """Check a frame, and return it as numbers, NaN where values are missing, (n, p).

    Raises
    ------
    TypeError, ValueError
        If it is no frame, or has not the columns of fit.
    """
    library = find_library(X)
    if library is None:
        raise TypeError(
            f"X is {named(X)}, but {type(estimator).__name__} was fitted to a frame of "
            f"{columns.library} whose columns have families of their own. Pass such a frame."
        )
    validate_data(estimator, X, reset=reset, skip_check_array=True)
    if list(X.columns) != columns.names:
        raise ValueError(
            f"X has the columns {list(X.columns)[:10]}, but fit saw {columns.names[:10]}. Pass the "
            "same columns in the same order."
        )
    if len(X) < min_samples:
        raise ValueError(
            f"Found array with {len(X)} sample(s) (shape={X.shape}) while a minimum of "
            f"{min_samples} is required."
        )
    unknown: str = getattr(estimator, "unknown_category", "warn")
    return encode_frame(X, columns, unknown)
