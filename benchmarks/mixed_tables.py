"""Tables with numbers and categories, and how to split them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
from sklearn import datasets as bundled
from sklearn.utils import check_random_state

from benchmarks.datasets import DATA
from benchmarks.sources import MissingDataError, missing_unless_it_works

#: Rows to train on, at most, as many others, and what classifiers are tested on.
MOST_ROWS, MOST_TEST = 5000, 25_000
#: Column that a classifier predicts, per table.
TABLES = {"adult": "income", "penguins": "species", "diamonds": "cut"}


class Whole(NamedTuple):
    """A table with the name of the column that a classifier predicts."""

    rows: Any
    label: str


class MixedTable(NamedTuple):
    """Three parts of a table: to train on, as many others, and the rest.

    Attributes
    ----------
    train, other, test : DataFrame
    label : str
    """

    train: Any
    other: Any
    test: Any
    label: str


def load(name: str, data_dir: Path | None = None) -> Whole | None:
    """Return a table, or None after a line that says why not."""
    folder = DATA if data_dir is None else Path(data_dir)
    try:
        rows = adult(folder) if name == "adult" else shipped(name, folder)
    except MissingDataError as missing:
        print(f"{name} skipped: {missing}")
        return None
    # A frame that is read has no column without numbers for other reasons than text.
    return Whole(rows.drop(columns="year", errors="ignore"), TABLES[name])


def adult(folder: Path) -> Any:
    """Read Adult, Becker and Kohavi (1996): from a file, or from OpenML."""
    path = folder / "adult.csv.gz"
    if path.is_file():
        return pd.read_csv(path, skipinitialspace=True)
    with missing_unless_it_works(f"connect to the network once, or put {path.name} into {folder}"):
        rows = bundled.fetch_openml("adult", version=2, as_frame=True, n_retries=1).frame
    rows = rows.rename(columns={"class": "income"})
    text = rows.select_dtypes("category").columns
    return rows.astype(dict.fromkeys(text, object)).fillna(dict.fromkeys(text, "?"))


def shipped(name: str, folder: Path) -> Any:
    """Read a table that plotnine ships, wherever it is installed, or from a file."""
    places = [folder / f"{name}.csv"]
    spec = find_spec("plotnine")
    if spec is not None and spec.submodule_search_locations:
        places += [Path(part) / "data" / f"{name}.csv" for part in spec.submodule_search_locations]
    for path in places:
        if path.is_file():
            return pd.read_csv(path)
    raise MissingDataError(f"no {name}.csv in {folder}; pip install plotnine, which has it")


def split(whole: Whole, seed: int) -> MixedTable:
    """Split at random: equally many rows to train on and others, a third of the table at most."""
    order = check_random_state(seed).permutation(len(whole.rows))
    n = min(MOST_ROWS, len(order) // 3)
    parts = (order[:n], order[n : 2 * n], order[2 * n :][:MOST_TEST])
    train, other, test = (whole.rows.iloc[part].reset_index(drop=True) for part in parts)
    return MixedTable(train, other, test, whole.label)
