"""The options of the commands."""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

import skhebae
from skhebae.cli.messages import UsageError

DESCRIPTION = """\
Fit an autoencoder to a table, and use it: codes, missing values, new rows, scores.

  skhebae fit table.csv -o model
  skhebae transform model table.csv -o codes.csv

Tables are .csv, .tsv (also .gz), .parquet or .h5ad files; - is CSV from stdin or to stdout."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise instead of printing the usage and leaving.

        Raises
        ------
        UsageError
        """
        raise UsageError(f"{message}. See {self.prog} --help.")


def make_parser() -> Parser:
    """Make the parser of all commands."""
    parser = Parser(
        prog="skhebae",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"skhebae {skhebae.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="command", required=True)
    add_fit(commands)
    add_use(commands, "transform", "Write the codes of rows.")
    impute = add_use(commands, "impute", "Fill in the missing values of a table.")
    impute.add_argument("--draws", type=positive, metavar="N", help="write N completed copies")
    add_seed(impute)
    add_sample(commands)
    add_use(commands, "score", "Write how typical each row is, a likelihood bound in nats.")
    denoise = add_use(commands, "denoise", "Write the decoded means of cells (.h5ad).")
    denoise.add_argument("--batch", metavar="LABEL", help='batch to decode for, or "average"')
    add_card(commands)
    return parser


def add_common(parser: Parser) -> None:
    """Add what all commands take."""
    parser.add_argument("--force", action="store_true", help="overwrite the output if it exists")
    parser.add_argument("--quiet", action="store_true", help="no notes and no progress")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")


def add_command(commands: Any, name: str, text: str) -> Parser:
    """Add a command."""
    parser: Parser = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
    add_common(parser)
    return parser


def add_reading(parser: Parser, *, is_fit: bool) -> None:
    """Add how a table is read."""
    group = parser.add_argument_group("reading the table")
    group.add_argument("--index", metavar="COLUMN", help="names of rows, carried to the outputs")
    group.add_argument(
        "--missing", action="append", metavar="MARK", help="also read this text as a missing value"
    )
    group.add_argument("--separator", metavar="CHAR", help="between fields; found by default")
    group.add_argument("--decimal", choices=[".", ","], help="decimal mark; found by default")
    group.add_argument("--encoding", default=None, help="of a CSV file; UTF-8 by default")
    group.add_argument(
        "--header",
        action=argparse.BooleanOptionalAction,
        help="whether the first line of a CSV file has the names of columns",
    )
    cells = parser.add_argument_group("cells (.h5ad)")
    cells.add_argument("--layer", metavar="NAME", help="layer with the counts; X for the matrix X")
    cells.add_argument("--backed", action="store_true", help="leave the matrix on disk")
    if is_fit:
        cells.add_argument(
            "--batch-key", metavar="COLUMN", help="column of obs with the batch of each cell"
        )
        cells.add_argument(
            "--size-factor-key", metavar="COLUMN", help="column of obs with size factors"
        )
        cells.add_argument(
            "--mask-var", metavar="COLUMN", help="column of var that marks the genes to use"
        )


def add_output(parser: Parser, text: str) -> None:
    """Add where results go."""
    parser.add_argument("-o", "--output", metavar="FILE", help=text)


def add_seed(parser: Parser) -> None:
    """Add the seed."""
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="seed of random numbers; 0 by default"
    )


def add_fit(commands: Any) -> None:
    """Add `fit`."""
    parser = add_command(commands, "fit", "Fit a model to a table and save it.")
    parser.add_argument("table", help=".csv, .tsv, .parquet or .h5ad file")
    add_output(parser, "model file, by default the table's name with .skhebae")
    parser.add_argument(
        "--method", choices=["hebae", "vae", "wae"], default="hebae", help="kind of autoencoder"
    )
    parser.add_argument("--novelty", action="store_true", help="fit a detector of strange rows")
    parser.add_argument(
        "--components", type=components, default=10, metavar="N", help="dimensions of the codes"
    )
    parser.add_argument(
        "--likelihood",
        action="append",
        metavar="[COLUMN=]FAMILY",
        help="family of all columns, or of one, for example age=gaussian",
    )
    parser.add_argument("--columns", action="append", metavar="A,B", help="use only these columns")
    parser.add_argument("--drop", action="append", metavar="A,B", help="leave out these columns")
    parser.add_argument("--text", action="append", metavar="A,B", help="read these as categories")
    parser.add_argument("--weight", metavar="COLUMN", help="column with the weight of each row")
    parser.add_argument(
        "--epochs",
        type=positive,
        metavar="N",
        help="passes over the table; chosen from its size by default",
    )
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 or mps")
    parser.add_argument("--checkpoint", metavar="FILE", help="resume from it after an interruption")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="any other parameter of the estimator, for example batch_size=256",
    )
    parser.add_argument(
        "--progress",
        action="store_true",
        help="show the progress bar even if stderr is not a terminal",
    )
    add_seed(parser)
    add_reading(parser, is_fit=True)


def add_use(commands: Any, name: str, text: str) -> Parser:
    """Add a command that reads a model and a table."""
    parser = add_command(commands, name, text)
    parser.add_argument("model", help="file that fit wrote")
    parser.add_argument("table", help="table with the columns of fit, in any order")
    add_output(parser, "result, by default CSV to stdout")
    add_reading(parser, is_fit=False)
    return parser


def add_sample(commands: Any) -> None:
    """Add `sample`."""
    parser = add_command(commands, "sample", "Generate rows.")
    parser.add_argument("model", help="file that fit wrote")
    parser.add_argument("n_rows", type=positive, help="rows to generate")
    add_output(parser, "result, by default CSV to stdout")
    parser.add_argument(
        "--given",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="value that all rows get",
    )
    parser.add_argument(
        "--batch", metavar="LABEL", help="batch of the cells, where fit had batches"
    )
    parser.add_argument("--mean", action="store_true", help="write means, without noise")
    add_seed(parser)


def add_card(commands: Any) -> None:
    """Add `card`."""
    parser = add_command(commands, "card", "Describe a model: data, training, scores, limits.")
    parser.add_argument("model", help="file that fit wrote")
    parser.add_argument("table", nargs="?", help="rows that fit has not seen, to be scored")
    add_output(parser, "Markdown file, by default stdout")
    add_reading(parser, is_fit=False)


def positive(text: str) -> int:
    """Read an integer >= 1.

    Raises
    ------
    ArgumentTypeError
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def seed(text: str) -> int:
    """Read a seed.

    Raises
    ------
    ArgumentTypeError
    """
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to 2**32 - 1")
    return int(text)


def components(text: str) -> float:
    """Read a number of components, or a share of the variance.

    Raises
    ------
    ArgumentTypeError
    """
    if text.isdecimal() and int(text) >= 1:
        return int(text)
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a whole number of at least 1 nor a share between 0 and 1"
        )
    return share
