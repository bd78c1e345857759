"""Columns of polars as numbers and back."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import numpy as np

from skhebae.data.columns import Column, sort_levels
from skhebae.data.series import FloatArray, finite, refused, seconds

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


def polars_kind(series: Any) -> str:
    """Return the kind of a series of polars."""
    if series.dtype.is_integer():
        return "integer"
    kind = POLARS.get(polars_name(series.dtype))
    if kind is None:
        raise refused(series.name, series.dtype)
    return kind


def polars_name(dtype: Any) -> str:
    """Return the name of a data type of polars without its parameters."""
    return str(dtype).split("(")[0]


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
