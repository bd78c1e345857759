"""Which reducer to use: every method on every set, each in a process of its own.

``python -m benchmarks compare`` writes ``results/compare.json`` after each cell: one method, set,
number of components and seed. ``--resume`` keeps those of these versions of the packages.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks import runner
from benchmarks.cell import OPTIONAL
from benchmarks.datasets import NAMES, Table, load, split
from benchmarks.metrics import Measured, embedding_metrics, sample_realism
from benchmarks.reducers import METHODS, missing, version_of
from benchmarks.results import Results, parser
from benchmarks.runner import Row, described

#: The sets that are compared by default.
DATA = ["digits", "breast-cancer", "wine", "patches", "fashion-mnist"]
DATA += ["pbmc3k", "paul15", "kang", "hapmap"]

#: New rows whose mapping is timed.
TRANSFORM_ROWS = 10_000
#: Seconds for decoding: UMAP's needs the Delaunay triangulation of the codes, which has no
#: end in ten dimensions, and cannot be interrupted but with the process.
INVERSE_SECONDS = 60.0
#: A cell's row takes the place of that of an earlier version.
KEYS = ("kind", "data", "method", "n_components", "seed")


def measure(cell: Row, table: Table, folder: Path, arguments: argparse.Namespace) -> Row:
    """Run one cell, and measure the codes and samples that it leaves."""
    how = {"likelihood": table.likelihood, "transform_rows": arguments.transform_rows}
    with TemporaryDirectory() as name:
        (measured,) = runner.run(
            "benchmarks.cell:measure",
            [{**cell, **how, "rows": str(folder)}],
            Path(name),
            threads=arguments.threads,
            limits={"": arguments.timeout, "inverse": INVERSE_SECONDS},
            optional=OPTIONAL,
        )
        size = (len(table.train), len(table.test), table.train.shape[1])
        row = {
            **cell,
            **dict(zip(("n_train", "n_test", "n_features"), size, strict=True)),
            **{name: getattr(table, name) for name in ("likelihood", "n_neighbors")},
            **{name: {} for name in ("settings", "metrics", "samples", "errors")},
            **measured,
        }
        if "error" not in row:
            try:
                row |= quality(
                    Path(name) / "0", table, METHODS[cell["method"]].latents, cell["seed"]
                )
            except Exception as error:  # no reason to end the run
                row["errors"]["quality"] = described(error)
    return row


def quality(folder: Path, table: Table, latents: Iterable[str], seed: int) -> Row:
    """Measure held-out codes and samples, each number with its controls."""
    train_codes, codes = (np.load(folder / f"codes_{part}.npy") for part in ("train", "test"))
    found = embedding_metrics(
        train_codes, table.y_train, table.test, codes, table.y_test, table.n_neighbors, seed
    )
    paths = {latent: folder / f"samples_{latent}.npy" for latent in latents}
    samples = {
        latent: plain(sample_realism(table.test, np.load(path), seed))
        for latent, path in paths.items()
        if path.exists()
    }
    return {"metrics": {name: plain(number) for name, number in found.items()}, "samples": samples}


def plain(measured: Measured) -> Row:
    """Return what JSON can hold: None for what is not finite."""
    return {key: value if np.isfinite(value) else None for key, value in asdict(measured).items()}


def compare(arguments: argparse.Namespace, results: Results) -> None:
    """Measure what is not there yet."""
    methods = [name for name in arguments.methods if not missing(name)]
    for line in filter(None, map(missing, arguments.methods)):
        print(line)

    def cells(data: str, seed: int) -> Iterable[Row]:
        for d in arguments.dims:
            for name in methods:
                cell = {"kind": "cell", "method": name, "threads": arguments.threads}
                cell |= {"version": version_of(name), "data": data, "n_components": d, "seed": seed}
                if not results.has(**cell):
                    yield cell

    for data in arguments.data:
        for seed in range(arguments.seeds):
            left = list(cells(data, seed))
            dataset = load(data, arguments.data_dir) if left else None
            if dataset is None:
                continue
            table = split(dataset, seed)
            with TemporaryDirectory() as folder:
                for part in ("train", "test"):
                    np.save(Path(folder) / f"{part}.npy", getattr(table, part))
                for cell in left:
                    results.add(measure(cell, table, Path(folder), arguments))


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    made = parser("compare", __doc__, threads=2, resumes=True)
    add = made.add_argument
    add("--data", nargs="+", choices=NAMES, default=DATA)
    add("--data-dir", type=Path, help="folder of the sets that do not come with scikit-learn")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    add("--dims", nargs="+", type=int, default=[2, 10], help="numbers of components")
    add("--seeds", type=int, default=3, help="number of seeds")
    add("--timeout", type=float, default=600.0, help="seconds per stage")
    add("--transform-rows", type=int, default=TRANSFORM_ROWS, help="new rows that are timed")
    arguments = made.parse_args(argv)
    packages = dict(version_of(name).rsplit(" ", 1) for name in METHODS if not missing(name))
    facts = {"threads": arguments.threads, **packages}
    path = arguments.output / "compare.json"
    results = Results(path, KEYS, resume=True, **facts)
    if not arguments.resume:  # rows of methods without code here stay
        results.rows = [row for row in results.rows if row["method"] not in METHODS]
    compare(arguments, results)
