"""Columns of pandas and polars as numbers and back; neither library is imported before a frame is.

The libraries differ in how they name dtypes and mark missing values, and in nothing else here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skhebae.data.columns import Column, Columns, shown, sort_levels

FloatArray = NDArray[np.float64]

#: Nanoseconds per second.
NANOSECONDS = 1e9

#: Types of categories, which a file can hold.
PLAIN = (str, int, float, bool)

#: Kinds by what pandas infers of a column of Python objects.
INFERRED = {
    "integer": "integer",
    "floating": "float",
    "mixed-integer-float": "float",
    "decimal": "float",
    "boolean": "boolean",
    "datetime64": "datetime",
    "datetime": "datetime",
    "date": "datetime",
    "timedelta64": "timedelta",
    "timedelta": "timedelta",
    "string": "text",
    "mixed-integer": "text",
    "mixed": "text",
    "empty": "float",
}

#: Kinds of the data types of polars.
POLARS = {
    "Boolean": "boolean",
    "Float32": "float",
    "Float64": "float",
    "Decimal": "float",
    "Null": "float",
    "String": "text",
    "Utf8": "text",
    "Categorical": "category",
    "Enum": "category",
    "Date": "datetime",
    "Datetime": "datetime",
    "Duration": "timedelta",
}


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


def pandas_kind(series: Any) -> str:
    """Return the kind of a series of pandas."""
    pandas = import_module("pandas")
    dtype, types = series.dtype, pandas.api.types
    if isinstance(dtype, pandas.CategoricalDtype):
        return "ordered" if dtype.ordered else "category"
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_integer_dtype(dtype):
        return "integer"
    if types.is_float_dtype(dtype):
        return "float"
    if types.is_datetime64_any_dtype(dtype) or isinstance(dtype, pandas.PeriodDtype):
        return "datetime"
    if types.is_timedelta64_dtype(dtype):
        return "timedelta"
    if isinstance(dtype, pandas.StringDtype):
        return "text"
    inferred = types.infer_dtype(series, skipna=True)
    if inferred in INFERRED and not types.is_complex_dtype(dtype):
        return INFERRED[inferred]
    raise refused(series.name, dtype)


def polars_kind(series: Any) -> str:
    """Return the kind of a series of polars."""
    if series.dtype.is_integer():
        return "integer"
    kind = POLARS.get(polars_name(series.dtype))
    if kind is None:
        raise refused(series.name, series.dtype)
    return kind


def refused(name: Any, dtype: Any) -> ValueError:
    """Return the error for a column that no family takes."""
    return ValueError(
        f"X has a column {name!r} of dtype {dtype}, which is neither a number, a category, text, "
        "a boolean nor a date. Convert it, or drop the column."
    )


def polars_name(dtype: Any) -> str:
    """Return the name of a data type of polars without its parameters."""
    return str(dtype).split("(")[0]


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


def encode_pandas(series: Any, column: Column) -> tuple[FloatArray, list[Any]]:
    """Return a series of pandas as numbers, and the categories that `fit` did not see."""
    pandas = import_module("pandas")
    missing = series.isna().to_numpy()
    if column.levels is not None:
        lookup = {level: float(i) for i, level in enumerate(column.levels)}
        objects = series.astype(object)
        codes = objects.map(lookup).to_numpy(dtype=np.float64, na_value=np.nan)
        new = objects[np.isnan(codes) & ~missing].unique().tolist()
        return codes, new
    if column.kind == "datetime":
        if isinstance(series.dtype, pandas.PeriodDtype):
            series = series.dt.to_timestamp()
        times = pandas.to_datetime(series, utc=True).to_numpy(dtype="datetime64[ns]")
        return seconds(times.astype(np.int64), missing), []
    if column.kind == "timedelta":
        spans = pandas.to_timedelta(series).to_numpy(dtype="timedelta64[ns]")
        return seconds(spans.astype(np.int64), missing), []
    if series.dtype == object:
        series = series.where(~missing, np.nan).astype(np.float64)
    return finite(series.to_numpy(dtype=np.float64, na_value=np.nan)), []


def encode_polars(series: Any, column: Column) -> tuple[FloatArray, list[Any]]:
    """Return a series of polars as numbers, and the categories that `fit` did not see."""
    polars = import_module("polars")
    if column.levels is not None:
        if column.kind in ("text", "category"):
            series = series.cast(polars.String)
        lookup = {level: float(i) for i, level in enumerate(column.levels)}
        values = series.to_list()
        codes = np.array([lookup.get(value, np.nan) for value in values], dtype=np.float64)
        new = {v for v, code in zip(values, codes, strict=True) if v is not None and code != code}
        return codes, sort_levels(new)
    if column.kind in ("datetime", "timedelta"):
        unit = polars.Datetime if column.kind == "datetime" else polars.Duration
        missing = series.is_null().to_numpy()
        numbers = series.cast(unit("ns")).to_physical().fill_null(0).to_numpy()
        return seconds(numbers, missing), []
    numbers = series.cast(polars.Float64).fill_null(np.nan).to_numpy()
    return finite(np.array(numbers, dtype=np.float64)), []


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


def decode_columns(rows: NDArray[np.floating[Any]], columns: Columns) -> Any:
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


def decode_pandas(values: FloatArray, column: Column, pandas: Any) -> Any:
    """Return numbers as a series of pandas with the dtype of `fit`."""
    missing = np.isnan(values)
    filled = np.where(missing, 0.0, values)
    if column.kind in ("category", "ordered"):
        assert column.categories is not None
        if column.levels is not None:
            place = {level: i for i, level in enumerate(column.categories)}
            codes = np.array([place[level] for level in column.levels])[filled.astype(np.intp)]
            codes[missing] = -1
            made = pandas.Categorical.from_codes(
                codes, categories=column.categories, ordered=column.kind == "ordered"
            )
            return pandas.Series(made)
    if column.levels is not None:
        levels = np.empty(len(column.levels) + 1, dtype=object)
        levels[:-1] = column.levels
        levels[-1] = None if column.dtype == "object" else pandas.NA
        chosen = levels[np.where(missing, len(column.levels), filled.astype(np.intp))]
        if column.kind == "float":
            return pandas.Series(chosen).astype(np.float64).astype(column.dtype)
        return pandas.Series(chosen, dtype=column.dtype)
    if column.kind == "datetime":
        return decode_times(filled, missing, column, pandas)
    if column.kind == "timedelta":
        spans = np.rint(filled * NANOSECONDS).astype("timedelta64[ns]")
        spans[missing] = np.timedelta64("NaT")
        series = pandas.Series(spans)
        return series if column.dtype == "object" else series.astype(column.dtype)
    if column.kind == "boolean":
        series = pandas.Series(filled >= 0.5)
        if missing.any():
            series = series.astype("boolean" if column.dtype == "boolean" else object)
            series[missing] = pandas.NA if column.dtype == "boolean" else None
            return series
        return series.astype(column.dtype)
    if column.kind == "integer":
        series = pandas.Series(np.rint(values))
        if missing.any() and column.dtype.islower():
            return series  # numpy's integers cannot be missing
        return series.astype("Int64" if missing.any() else np.int64).astype(column.dtype)
    return pandas.Series(values).astype(column.dtype)


def decode_times(
    filled: FloatArray, missing: NDArray[np.bool_], column: Column, pandas: Any
) -> Any:
    """Return seconds as a series of pandas with the dtype of dates of `fit`."""
    times = np.rint(filled * NANOSECONDS).astype("datetime64[ns]")
    times[missing] = np.datetime64("NaT")
    series = pandas.Series(times)
    if column.dtype.startswith("period["):
        return series.dt.to_period(column.dtype[len("period[") : -1])
    if column.dtype == "object":
        return series
    zone = re.fullmatch(r"datetime64\[\w+, (.+)\]", column.dtype)
    if zone is not None:
        series = series.dt.tz_localize("UTC").dt.tz_convert(zone.group(1))
    return series.astype(column.dtype)


def decode_polars(values: FloatArray, column: Column, polars: Any) -> Any:
    """Return numbers as a series of polars with the data type of `fit`."""
    missing, name = np.isnan(values), column.name
    dtype = polars_dtype(column, polars)
    if column.levels is not None:
        chosen = [
            None if lost else column.levels[int(value)]
            for value, lost in zip(np.where(missing, 0.0, values), missing, strict=True)
        ]
        return polars.Series(name, chosen, dtype=dtype)
    series = polars.Series(name, np.where(missing, 0.0, values))
    if column.kind in ("datetime", "timedelta"):
        per_second = {"ns": 1e9, "us": 1e6, "ms": 1e3}
        unit = getattr(dtype, "time_unit", None)
        plain_dtype = polars.Int64
        if unit is None:  # a date
            numbers = np.floor(series.to_numpy() / 86400.0)
            plain_dtype = polars.Int32
        else:
            numbers = np.rint(series.to_numpy() * per_second[unit])
        series = polars.Series(name, numbers).cast(plain_dtype)
    elif column.kind == "boolean":
        series = series >= 0.5
    elif column.kind == "integer":
        series = series.round().cast(polars.Int64)
    series = series.cast(dtype)
    if missing.any():
        series = polars.select(
            polars.when(polars.Series(~missing)).then(series).otherwise(None).alias(name)
        ).to_series()
    return series


def polars_dtype(column: Column, polars: Any) -> Any:
    """Return the data type of polars that a column had in `fit`."""
    name = column.dtype.split("(")[0]
    if name == "Enum":
        return polars.Enum(column.categories)
    if name in ("Categorical", "Null"):
        return polars.Categorical if name == "Categorical" else polars.Float64
    if name == "Datetime":
        found = re.search(r"time_unit='(\w+)', time_zone=(?:'(.+)'|None)", column.dtype)
        assert found is not None
        return polars.Datetime(found.group(1), found.group(2))
    if name == "Duration":
        found = re.search(r"time_unit='(\w+)'", column.dtype)
        assert found is not None
        return polars.Duration(found.group(1))
    if name == "Decimal":
        numbers = re.findall(r"\d+", column.dtype)
        return polars.Decimal(*map(int, numbers))
    return getattr(polars, name)
