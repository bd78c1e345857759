"""Columns of pandas as numbers and back."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skhebae.data.columns import Column
from skhebae.data.series import NANOSECONDS, FloatArray, finite, refused, seconds

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
