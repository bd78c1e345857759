"""Checks and names of rows whose shares are drawn."""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skhebae._sklearn import take_rows
from skhebae.estimators import BaseAutoencoder
from skhebae.estimators.recognise import as_table
from skhebae.plotting._common import check_estimator


def colour_scale(mappable: Any) -> Any:
    """Return the scale of colours of a picture, without its transparency."""
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(mappable.norm, mappable.cmap)


def percents(share: float, place: int | None = None) -> str:
    """Write a share on an axis, with as many digits as its tick needs."""
    return f"{100.0 * share:.3g}%"


def shapes_agree(shares: tuple[int, ...], rows: tuple[int, ...], p_values: tuple[int, ...]) -> bool:
    """Whether shapes are those of shares, rows and p-values of the same rows, at least one."""
    if len(shares) != 2 or len(rows) != 2 or shares[0] == 0:
        return False
    same = shares[0] == rows[0] and p_values == (rows[0],)
    return same and shares[1] - rows[1] in (0, 1)


def check_detector(detector: object, caller: str) -> None:
    """Check that a detector is fitted.

    Raises
    ------
    NotFittedError, TypeError
    """
    needed = ["explain", "p_values", "score_samples"]
    if isinstance(detector, BaseAutoencoder):
        name = type(detector).__name__
        raise TypeError(
            f"{caller} needs explain, p_values, which {name} does not have. Pass "
            f"NoveltyDetector({name}(...)).fit(X)."
        )
    check_estimator(detector, needed, caller)


def select_table(X: Any, rows: NDArray[np.intp]) -> Any:
    """Return some rows in their own container, so that names and labels stay."""
    if hasattr(X, "tocsr"):  # not every sparse format can be sliced
        return X.tocsr()[rows]
    return take_rows(X if hasattr(X, "columns") else np.asarray(as_table(X)), rows)


def values_of(some: Any) -> NDArray[Any]:
    """Return the values of rows in any container, dates as dates."""
    if hasattr(some, "iter_rows"):  # polars makes numbers of dates
        return np.array(list(some.iter_rows()), dtype=object)
    return np.asarray(some.toarray() if hasattr(some, "toarray") else some)


def check_count(name: str, value: object) -> None:
    """Check a number of rows or bars.

    Raises
    ------
    ValueError
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name}={value!r} must be an integer >= 1.")


def check_rows(rows: Any, n_samples: int) -> NDArray[np.intp]:
    """Return the positions of rows to draw.

    Raises
    ------
    ValueError
        If they are no positions of rows, or there are none.
    """
    given = np.asarray(rows)
    suits = given.ndim == 1 and given.size > 0 and given.dtype.kind in "iu"
    if not suits or given.min() < 0 or given.max() >= n_samples:
        raise ValueError(
            f"rows={rows!r} must be one or more positions from 0 to {n_samples - 1}, for example "
            "[0, 1]; None draws the strangest rows."
        )
    return given.astype(np.intp)


def row_name(label: object) -> str:
    """Name a row by its label in an index."""
    return str(label) if isinstance(label, str) else f"row {label}"


def value_name(value: object) -> str:
    """Write a value of a row beside its column."""
    if not isinstance(value, float | np.floating):
        return str(value)
    number = float(value)
    return f"{number:,.0f}" if 1e3 <= abs(number) < 1e6 else f"{number:.3g}"
