"""What the commands say on stderr: notes, warnings and errors, one line each."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any

from sklearn.exceptions import ConvergenceWarning

#: Names that a message shows.
SHOWN = 5

#: Warnings of libraries that tell a user of the command line nothing.
FOR_PROGRAMMERS = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, ResourceWarning)


class CommandError(Exception):
    """Something that a command was given is not usable; the message is one line."""

    status = 1


class UsageError(CommandError):
    """The command line is wrong, whatever is in the files."""

    status = 2


def say(kind: str, text: str) -> None:
    """Write one line to stderr."""
    line = " ".join(text.split())
    with suppress(BrokenPipeError):
        sys.stderr.write(f"skhebae: {kind}: {line}\n")
        sys.stderr.flush()


class Notes:
    """Remarks about what a command decided by itself.

    Parameters
    ----------
    quiet : bool
        Whether to keep them back.
    """

    def __init__(self, quiet: bool) -> None:
        self.quiet = quiet

    def add(self, text: str) -> None:
        """Write a remark."""
        if not self.quiet:
            say("note", text)


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Write warnings as lines without a place in the code, each text once."""
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        text = str(message)
        if issubclass(category, ConvergenceWarning):
            text = (
                "training stopped at --epochs before the loss had settled. Pass a larger number, "
                "or leave --epochs out."
            )
        if text not in seen:
            seen.add(text)
            say("warning", text)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        for category in FOR_PROGRAMMERS:
            warnings.simplefilter("ignore", category)
        # A model that was fitted to an array in Python takes columns by their places.
        warnings.filterwarnings("ignore", message="X has feature names, but")
        warnings.showwarning = show
        yield


def shown(names: Sequence[Any]) -> str:
    """Write the first few of some names."""
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(repr(str(name)) for name in names[:SHOWN]) + more


def close_to(name: str, names: Sequence[Any]) -> str:
    """Suggest a name that is meant, or list those that are there."""
    close = get_close_matches(name, [str(known) for known in names], n=1)
    return f"Did you mean {close[0]!r}?" if close else f"The known ones are {shown(names)}."
