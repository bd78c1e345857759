"""Read a table as text or with the types of its file; what its columns mean comes later."""

from __future__ import annotations

import csv
import gzip
import io
import sys
import warnings
from argparse import Namespace
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skhebae.cli.files import STANDARD, check_input, require
from skhebae.cli.messages import CommandError, UsageError, shown

#: Marks of a missing value in CSV files.
MISSING = (
    *("", "NA", "N/A", "n/a", "NaN", "nan", "NAN", "-NaN", "-nan", "null", "NULL", "None"),
    *("#N/A", "#NA", "<NA>", "NaT", "#DIV/0!", "#VALUE!", "#REF!"),
)

#: Separators that are looked for, and bytes of a file in which they are.
SEPARATORS, LOOKED_AT = (",", ";", "\t", "|"), 65536

#: Beginnings of files in UTF-16.
UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass
class Raw:
    """A table as it was read.

    Attributes
    ----------
    frame : pandas.DataFrame
        Of text and of numbers with fractions where a CSV file was read, else with the types of the
        file.
    name : str
        Of the file, for messages.
    is_text : bool
    separator : str
        Of the CSV file.
    decimal : str or None
        Decimal mark, if the user gave it.
    index : pandas.Index or None
        Names of rows that the file itself marks as such.
    notes : list of str
    """

    frame: Any
    name: str
    is_text: bool = False
    separator: str = ","
    decimal: str | None = None
    index: Any = None
    notes: list[str] = field(default_factory=list)


def read_table(
    path: str, options: Namespace, missing: Sequence[str], text: Collection[str] = ()
) -> Raw:
    """Read a CSV or Parquet file whole.

    Parameters
    ----------
    path : str
    options : Namespace
        Of the command line.
    missing : sequence of str
        Marks of missing values in addition to `MISSING`.
    text : collection of str
        Columns that are text whatever is in them.

    Raises
    ------
    CommandError, UsageError
        If the file does not exist or is no such table.
    """
    kind = check_input(path)
    pandas = require("pandas")
    if kind == "parquet":
        raw = read_parquet(path, pandas)
    else:
        raw = read_csv(path, kind, options, missing, text, pandas)
    if not raw.frame.shape[1]:
        raise CommandError(f"{raw.name} has no columns.")
    if not len(raw.frame):
        raise CommandError(f"{raw.name} has no rows below its header.")
    return raw


def read_parquet(path: str, pandas: Any) -> Raw:
    """Read a Parquet file; its index, if it has one, names the rows.

    Raises
    ------
    CommandError
        If it is damaged or something else.
    """
    arrow = require("pyarrow")
    try:
        frame = pandas.read_parquet(path)
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise CommandError(f"{path!r} is not a readable Parquet file ({error}).") from error
    frame.columns = [str(name) for name in frame.columns]
    refuse_twins(list(frame.columns), path)
    index = None if isinstance(frame.index, pandas.RangeIndex) else frame.index
    return Raw(frame.reset_index(drop=True), repr(path), index=index)


def read_csv(
    path: str,
    kind: str,
    options: Namespace,
    missing: Sequence[str],
    text: Collection[str],
    pandas: Any,
) -> Raw:
    """Read a CSV file as text, with missing values where its fields are empty or marked.

    Raises
    ------
    CommandError, UsageError
        If it is no such table; with the place and the cure.
    """
    name = "stdin" if path == STANDARD else repr(path)
    source: Any = io.BytesIO(sys.stdin.buffer.read()) if path == STANDARD else path
    start = first_bytes(source)
    if not start:
        raise CommandError(f"{name} is empty.")
    encoding = options.encoding or ("utf-16" if start[:2] in UTF16 else "utf-8-sig")
    separator = find_separator(start, encoding, kind, options.separator, name)
    header, fields = first_rows(start, encoding, separator)
    marks = [*MISSING, *missing]
    names = check_header(header, fields, options.header, marks, name)
    settings: dict[str, Any] = {
        "sep": separator,
        "header": None if options.header is False else 0,
        "names": names,
        "index_col": False,
        "skip_blank_lines": len(names) > 1,  # else it is a missing value
        "na_values": marks,
        "keep_default_na": False,
        "skipinitialspace": True,
        "encoding": encoding,
    }
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            frame = read_fields(source, settings, text, pandas)
    except UnicodeError as error:
        raise wrong_encoding(name, encoding) from error
    except LookupError as error:
        raise UsageError(f"--encoding {encoding!r} is not known.") from error
    except pandas.errors.EmptyDataError as error:
        raise CommandError(f"{name} has no rows below its header.") from error
    except (ValueError, pandas.errors.ParserWarning) as error:
        what = str(error).removeprefix("Error tokenizing data. C error: ").strip()
        if isinstance(error, pandas.errors.ParserWarning):
            what = "rows have more fields than the first line"
        raise CommandError(
            f"{name} is not a readable CSV file with the separator {separator!r} ({what}). Pass "
            "--separator if it is another."
        ) from error
    raw = Raw(frame, name, True, separator, options.decimal)
    if "" in names:
        raw.index = pandas.Index(frame.pop("").fillna(""))
        raw.notes.append("the first column has no name and is taken as the names of rows.")
    return raw


def read_fields(source: Any, settings: dict[str, Any], text: Collection[str], pandas: Any) -> Any:
    """Read fields as text, but columns of numbers with fractions as numbers, which is quick.

    Whole numbers may be codes, such as 007, which only their text shows.
    """
    names = settings["names"]
    as_text = {name: str for name in [*text, ""] if name in names}
    frame = pandas.read_csv(
        source, dtype=as_text, float_precision="round_trip", low_memory=False, **settings
    )
    places = [
        j for j, name in enumerate(names) if name in as_text or not has_fractions(frame[name])
    ]
    if places:
        if isinstance(source, io.BytesIO):
            source.seek(0)
        fields = pandas.read_csv(source, dtype=str, usecols=places, **settings)
        for j in places:
            frame[names[j]] = fields[names[j]].astype(object)
    return frame


def has_fractions(series: Any) -> bool:
    """Whether a column has numbers that are not all whole."""
    if series.dtype != np.float64:
        return False
    values = series.dropna().to_numpy()
    return bool((values != np.trunc(values)).any())


def first_bytes(source: Any) -> bytes:
    """Return the beginning of a file, unpacked."""
    if isinstance(source, io.BytesIO):
        start = source.read(LOOKED_AT)
        source.seek(0)
        return start
    opener: Any = gzip.open if source.lower().endswith(".gz") else open
    try:
        with opener(source, "rb") as file:
            start = file.read(LOOKED_AT)
    except (gzip.BadGzipFile, EOFError) as error:
        raise CommandError(f"{source!r} is not a readable gzip file ({error}).") from error
    return bytes(start)


def whole_lines(start: bytes, encoding: str) -> list[str]:
    """Return lines of the beginning of a file, without the last if it may be cut."""
    text = start.decode(encoding, errors="replace")
    lines = text.splitlines(keepends=True)
    return lines[:-1] if len(start) == LOOKED_AT and len(lines) > 1 else lines


def find_separator(start: bytes, encoding: str, kind: str, given: str | None, name: str) -> str:
    """Return the separator that splits the first rows into the same, and largest, number of fields.

    Raises
    ------
    CommandError, UsageError
        If it is not one character, or the file is no text.
    """
    if given is not None:
        given = {"\\t": "\t", "tab": "\t"}.get(given, given)
        if len(given) != 1:
            raise UsageError(f"--separator {given!r} is not one character; tab is 'tab'.")
        return given
    if b"\0" in start and encoding not in ("utf-16", "utf-32"):
        raise CommandError(f"{name} is not a text file.")
    if kind == "tsv":
        return "\t"
    try:
        lines = whole_lines(start, encoding)
    except LookupError as error:
        raise UsageError(f"--encoding {encoding!r} is not known.") from error

    def quality(separator: str) -> tuple[bool, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=separator) if row][:50]
        # R writes one name less than there are fields.
        same = len(set(counts[1:])) <= 1 and counts[0] in (counts[-1], counts[-1] - 1)
        return same and counts[-1] > 1, counts[0]

    best = max(SEPARATORS, key=quality)
    return best if quality(best)[1] > 1 else ","


def first_rows(start: bytes, encoding: str, separator: str) -> tuple[list[str], int]:
    """Return the fields of the first row, and the number of those of the second."""
    try:
        reader = csv.reader(
            whole_lines(start, encoding), delimiter=separator, skipinitialspace=True
        )
        rows = [row for _, row in zip(range(2), (row for row in reader if row), strict=False)]
    except csv.Error as error:
        raise CommandError(f"cannot read the first line ({error}).") from error
    header = [field.strip() for field in rows[0]] if rows else []
    return header, len(rows[1]) if len(rows) > 1 else len(header)


def check_header(
    header: list[str], fields: int, asked: bool | None, marks: Sequence[str], name: str
) -> list[str]:
    """Return the names of columns, "" for the names of rows.

    Raises
    ------
    CommandError
        If names are missing, not unique, or look like values.
    """
    if asked is False:
        return [f"column_{j}" for j in range(1, len(header) + 1)]
    if fields == len(header) + 1:  # as R writes the names of rows
        header = ["", *header]
    refuse_twins([text for text in header if text], name)
    nameless = [j for j, text in enumerate(header) if not text]
    if nameless not in ([], [0]):
        raise CommandError(f"{name} has no name for column {nameless[-1] + 1} in its first line.")
    if asked is None and all(is_number(text) or text in marks for text in header if text):
        raise CommandError(
            f"the first line of {name} has numbers where the names of columns should be. Pass "
            "--no-header if it is a row of values, or --header if these are names."
        )
    return header


def refuse_twins(names: list[str], source: str) -> None:
    """Refuse columns of one name.

    Raises
    ------
    CommandError
    """
    twins = [name for name, times in Counter(names).items() if times > 1]
    if twins:
        raise CommandError(
            f"{source} has several columns with the same name: {shown(twins)}. Rename them."
        )


def is_number(text: str) -> bool:
    """Whether text is a number."""
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def wrong_encoding(name: str, encoding: str) -> CommandError:
    """Make an error about bytes that are no text in an encoding."""
    spoken = "UTF-8" if encoding == "utf-8-sig" else encoding
    return CommandError(
        f"{name} is not text in {spoken}. Pass --encoding, for example --encoding cp1252 for a "
        "file of Excel, or save it as UTF-8."
    )
