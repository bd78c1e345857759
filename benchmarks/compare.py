"""Which reducer to use: every method on every set, each in a process of its own.

``python -m benchmarks compare`` writes ``results/compare.json`` after each cell, a cell
being one method, data set, number of components and seed: what its process measured (see
``benchmarks.cell``), and here the measures of held-out codes and of samples. ``--resume``
keeps the cells that are there, ``--quick`` takes a minute.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import numpy as np

from benchmarks import processes
from benchmarks.cell import described, write_json
from benchmarks.common import RESULTS, environment
from benchmarks.datasets import DATASETS, Table, load, split
from benchmarks.methods import CORE, COUNTED, METHODS, missing, version_of
from benchmarks.metrics import Measured, embedding_metrics, sample_realism

#: The sets of the full comparison, and of the quick one.
DATA = ["digits", "breast-cancer", "wine", "patches", "fashion-mnist"]
DATA += [*COUNTED, "hapmap"]
QUICK_DATA = ["digits", "wine"]

#: New rows whose mapping is timed, and in the quick comparison.
TRANSFORM_ROWS, QUICK_TRANSFORM_ROWS = 10_000, 1000

#: Numbers that a cell may have to do without.
UNMEASURED = dict.fromkeys(
    (
        *("import_seconds", "compile_seconds", "fit_seconds", "peak_mib", "fit_mib"),
        *("transform_rows", "transform_seconds", "one_row_seconds", "saved_bytes"),
        *("row_independent", "deterministic", "row_difference", "repeat_difference"),
        *("held_out_squared_error", "squared_error_of_mean", "inverse_rows", "inverse_seconds"),
    )
)

#: Not two threads at once: metrics set warning filters, which belong to the process.
METRICS = Lock()


class Spec(NamedTuple):
    """A cell or a count of estimator checks, and what its result depends on."""

    kind: str
    method: str
    threads: int
    version: str
    data: str | None = None
    n_components: int | None = None
    seed: int | None = None
    max_train: int | None = None

    def describes(self, row: dict[str, Any]) -> bool:
        """Whether a row is the result of just this."""
        return all(row.get(key) == value for key, value in self._asdict().items())


def slot(row: dict[str, Any]) -> tuple[Any, ...]:
    """Where a row stands among the results: that of a newer version takes the same place."""
    return tuple(row.get(key) for key in ("kind", "data", "method", "n_components", "seed"))


class Results:
    """The rows so far, in a file that is written after each."""

    def __init__(self, path: Path, threads: int, *, resume: bool) -> None:
        self.path = path
        self.threads = threads
        self.rows: dict[tuple[Any, ...], dict[str, Any]] = {}
        if resume and path.exists():
            self.rows = {slot(row): row for row in json.loads(path.read_text())["rows"]}

    def has(self, spec: Spec, *, retry: bool = False) -> bool:
        """Whether just this is there; with `retry`, unless it failed."""
        row = self.rows.get(slot(spec._asdict()))
        return row is not None and spec.describes(row) and not (retry and "error" in row)

    def add(self, row: dict[str, Any]) -> None:
        """Keep a row, write all of them, and print a line."""
        self.rows[slot(row)] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        installed = (version_of(name) for name in METHODS if not missing(name))
        packages = dict(named.rsplit(" ", 1) for named in installed)
        described = {**environment(), "threads": self.threads, **packages}
        write_json(self.path, {"environment": described, "rows": list(self.rows.values())})
        print(line(row), flush=True)


def line(row: dict[str, Any]) -> str:
    """Return what is printed of a row."""
    title = f"{row['data']} {row['method']} d={row['n_components']} seed={row['seed']}:"
    numbers = ["fit_seconds", "peak_mib", "transform_seconds", "held_out_squared_error"]
    if row["kind"] == "conformance":
        title = f"{row['method']}: estimator checks"
        numbers = ["passed", "failed", "skipped"]
    said = [f"{key} {row[key]:.4g}" for key in numbers if row.get(key) is not None]
    if row.get("error"):
        said.append(f"failed: {row['error']}")
    said += [f"no {stage}: {error}" for stage, error in row.get("errors", {}).items()]
    return ", ".join([f"{title} {said[0] if said else 'not an estimator'}", *said[1:]])


def count_checks(spec: Spec, timeout: float) -> dict[str, Any]:
    """Count the estimator checks that a method passes with its defaults."""
    with tempfile.TemporaryDirectory() as name:
        return spec._asdict() | processes.run(spec._asdict(), Path(name), timeout)


def measure(spec: Spec, table: Table, rows: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one cell, and measure the codes and samples that it leaves."""
    method = METHODS[spec.method]
    how = {
        "rows": str(rows),
        "likelihood": table.likelihood,
        "transform_rows": QUICK_TRANSFORM_ROWS if arguments.quick else TRANSFORM_ROWS,
    }
    with tempfile.TemporaryDirectory() as name:
        limits = (arguments.timeout, arguments.inverse_timeout)
        measured = processes.run(spec._asdict() | how, Path(name), *limits)
        row = {
            **spec._asdict(),
            "n_train": len(table.train),
            "n_test": len(table.test),
            "n_features": table.train.shape[1],
            "likelihood": table.likelihood,
            "n_neighbors": table.n_neighbors,
            "inverts": method.inverts,
            "needs_training_rows": method.needs_training_rows,
            "saved_with": method.saved_with,
            **UNMEASURED,
            "settings": {},
            "metrics": {},
            "samples": {},
            **measured,
        }
        if "error" not in row:
            try:
                with METRICS:
                    row |= quality(Path(name), table, method.latents, spec.seed or 0)
            except Exception as error:  # no reason to end the run
                row["errors"]["quality"] = described(error)
    return row


def quality(folder: Path, table: Table, latents: Iterable[str], seed: int) -> dict[str, Any]:
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


def plain(measured: Measured) -> dict[str, Any]:
    """Return what JSON can hold: None for what is not finite."""
    return {key: value if np.isfinite(value) else None for key, value in asdict(measured).items()}


def in_turn(
    work: Callable[[Spec], dict[str, Any]], specs: list[Spec], jobs: int
) -> Iterator[dict[str, Any]]:
    """Do the work one by one, or some at once, the slowest method first."""
    if jobs == 1:
        yield from map(work, specs)
        return
    with ThreadPoolExecutor(jobs) as pool:
        slowest_first = sorted(specs, key=lambda spec: not METHODS[spec.method].compiles)
        futures = [pool.submit(work, spec) for spec in slowest_first]
        try:
            yield from (future.result() for future in as_completed(futures))
        finally:
            pool.shutdown(cancel_futures=True)


def compare(arguments: argparse.Namespace, results: Results) -> None:
    """Measure what is not there yet."""
    said = {name: missing(name) for name in arguments.methods}
    print("\n".join(filter(None, said.values())), end="\n" if any(said.values()) else "")
    methods = {name: version_of(name) for name in said if not said[name]}

    def wanted(spec: Spec) -> bool:
        return not results.has(spec, retry=arguments.retry)

    common = partial(Spec, threads=arguments.threads)
    if arguments.conformance:
        counts = [common("conformance", name, version=of) for name, of in methods.items()]
        for spec in filter(wanted, counts):
            results.add(count_checks(spec, arguments.timeout))
    for data in arguments.data:
        able = [name for name in methods if data in COUNTED or not METHODS[name].takes_counts]
        cells = [
            common("cell", name, version=methods[name], data=data, n_components=d, seed=seed)
            for seed in range(arguments.seeds)
            for d in arguments.dims
            for name in able
        ]
        cells = [cell._replace(max_train=arguments.max_train) for cell in cells]
        cells = [cell for cell in cells if wanted(cell)]
        dataset = load(data, arguments.data_dir) if cells else None
        if dataset is None:
            continue
        for seed in sorted({cell.seed or 0 for cell in cells}):
            table = split(dataset, seed)
            if arguments.max_train is not None:
                rows = np.random.default_rng(seed).permutation(len(table.train))
                rows = rows[: arguments.max_train]
                table = table._replace(train=table.train[rows], y_train=table.y_train[rows])
            with tempfile.TemporaryDirectory() as folder:
                for part in ("train", "test"):
                    np.save(Path(folder) / f"{part}.npy", getattr(table, part))
                work = partial(measure, table=table, rows=Path(folder), arguments=arguments)
                of_seed = [cell for cell in cells if cell.seed == seed]
                for row in in_turn(work, of_seed, arguments.jobs):
                    results.add(row)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description=__doc__)
    add = parser.add_argument
    add("--data", nargs="+", choices=list(DATASETS), help=f"by default {' '.join(DATA)}")
    add("--data-dir", type=Path, help="folder of the sets that do not come with scikit-learn")
    add("--methods", nargs="+", choices=list(METHODS), help="by default all that are installed")
    add("--dims", nargs="+", type=int, help="numbers of components, by default 2 10")
    add("--seeds", type=int, help="number of seeds, by default 3")
    add("--quick", action="store_true", help="two small sets, one seed, d = 2, core methods")
    add("--resume", action="store_true", help="keep the cells that the output has")
    add("--retry", action="store_true", help="with --resume, repeat those that failed")
    add("--timeout", type=float, default=600.0, help="seconds a cell, by default 600")
    add("--inverse-timeout", type=float, default=processes.INVERSE_TIMEOUT)
    add("--threads", type=int, help="of each method, by default 2")
    add("--jobs", type=int, help="cells at once, which blurs their seconds; by default 1")
    add("--max-train", type=int, help="training rows at most")
    add("--no-conformance", dest="conformance", action="store_false", default=None)
    add("--output", type=Path, help="by default results/compare.json; of --quick, a cache")
    arguments = parser.parse_args(argv)
    full = {
        "data": DATA,
        "methods": list(METHODS),
        "dims": [2, 10],
        "seeds": 3,
        "threads": 2,
        "jobs": 1,
        "conformance": True,
        "output": RESULTS / "compare.json",
    }
    quick = {
        "data": QUICK_DATA,
        "methods": list(CORE),
        "dims": [2],
        "seeds": 1,
        "threads": 1,
        "jobs": 2,
        "conformance": False,
        "output": RESULTS.parent / "cache" / "compare-quick.json",
    }
    for name, default in (quick if arguments.quick else full).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, default)
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    arguments = parse(argv)
    results = Results(arguments.output, arguments.threads, resume=arguments.resume)
    compare(arguments, results)
    print(f"wrote {arguments.output}")


if __name__ == "__main__":
    main()
