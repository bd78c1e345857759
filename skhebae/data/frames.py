"""Frames of pandas and polars as numbers and back; neither is imported before a frame is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skhebae.data.columns import Column, Columns, shown, sort_levels
from skhebae.data.frames_pandas import decode_pandas, encode_pandas, pandas_kind
from skhebae.data.frames_polars import decode_polars, encode_polars, polars_kind, polars_name
from skhebae.data.series import NANOSECONDS, FloatArray
from skhebae.exceptions import UnknownCategoryWarning, warn_caller

#: Types of categories, which a file can hold.
PLAIN = (str, int, float, bool)


def find_library(X: Any) -> str | None:
    """Return which library a frame is of, "pandas" or "polars"; None for anything else."""
    roots = {base.__module__.split(".")[0] for base in type(X).__mro__}
    for name in ("pandas", "polars"):
        if name in roots and not hasattr(X, "collect") and hasattr(X, "dtypes"):
            return name if hasattr(X, "columns") else None
    return None


def find_kinds(frame: Any, library: str) -> dict[Any, str]:
    """Return the kind of each column by its name.

    Raises
    ------
    ValueError
        If two columns have one name, or a column has a dtype that no family takes.
    """
    names = list(frame.columns)
    twins = sorted({str(name) for name in names if names.count(name) > 1})
    if twins:
        raise ValueError(
            f"X has several columns of one name: {shown(twins)}. Rename them, or pass the values "
            "without names."
        )
    find = pandas_kind if library == "pandas" else polars_kind
    return {name: find(column_of(frame, j, library)) for j, name in enumerate(names)}


def column_of(frame: Any, j: int, library: str) -> Any:
    """Return a column by its place."""
    return frame.iloc[:, j] if library == "pandas" else frame.to_series(j)


def measure_columns(
    frame: Any, library: str, kinds: Mapping[Any, str], families: Mapping[Any, Any]
) -> Columns:
    """Describe the columns of a frame.

    Parameters
    ----------
    frame : frame
    library : str
    kinds : mapping
        Kind of each column.
    families : mapping
        For each column its family, options, and whether its values are levels.
    """
    items = []
    for j, (name, kind) in enumerate(kinds.items()):
        series = column_of(frame, j, library)
        family, options, has_levels = families[name]
        levels, categories = find_levels(series, kind, library) if has_levels else (None, None)
        column = Column(
            name=name.item() if isinstance(name, np.generic) else name,
            kind=kind,
            dtype=str(series.dtype),
            family=family,
            options=dict(options),
            levels=levels,
            categories=categories,
        )
        values, _ = encode_column(frame, j, column, library)
        seen = values[~np.isnan(values)]
        if len(seen):
            column = Column(
                **{**column.pack(), "low": float(seen.min()), "high": float(seen.max())}
            )
        items.append(column)
    return Columns(library, tuple(items))


def find_levels(series: Any, kind: str, library: str) -> tuple[list[Any], list[Any] | None]:
    """Return the values of a column in their order, and all categories that its dtype has."""
    try:
        if library == "pandas":
            there = {plain(value) for value in series.dropna().unique()}
        else:
            there = set(series.drop_nulls().unique().to_list())
    except TypeError:
        raise ValueError(
            f"X has a column {series.name!r} of lists or other objects that are no categories. "
            "Drop it, or turn it into columns of plain values."
        ) from None
    categories = None
    if library == "pandas" and kind in ("category", "ordered"):
        categories = [plain(value) for value in series.cat.categories]
    elif library == "polars" and polars_name(series.dtype) == "Enum":
        categories = series.dtype.categories.to_list()
    odd = [value for value in categories or there if not isinstance(value, PLAIN)]
    if odd:
        raise ValueError(
            f"X has a column {series.name!r} with categories of type {type(odd[0]).__name__}. "
            "Turn them into text, or into numbers."
        )
    if categories is None:
        return sort_levels(there), None
    return [value for value in categories if value in there], categories


def plain(value: Any) -> Any:
    """Return a value as JSON can hold it, if it is a number of numpy."""
    return value.item() if isinstance(value, np.generic) else value


def encode_frame(frame: Any, columns: Columns, unknown: str = "warn") -> FloatArray:
    """Return a frame as numbers, NaN where a value is missing, (n, p).

    Parameters
    ----------
    frame : frame
    columns : Columns
        Those of the frame, in their order.
    unknown : {"warn", "error", "ignore"}
        What to do about categories that `fit` did not see, which count as missing.

    Raises
    ------
    ValueError
        If a column holds something else than in `fit`.

    Warns
    -----
    UnknownCategoryWarning
        About categories that `fit` did not see.
    """
    library = find_library(frame)
    rows = np.empty((len(frame), len(columns)), dtype=np.float64)
    found: dict[Any, list[Any]] = {}
    for j, column in enumerate(columns.items):
        rows[:, j], new = encode_column(frame, j, column, library or columns.library)
        if new:
            found[column.name] = new
    if found and unknown != "ignore":
        text = "; ".join(f"{name!r} has {shown(new)}" for name, new in found.items())
        message = f"X has categories that the rows of fit did not have: {text}."
        if unknown == "error":
            raise ValueError(f"{message} unknown_category='warn' takes them as missing.")
        warn_caller(
            f"{message} They count as missing values. Use unknown_category='error' or "
            "'ignore' to change this.",
            UnknownCategoryWarning,
        )
    return rows


def encode_column(frame: Any, j: int, column: Column, library: str) -> tuple[FloatArray, list[Any]]:
    """Return a column of a frame as numbers (n,), and the categories that `fit` did not see."""
    series = column_of(frame, j, library)
    encode = encode_pandas if library == "pandas" else encode_polars
    try:
        return encode(series, column)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise ValueError(
            f"X has a column {column.name!r} of dtype {series.dtype} that cannot be read as "
            f"{column.kind}, which it was in fit ({str(error)[:200]})."
        ) from error


def find_code(columns: Columns, name: Any, value: Any) -> float:
    """Return the number that stands for a value of a column.

    Raises
    ------
    ValueError
        If the column has no such category, or the value is no number.
    """
    column = columns.items[columns.index(name)]
    if column.levels is not None:
        if value in column.levels:
            return float(column.levels.index(value))
        raise ValueError(
            f"{value!r} is no category that {name!r} had in fit: {shown(column.levels)}."
        )
    number = number_of(value, column)
    if column.kind in ("integer", "boolean") and number != round(number):
        raise ValueError(f"{value!r} is no value of the column {name!r}, which is {column.kind}")
    return number


def number_of(value: Any, column: Column) -> float:
    """Return the number that stands for a value of a column without levels.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        if column.kind == "datetime":
            return float(np.datetime64(value, "ns").astype(np.int64) / NANOSECONDS)
        if isinstance(value, timedelta):
            return value.total_seconds()
        if not isinstance(value, str | date | datetime):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{value!r} is no value of the column {column.name!r}: {column.kind}.")


def decode_frame(rows: NDArray[np.floating[Any]], columns: Columns) -> Any:
    """Return numbers (n, p) as a frame with the names and dtypes of `fit`.

    Raises
    ------
    ModuleNotFoundError
        If the library of the frame is not installed here.
    """
    library = import_module(columns.library)
    decode = decode_pandas if columns.library == "pandas" else decode_polars
    series = [
        decode(np.asarray(rows[:, j], dtype=np.float64), column, library)
        for j, column in enumerate(columns.items)
    ]
    if columns.library == "polars":
        return library.DataFrame(series)
    frame = library.concat(series, axis=1) if series else library.DataFrame(index=range(len(rows)))
    frame.columns = columns.names
    return frame
