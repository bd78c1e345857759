"""Types of columns: found in the table of a fit, and those of the fit in later tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from skhebae.cli.files import require
from skhebae.cli.messages import CommandError

#: Text of numbers, of whole numbers, and of whole numbers that are codes or too long to count.
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?i:inf|infinity)"
COMMA_NUMBER = r"[+-]?(?:\d+,?\d*|,\d+)(?:[eE][+-]?\d+)?"
WHOLE, WHOLE_POINT = r"[+-]?\d+", r"[+-]?\d+(?:[.,]0+)?"
CODE = r"[+-]?0\d+|[+-]?\d{16,}"

#: Text of dates, as ISO 8601 writes them.
DATE = r"\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?"

#: Text of dates with points, which have the day first everywhere.
DOTTED_DATE = r"\d{1,2}\.\d{1,2}\.\d{4}"

#: Text with so many different values gets a note: it may be dates or numbers that were not read.
MANY_VALUES = 50

#: Text of truth.
TRUTH = {"true": True, "false": False}

#: Share of values that no other row has from which text identifies rows, and fewest such rows.
IDENTIFYING, FEWEST_NAMES = 0.9, 10


def find_type(series: Any, separator: str, decimal: str | None) -> tuple[Any, str | None]:
    """Return a column of text with the type that its values have, and a remark, if any.

    Parameters
    ----------
    series : pandas.Series
        Of text; what was read as numbers stays so.
    separator : str
        Of the file: only where it is no comma can numbers have one.
    decimal : str or None
        Decimal mark; None to find it.
    """
    if series.dtype != object:
        return series, None
    text = require("pandas").Series(series.dropna().unique(), dtype=object).str.strip()
    if not len(text):
        return series.astype(np.float64), None
    if text.str.fullmatch(WHOLE).all() and text.str.fullmatch(CODE).any():
        return as_text(series), (
            f"column {series.name!r} is read as categories, because it has numbers that begin with "
            "0 or have 16 digits and more, as codes do."
        )
    for mark in marks_of(separator, decimal):
        if text.str.fullmatch(COMMA_NUMBER if mark == "," else NUMBER).all():
            has_comma = mark == "," and decimal is None
            note = f"column {series.name!r} is read with a decimal comma." if has_comma else None
            return as_numbers(series, mark), note
    if holds_truth(series):
        return as_truth(series), None
    if text.str.fullmatch(DATE).all():
        return as_dates(series), None
    if text.str.fullmatch(DOTTED_DATE).all() and parse_dates(text).notna().all():
        return as_dates(series), f"column {series.name!r} is read as dates, day before month."
    if len(text) > MANY_VALUES:
        return as_text(series), (
            f"column {series.name!r} is read as text with {len(text)} different values, such as "
            f"{text.iloc[0]!r}. Dates are read in the form 2024-01-31. --drop leaves it out."
        )
    return as_text(series), None


def marks_of(separator: str, decimal: str | None) -> Sequence[str]:
    """Return the decimal marks that a column may have."""
    if decimal is not None:
        return [decimal]
    return ["."] if separator == "," else [".", ","]


def as_text(series: Any) -> Any:
    """Return a column of text, None where a value is missing."""
    return series.astype(object).where(series.notna(), None)


def as_numbers(series: Any, mark: str = ".") -> Any:
    """Return a column of numbers, of integers if all are whole.

    Numbers that are all whole, but written with a point, count as integers only beside gaps, where
    pandas and others write them so.

    Raises
    ------
    CommandError
        Naming a value that is none.
    """
    if series.dtype != object:
        return series
    pandas = require("pandas")
    places, values = pandas.factorize(series)  # a gap has the place -1
    text = pandas.Series(values, dtype=object).astype(str).str.strip()
    odd = ~text.str.fullmatch(COMMA_NUMBER if mark == "," else NUMBER)
    if odd.any():
        refuse_odd(series, series.isin(values[odd.to_numpy(dtype=bool)]), "a number")
    has_gaps = bool((places < 0).any())
    whole = bool(len(text)) and text.str.fullmatch(WHOLE_POINT if has_gaps else WHOLE).all()
    numbers = text.str.replace(",", ".", regex=False).astype(np.float64)
    chosen = np.append(numbers.to_numpy(), np.nan)[places]
    result = pandas.Series(chosen, index=series.index, name=series.name)
    if not whole or numbers.abs().max() >= 2**53:
        return result
    return result.astype(pandas.Int64Dtype() if has_gaps else np.int64)


def holds_truth(series: Any) -> bool:
    """Whether all values of a column, if it has any, are the text "true" or "false"."""
    values = [str(value).strip().lower() for value in series.dropna().unique()]
    return bool(values) and all(value in TRUTH for value in values)


def as_truth(series: Any) -> Any:
    """Return a column of booleans.

    Raises
    ------
    CommandError
        Naming a value that is none.
    """
    text = series.dropna().astype(str).str.strip().str.lower()
    known = {**TRUTH, "1": True, "0": False, "1.0": True, "0.0": False}
    refuse_odd(text, ~text.isin(known), "true or false")
    values = text.map(known)
    if len(values) == len(series):
        return values.astype(bool)
    return values.astype("boolean").reindex(series.index)


def as_dates(series: Any) -> Any:
    """Return a column of dates.

    Raises
    ------
    CommandError
        Naming a value that is none.
    """
    text = series.astype(object)
    dates = parse_dates(text)
    refuse_odd(text, dates.isna() & series.notna(), "a date such as 2024-01-31")
    return dates


def parse_dates(text: Any) -> Any:
    """Return dates, those of ISO 8601 or all with points, and NaT where there is none."""
    to_datetime = require("pandas").to_datetime
    values = text.dropna().astype(str).str.strip()
    if len(values) and values.str.fullmatch(DOTTED_DATE).all():
        return to_datetime(text, format="%d.%m.%Y", errors="coerce")
    zoned = values.str.contains(r"(?:Z|[+-]\d{2}:?\d{2})$").any()
    return to_datetime(text, format="ISO8601", errors="coerce", utc=bool(zoned))


def refuse_odd(series: Any, odd: Any, what: str) -> None:
    """Refuse values that cannot be read, naming one.

    Raises
    ------
    CommandError
    """
    if odd.any():
        value = str(series[odd].iloc[0])[:80]
        raise CommandError(
            f"column {series.name!r} has {value!r} in row {series.index[odd][0] + 1}, which is not "
            f"{what}. If it marks a missing value, pass --missing {value!r}."
        )


def identifies_rows(series: Any) -> bool:
    """Whether a column of text has another value in nearly every row, as names have."""
    values = series.dropna()
    if series.dtype != object or len(values) < FEWEST_NAMES:
        return False
    return bool((~values.duplicated(keep=False)).mean() >= IDENTIFYING)


def counts_rows(series: Any) -> bool:
    """Whether a column numbers the rows."""
    if getattr(series.dtype, "kind", "O") not in "iu" or series.isna().any() or len(series) < 3:
        return False
    return bool((np.diff(series.to_numpy(dtype=np.int64)) == 1).all())


def as_fitted(series: Any, column: Any, decimal: str) -> Any:
    """Return a column with the type that it had in the fit.

    Parameters
    ----------
    series : pandas.Series
        Of text, or with the type of its file.
    column : skhebae.data.Column
        What the model knows about it.
    decimal : str
        Decimal mark of text.
    """
    if column.levels is not None and column.kind not in ("float", "integer", "boolean"):
        return as_levels(series, column)
    is_text = series.dtype == object or str(series.dtype).startswith(("str", "large_string"))
    if not is_text:
        return series
    if column.kind in ("float", "integer"):
        return as_numbers(series, decimal)
    if column.kind == "boolean":
        return as_truth(series)
    if column.kind == "datetime":
        return as_dates(series)
    if column.kind == "timedelta":
        return require("pandas").to_timedelta(series)
    return series


def as_levels(series: Any, column: Any) -> Any:
    """Return categories as the fit had them: a 7 that was read as a number is the text "7"."""
    known = column.categories or column.levels or []
    by_text = {str(level): level for level in known}
    objects = series.astype(object)

    def level_of(value: Any) -> Any:
        if value in known or value is None or value != value:
            return value
        if isinstance(value, float) and value.is_integer() and str(int(value)) in by_text:
            return by_text[str(int(value))]
        return by_text.get(str(value), str(value))

    observed = objects[series.notna()]
    replaced = {value: level_of(value) for value in observed.unique()}
    return observed.map(replaced).reindex(series.index).where(series.notna(), None)
