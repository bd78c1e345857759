"""Run a command, and turn whatever goes wrong into one line and an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

from skhebae.cli.arguments import make_parser
from skhebae.cli.commands import COMMANDS
from skhebae.cli.messages import CommandError, say, warnings_as_lines

#: Exit statuses as shells have them: 128 and the number of the signal.
INTERRUPTED, BROKEN_PIPE = 130, 141


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        Those of the process by default.

    Returns
    -------
    int
        The exit status: 0; 1 if a file or a value is not usable; 2 if the command line is wrong;
        130 after Ctrl-C; 141 if whoever reads the output has stopped reading.
    """
    try:
        options = make_parser().parse_args(arguments)
    except CommandError as error:
        say("error", str(error))
        return error.status
    except SystemExit as done:  # --help and --version
        return int(done.code or 0)
    try:
        with warnings_as_lines():
            COMMANDS[options.command](options)
            sys.stdout.flush()
    except KeyboardInterrupt:
        again = " The same command resumes from the checkpoint."
        with_checkpoint = getattr(options, "checkpoint", None) is not None
        say("interrupted", f"nothing was written.{again if with_checkpoint else ''}")
        return INTERRUPTED
    except BrokenPipeError:
        # Python would complain at exit, when it flushes what nobody reads.
        with suppress(OSError):  # stdout may be no file
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if options.traceback:
            raise
        say("error", describe(error))
        return error.status if isinstance(error, CommandError) else 1
    return 0


def describe(error: Exception) -> str:
    """Return one line about an error."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])  # str() would put it in quotes
    if isinstance(error, MemoryError):
        return (
            "the memory of this machine is too small. The table is read whole; use fewer rows or "
            "columns, or --backed for an .h5ad file."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{str(error.filename)!r}: {error.strerror}."
    expected = isinstance(error, CommandError | ValueError | TypeError | OSError | ArithmeticError)
    if expected or isinstance(error, ImportError):
        return str(error) or type(error).__name__
    return f"{type(error).__name__}: {error}. --traceback shows where."
