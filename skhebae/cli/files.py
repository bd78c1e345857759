"""Which files the commands read and write, by their suffixes."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from skhebae.cli.messages import CommandError, UsageError
from skhebae.files import write_file

#: Formats by suffix.
FORMATS = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "tsv",
    ".tsv.gz": "tsv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".h5ad": "h5ad",
}

#: Suffixes as messages name them.
KNOWN = ".csv, .tsv, .csv.gz, .tsv.gz, .parquet or .h5ad"

#: Stands for stdin and stdout.
STANDARD = "-"


def suffix_of(path: str) -> str:
    """Return the suffix of a file name, that of compression included, in lower case."""
    name = Path(path).name.lower()
    return next((s for s in sorted(FORMATS, key=len, reverse=True) if name.endswith(s)), "")


def format_of(path: str, role: str) -> str:
    """Return the format of a file: "csv", "tsv", "parquet" or "h5ad".

    Raises
    ------
    UsageError
        If its suffix says nothing.
    """
    if path == STANDARD:
        return "csv"
    suffix = suffix_of(path)
    if not suffix:
        found = Path(path).suffix
        what = f"the suffix {found!r}" if found else "no suffix"
        raise UsageError(f"{role} {path!r} has {what}. Use {KNOWN}.")
    return FORMATS[suffix]


def check_input(path: str) -> str:
    """Return the format of a table that is to be read.

    Raises
    ------
    CommandError, UsageError
        If it does not exist, is a folder, or has an unknown suffix.
    """
    if path != STANDARD:
        if os.path.isdir(path):
            raise CommandError(f"{path!r} is a folder, not a table.")
        if not os.path.exists(path):
            raise CommandError(f"{path!r} does not exist.")
    return format_of(path, "the table")


def check_output(path: str, *, force: bool) -> None:
    """Refuse to write where a file is, or where none can be; before the work is done.

    Raises
    ------
    CommandError
        With the cure.
    """
    if path == STANDARD:
        return
    if os.path.isdir(path):
        raise CommandError(f"the output {path!r} is a folder. Name a file.")
    if os.path.exists(path) and not force:
        raise CommandError(f"the output {path!r} exists. Pass --force to overwrite it.")
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise CommandError(f"no folder {folder!r} for the output {path!r}. Create it first.")
    if not os.access(folder, os.W_OK):
        raise CommandError(f"the folder {folder!r} of the output {path!r} cannot be written to.")


@contextmanager
def complete_file(path: str) -> Iterator[str]:
    """Yield the name of a file beside `path` that takes its place if the block succeeds.

    For libraries that write to a path; where there are bytes, `write_file` does more.
    """
    target = os.path.realpath(path)
    # The suffix stays, because pandas takes the compression from it.
    beside = os.path.join(
        os.path.dirname(target), f".{secrets.token_hex(4)}-{os.path.basename(target)}"
    )
    try:
        yield beside
        os.replace(beside, target)
    finally:
        with suppress(FileNotFoundError):
            os.remove(beside)


def write_frame(frame: Any, path: str, *, has_index: bool) -> None:
    """Write a frame of pandas in the format of the suffix, or as CSV to stdout."""
    if path == STANDARD:
        frame.to_csv(sys.stdout, index=has_index, lineterminator="\n")
        return
    kind = FORMATS[suffix_of(path)]
    with complete_file(path) as beside:
        if kind == "parquet":
            require("pyarrow")
            frame.to_parquet(beside, index=has_index)
        else:
            separator = "\t" if kind == "tsv" else ","
            frame.to_csv(beside, index=has_index, sep=separator)


def write_text(text: str, path: str) -> None:
    """Write text to a file or to stdout."""
    if not text.endswith("\n"):
        text += "\n"
    if path == STANDARD:
        sys.stdout.write(text)
        return
    write_file(path, [text.encode()])


def require(name: str) -> Any:
    """Import an optional package.

    Raises
    ------
    CommandError
        Naming the extra, if it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        extra = "anndata" if name == "anndata" else "cli"
        raise CommandError(
            f"this needs {name}, which is not installed: python -m pip install 'skhebae[{extra}]'."
        ) from error
