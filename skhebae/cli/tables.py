"""The table of a fit, and later tables as its model takes them."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skhebae.cli.columns import (
    as_dates,
    as_fitted,
    as_numbers,
    as_text,
    as_truth,
    counts_rows,
    find_type,
    holds_truth,
    identifies_rows,
)
from skhebae.cli.files import require
from skhebae.cli.messages import CommandError, Notes, UsageError, close_to, shown
from skhebae.cli.models import autoencoder_of, noted
from skhebae.cli.reading import Raw, read_table

#: Name of a column of row names that has none.
NAMELESS = "row"

#: Kinds of columns whose values are text.
TEXTUAL = ("text", "category", "ordered")


@dataclass
class Table:
    """A table that is ready for a model.

    Attributes
    ----------
    frame : pandas.DataFrame
        The columns of the model.
    whole : pandas.DataFrame
        All columns of the file, those of the model with their types.
    index : pandas.Index or None
        Names of rows.
    weight : ndarray or None
    notes : dict
        What the model is to remember: `index`, `missing`, `decimal`, and `ignored` columns.
    """

    frame: Any
    whole: Any
    index: Any = None
    weight: Any = None
    notes: dict[str, Any] | None = None

    def labelled(self, result: Any) -> Any:
        """Return a frame with the names of rows as its index."""
        if self.index is not None:
            result.index = self.index.rename(self.index.name or NAMELESS)
        return result


def split_names(given: Sequence[str] | None, names: Sequence[str], option: str) -> list[str]:
    """Return columns that an option lists, separated by commas or by repeating it.

    Raises
    ------
    UsageError
        If one does not exist.
    """
    found: list[str] = []
    for text in given or ():
        found += [text] if text in names else [part.strip() for part in text.split(",")]
    for name in found:
        if name not in names:
            raise UsageError(f"{option}: no column {name!r}. {close_to(name, names)}")
    return found


def take_index(raw: Raw, name: str | None, *, needed: bool = True, keep: Any = ()) -> Any:
    """Take the names of rows out of a table, but leave a column that is in `keep`.

    Raises
    ------
    UsageError
        If the column does not exist, and the user asked for it.
    """
    if name is None or name == NAMELESS or (not needed and name not in raw.frame):
        return raw.index
    if name not in raw.frame:
        raise UsageError(f"--index: no column {name!r}. {close_to(name, list(raw.frame.columns))}")
    index = require("pandas").Index(raw.frame[name])
    if name not in keep:
        del raw.frame[name]
    return index


def read_for_fit(options: Namespace, notes: Notes) -> Table:
    """Read the table of a fit: choose columns, find their types, take out names and weights.

    Raises
    ------
    CommandError, UsageError
        If nothing is left to fit to, or an option names a column that does not exist.
    """
    # A name may have commas, so that only the header tells which names --text lists.
    text = {part for given in options.text or () for part in (given, *given.split(","))}
    text.add(options.index or "")
    raw = read_table(options.table, options, options.missing or [], text)
    for remark in raw.notes:
        notes.add(remark)
    index = take_index(raw, options.index)
    weight = take_weight(raw, options.weight)
    kept, naming = choose_columns(raw, options, notes)
    if not kept:
        raise CommandError(
            f"{raw.name} has no column left to fit to. These are left out: "
            f"{shown(list(raw.frame))}."
        )
    if index is None and naming:
        index = require("pandas").Index(raw.frame[naming[0]])
        notes.add(
            f"column {naming[0]!r} has a different text in nearly every row. It is left out of the "
            "fit and names the rows in the outputs."
        )
    ignored = [name for name in raw.frame.columns if name not in kept]
    remembered = {
        "index": None if index is None else str(index.name or NAMELESS),
        "missing": list(options.missing or []),
        "decimal": options.decimal,
        "ignored": ignored + ([options.weight] if options.weight else []),
    }
    frame = require("pandas").DataFrame(kept)
    return Table(frame, frame, index, weight, remembered)


def take_weight(raw: Raw, name: str | None) -> Any:
    """Take the weights of rows out of a table; None without a column of that name.

    Raises
    ------
    CommandError, UsageError
        If the column does not exist, or has gaps.
    """
    if name is None:
        return None
    split_names([name], list(raw.frame.columns), "--weight")
    series = raw.frame.pop(name)
    weight = convert(raw, series, None)
    if weight.isna().any():
        raise CommandError(f"the weight column {name!r} has missing values.")
    return weight.to_numpy(dtype=float)


def choose_columns(raw: Raw, options: Namespace, notes: Notes) -> tuple[dict[str, Any], list[str]]:
    """Return the columns to fit to with their types, and the names of those that name rows."""
    names = list(raw.frame.columns)
    asked = split_names(options.columns, names, "--columns")
    dropped = split_names(options.drop, names, "--drop")
    categories = split_names(options.text, names, "--text")
    kept: dict[str, Any] = {}
    naming: list[str] = []
    for name in asked or names:
        if name in dropped:
            continue
        series, remark = raw.frame[name], None
        if name in categories:
            series = as_text(series.astype(object).map(str, na_action="ignore"))
        elif raw.is_text:
            series, remark = find_type(series, raw.separator, raw.decimal)
        if not series.notna().any():
            notes.add(f"column {name!r} is left out, because it has no value.")
        elif name not in asked and identifies_rows(series):
            naming.append(name)
        else:
            kept[name] = series
            if remark is None and counts_rows(series):
                remark = f"column {name!r} numbers the rows. Pass --index {name} if it names them."
            if remark is not None:
                notes.add(remark)
    for name in naming[0 if options.index or raw.index is not None else 1 :]:
        notes.add(
            f"column {name!r} is left out, because it has a different text in nearly every row. "
            "Pass --columns to keep it."
        )
    return kept, naming


def has_comma(series: Any) -> bool:
    """Whether text of numbers has a comma."""
    return bool(series.dropna().astype(str).str.contains(",", regex=False).any())


def read_for_model(options: Namespace, model: Any, notes: Notes) -> Table:
    """Read a table with the columns and types of a model's fit.

    Raises
    ------
    CommandError
        If a column does not exist, or has other values.
    """
    known = noted(model)
    missing = [*known.get("missing", []), *(options.missing or [])]
    columns = autoencoder_of(model).fitted_.columns
    kinds = {} if columns is None else {str(item.name): item.kind for item in columns.items}
    text = {name for name, kind in kinds.items() if kind in TEXTUAL}
    text.add(options.index or str(known.get("index")))
    raw = read_table(options.table, options, missing, text)
    raw.decimal = raw.decimal or known.get("decimal")
    names = columns.names if columns is not None else getattr(model, "feature_names_in_", None)
    asked = options.index is not None
    name = options.index if asked else known.get("index")
    own = () if names is None else [str(name) for name in names]
    index = take_index(raw, name, needed=asked, keep=own)
    frame = raw.frame
    if names is None:
        if frame.shape[1] != model.n_features_in_:
            raise CommandError(
                f"{raw.name} has {frame.shape[1]} columns, and the model was fitted to "
                f"{model.n_features_in_} without names. Leave out others, or use --index."
            )
        names = list(frame.columns)
    absent = [name for name in names if str(name) not in frame]
    if absent:
        raise CommandError(
            f"{raw.name} lacks {len(absent)} of the model's {len(names)} columns: {shown(absent)}. "
            f"It has {shown(list(frame.columns))}."
        )
    more = [name for name in frame if name not in {*map(str, names), *known.get("ignored", [])}]
    if more and known:
        notes.add(f"columns that were not in the fit are ignored: {shown(more)}.")
    whole = frame.copy()
    for j, name in enumerate(names):
        column = None if columns is None else columns.items[j]
        whole[str(name)] = convert(raw, frame[str(name)], column)
    chosen = whole[[str(name) for name in names]]
    if columns is not None:
        chosen.columns = list(names)
    return Table(chosen, whole, index)


def convert(raw: Raw, series: Any, column: Any) -> Any:
    """Return a column with the type of the fit; numbers where the fit had nothing else."""
    decimal = raw.decimal or ("," if raw.separator != "," and has_text_comma(series) else ".")
    if column is not None:
        return as_fitted(series, column, decimal)
    if raw.is_text or series.dtype == object:
        # A fit in Python takes booleans as numbers.
        if holds_truth(series):
            return as_truth(series).astype(float)
        return as_numbers(series, decimal)
    return series


def has_text_comma(series: Any) -> bool:
    """Whether a column is text with a comma somewhere."""
    return series.dtype == object and has_comma(series)


def read_given(model: Any, given: Sequence[str]) -> dict[Any, Any] | None:
    """Return the values of columns that all rows of a sample have.

    Raises
    ------
    UsageError
        If one is not of the form COLUMN=VALUE, or no value of the column.
    """
    if not given:
        return None
    columns = autoencoder_of(model).fitted_.columns
    names = columns.names if columns is not None else getattr(model, "feature_names_in_", [])
    by_name = {str(name): name for name in names}
    values: dict[Any, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--given {text!r} is not of the form COLUMN=VALUE.")
        if name not in by_name:
            raise UsageError(f"--given: no column {name!r}. {close_to(name, list(by_name))}")
        column = None if columns is None else columns.items[columns.index(by_name[name])]
        values[by_name[name]] = read_value(value, name, column)
    return values


def read_value(text: str, name: str, column: Any) -> Any:
    """Return a value of a column from its text.

    Raises
    ------
    UsageError
    """
    pandas = require("pandas")
    if column is not None and column.levels is not None:
        by_text = {str(level): level for level in column.levels}
        if text not in by_text:
            raise UsageError(
                f"--given: {name!r} had no {text!r} in the fit. {close_to(text, list(by_text))}"
            )
        return by_text[text]
    series = pandas.Series([text], name=name, dtype=object)
    if column is not None and column.kind == "boolean":
        return text.lower() in ("true", "1")
    try:
        if column is not None and column.kind == "datetime":
            as_dates(series)
            return text
        return as_numbers(series).tolist()[0]
    except CommandError as error:
        raise UsageError(f"--given: {text!r} is not a value of the column {name!r}.") from error
