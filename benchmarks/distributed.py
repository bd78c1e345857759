"""Seconds per step against rows, features, components, minibatches and processes.

``python -m benchmarks distributed`` fits HEBAE to generated counts, in one process and in two of
one thread each, which talk by gloo. It varies one number at a time around `BASE`, for several
rounds, and writes ``results/distributed.json``.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import NamedTuple

from benchmarks.results import Results, parser
from benchmarks.runner import Report, Row, limit_threads, result, run
from benchmarks.speed import unwarned
from benchmarks.work import N_HIDDEN, counts, ours

EPOCHS = 4


class Cell(NamedTuple):
    """One measurement: rows of all processes; minibatches are those of one process."""

    n_rows: int
    n_features: int
    n_components: int
    batch_size: int
    n_processes: int = 1


BASE = Cell(25_600, 2000, 10, 128)
SWEEPS = {
    "n_rows": (12_800, 25_600, 51_200, 102_400),
    "n_features": (500, 1000, 2000, 4000),
    "n_components": (10, 30, 100),
    "batch_size": (128, 512, 2048),
}


def cells(sweeps: dict[str, tuple[int, ...]], base: Cell = BASE) -> list[Cell]:
    """List all that is measured, each once, in one process and in two."""
    found = [
        base._replace(**{name: value}, n_processes=size)
        for name, numbers in sweeps.items()
        for value in numbers
        for size in (1, 2)
    ]
    return list(dict.fromkeys(found))


def fit(spec: Row, report: Report) -> Row:
    """Fit this process's rows, together with the others, and say how long it took."""
    from torch import distributed

    cell, rank = Cell(*spec["cell"]), spec["rank"]
    if cell.n_processes > 1:
        store, size = f"file://{spec['store']}", cell.n_processes
        distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    limit_threads(spec["threads"])
    X = counts(cell.n_rows // cell.n_processes, cell.n_features, rank)
    params = {"n_components": cell.n_components, "batch_size": cell.batch_size}
    start = time.perf_counter()
    with unwarned():
        model = ours("HEBAE", X, likelihood="negative_binomial", **params)(EPOCHS)
    total, seconds = time.perf_counter() - start, model.history_["seconds"]
    if cell.n_processes > 1:
        distributed.barrier()  # the first to end does not leave the other waiting
        distributed.destroy_process_group()
    n_steps = max(1, cell.n_rows // (cell.n_processes * cell.batch_size))
    # The first epoch pays for what torch does once.
    step = median(seconds[1:]) / n_steps
    return {"seconds_a_step": step, "seconds_around": total - sum(seconds)}


def payload(cell: Cell) -> dict[str, int]:
    """Count the bytes that a process hands to its group in a step: float32 gradients and codes.

    Codes go out once, and their gradients come back for the rows of all processes.
    """
    p, d, h = cell.n_features, cell.n_components, N_HIDDEN
    n_weights = (p + 1) * h + (h + 1) * 2 * d + (d + 1) * h + (h + 1) * p + p
    several = cell.n_processes > 1
    rows = cell.batch_size * (1 + cell.n_processes)
    return {"gradient_bytes": 4 * n_weights * several, "code_bytes": 4 * rows * d * several}


def measure(cell: Cell) -> Row:
    """Run `fit` in the processes of a cell; the first one's numbers count."""
    with TemporaryDirectory() as folder:
        common = {"cell": cell, "store": f"{folder}/store"}
        specs = [{**common, "rank": rank} for rank in range(cell.n_processes)]
        row = result(run("benchmarks.distributed:fit", specs, Path(folder), threads=1))
    return {**cell._asdict(), **row, **payload(cell)}


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    made = parser("distributed", __doc__)
    for name, numbers in SWEEPS.items():
        option = f"--{name.removeprefix('n_').replace('_', '-')}"
        made.add_argument(option, dest=name, type=int, nargs="+", default=numbers)
    made.add_argument("--base", type=int, nargs=4, default=BASE[:4], help="the others meanwhile")
    made.add_argument("--rounds", type=int, default=3)
    arguments = made.parse_args(argv)
    results = Results(arguments.output / "distributed.json")
    sweeps = {name: tuple(getattr(arguments, name)) for name in SWEEPS}
    for number in range(arguments.rounds):
        for cell in cells(sweeps, Cell(*arguments.base)):
            results.add({"round": number, **measure(cell)})
