"""Mixed tables: how close generated rows come to real ones, in columns, pairs and classifiers.

``python -m benchmarks tabular`` fits each method to some rows of a table, draws as many, and
writes ``results/tabular.json``. Other real rows stand beside them: nobody can do better.
``--sdmetrics-python PATH`` names an interpreter that has sdmetrics (MIT, which needs pandas < 3)
and perhaps arfpy (MIT), each in place of being installed here.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd

import skhebae
from benchmarks.mixed_tables import TABLES, MixedTable, load, split
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, described, limit_threads
from benchmarks.speed import unwarned
from benchmarks.tabular_measures import measure
from benchmarks.tabular_page import summary, verdicts

#: Ours, with what is not a default.
OURS: dict[str, Row] = {"HEBAE": {}, "HEBAE, row_share 0": {"row_share": 0.0}, "VAE": {}}
PEER, REAL = "ARF", "other real rows"
METHODS = (*OURS, PEER, REAL)
#: Script that the other interpreter runs.
WORKER = Path(__file__).with_name("tabular_worker.py")


def generate(
    method: str, data: MixedTable, seed: int, python: str | None, now: Callable[[], float]
) -> tuple[Any, Row]:
    """Fit a method and draw as many rows, with the seconds of both.

    Raises
    ------
    ModuleNotFoundError
        If the peer is not installed in the other interpreter.
    """
    if method == REAL:
        return data.other, {}
    if method == PEER:
        return by_worker(data, seed, python)
    start = now()
    name = method.split(",")[0]
    model = getattr(skhebae, f"{name}Transformer")(random_state=seed, **OURS[method])
    model.fit(data.train)
    fitted = now()
    rows = model.sample(len(data.train), random_state=seed)
    seconds = {"fit_seconds": fitted - start, "sample_seconds": now() - fitted}
    return rows, {**seconds, "d": model.fitted_.n_components}


def by_worker(data: MixedTable, seed: int, python: str | None) -> tuple[Any, Row]:
    """Let adversarial random forests draw rows, in the other interpreter."""
    with TemporaryDirectory() as folder:
        row = worker("arf", Path(folder), python, {"train": data.train}, seed=seed)
        rows = pd.read_csv(Path(folder) / "drawn.csv", keep_default_na=False, na_values=[""])
    for name, dtype in data.train.dtypes.items():
        if pd.api.types.is_integer_dtype(dtype):
            # A peer that does not know of integers is not to lose by that.
            rows[name] = rows[name].round()
    return rows[list(data.train)], row


def sdmetrics(data: MixedTable, rows: Any, python: str | None) -> Row:
    """Return column shapes and pair trends by sdmetrics, in the other interpreter."""
    with TemporaryDirectory() as folder:
        return worker("sdmetrics", Path(folder), python, {"train": data.train, "rows": rows})


def worker(
    task: str, folder: Path, python: str | None, frames: dict[str, Any], **options: Any
) -> Row:
    """Run a task of `tabular_worker` and return what it prints.

    Raises
    ------
    ModuleNotFoundError
        If the other interpreter lacks what the task needs.
    RuntimeError
        If it fails.
    """
    for name, frame in frames.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    command = [python or sys.executable, str(WORKER), task, str(folder), json.dumps(options)]
    done = subprocess.run(command, capture_output=True, text=True)
    last = (done.stderr.strip().splitlines() or ["no output"])[-1]
    if "ModuleNotFoundError" in last:
        raise ModuleNotFoundError(last)
    if done.returncode != 0:
        raise RuntimeError(f"{task} failed: {last}")
    row: Row = json.loads(done.stdout.strip().splitlines()[-1])
    return row


def cell(
    method: str,
    data: MixedTable,
    seed: int,
    python: str | None,
    now: Callable[[], float],
    say: Callable[[str], object],
) -> Row | None:
    """Return all that is measured of a method on a table; None where the method is not there."""
    try:
        rows, row = generate(method, data, seed, python, now)
    except ModuleNotFoundError as error:
        say(f"{method} skipped: {described(error)}")
        return None
    row |= {"n_train": len(data.train), "n_columns": data.train.shape[1]}
    row |= measure(data, rows, seed)
    try:
        row |= sdmetrics(data, rows, python)
    except ModuleNotFoundError as error:
        say(f"no column shapes and pair trends: {described(error)} (--sdmetrics-python PATH)")
    return row


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the tables."""
    made = parser("tabular", __doc__, threads=1, resumes=True)
    made.add_argument("--data", nargs="+", choices=tuple(TABLES), default=list(TABLES))
    made.add_argument("--data-dir", type=Path, help="folder of the tables")
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--sdmetrics-python", help="interpreter with sdmetrics, and arfpy")
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    keys = ("data", "seed", "method")
    path = arguments.output / "tabular.json"
    results = Results(path, keys, resume=arguments.resume, threads=arguments.threads)
    python, now, said = arguments.sdmetrics_python, clock(arguments.threads), set()

    def say(line: str) -> None:
        if line not in said:
            print(line, flush=True)
        said.add(line)

    for name in arguments.data:
        whole = load(name, arguments.data_dir)
        for seed in arguments.seeds if whole is not None else ():
            for method in arguments.methods:
                where = {"data": name, "seed": seed, "method": method}
                if results.has(**where):
                    continue
                with unwarned():
                    row = cell(method, split(whole, seed), seed, python, now, say)
                if row is not None:
                    results.add({**where, **row})
    print(*summary(results.rows), *verdicts(results.rows), sep="\n")
