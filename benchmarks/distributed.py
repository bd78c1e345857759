"""Seconds a step against rows, features, components, minibatches and processes.

``python -m benchmarks distributed`` fits HEBAE to generated counts of which one in twenty is
not zero (negative binomial, CSR, 128 hidden units), in one process and in two of one thread each,
which talk by gloo. It varies one number at a time around `BASE`, in turn for several rounds, and
writes ``results/distributed.json``: seconds a step, those of the passes before and after training,
and the bytes that a process hands to its group in a step. ``docs/scaling.md`` has them, and what
they mean for 10^8 cells.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from benchmarks import distributed_page
from benchmarks.common import RESULTS, write
from benchmarks.processes import ROOT, variables

EPOCHS = 4

#: Features of which one is not zero.
STRETCH = 20


class Cell(NamedTuple):
    """What is measured: rows of all processes, and of a minibatch those of one."""

    n_rows: int
    n_features: int
    n_components: int
    batch_size: int
    n_processes: int


BASE = Cell(25_600, 2000, 10, 128, 1)
SWEEPS = {
    "n_rows": (12_800, 25_600, 51_200, 102_400),
    "n_features": (500, 1000, 2000, 4000),
    "n_components": (10, 30, 100),
    "batch_size": (128, 512, 2048),
}


def cells(sweeps: dict[str, tuple[int, ...]], base: Cell = BASE) -> list[Cell]:
    """All that is measured, each once, in one process and in two."""
    found = [
        base._replace(**{name: value}, n_processes=size)
        for name, values in sweeps.items()
        for value in values
        for size in (1, 2)
    ]
    return list(dict.fromkeys(found))


def counts(n_rows: int, n_features: int, seed: int) -> sparse.csr_matrix:
    """Draw counts like those of cells, one of each `STRETCH` features not zero."""
    rng = np.random.default_rng(seed)
    starts = np.arange(0, n_features, STRETCH)
    columns = starts + rng.integers(STRETCH, size=(n_rows, len(starts)))
    values = 1.0 + rng.poisson(rng.gamma(0.5, 2.0, size=columns.shape))
    pointers = np.arange(n_rows + 1) * len(starts)
    shape = (n_rows, starts[-1] + STRETCH)
    return sparse.csr_matrix((values.astype(np.float32).ravel(), columns.ravel(), pointers), shape)


def fit(cell: Cell, rank: int, store: str) -> dict[str, Any]:
    """Fit this process's rows, together with the others, and say how long it took."""
    import torch
    from torch import distributed

    from skhebae import HEBAETransformer

    if cell.n_processes > 1:
        distributed.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=cell.n_processes
        )
    torch.set_num_threads(1)
    X = counts(cell.n_rows // cell.n_processes, cell.n_features, rank)
    model = HEBAETransformer(
        cell.n_components,
        likelihood="negative_binomial",
        batch_size=cell.batch_size,
        max_iter=EPOCHS,
        n_iter_no_change=10**6,
        random_state=0,
    )
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # so few epochs converge to nothing
        model.fit(X)
    total = time.perf_counter() - start
    seconds = model.history_["seconds"]
    n_steps = max(1, cell.n_rows // (cell.n_processes * cell.batch_size))
    n_weights = sum(of.numel() for of in model._model.parameters())
    if cell.n_processes > 1:
        distributed.barrier()  # who is done first does not leave the other alone
        distributed.destroy_process_group()
    return {
        # The first epoch pays for what torch does once.
        "seconds_a_step": median(seconds[1:]) / n_steps,
        "seconds_around": total - sum(seconds),
        **payload(cell, n_weights),
    }


def payload(cell: Cell, n_weights: int) -> dict[str, int]:
    """Bytes that a process hands to its group in a step: float32 gradients and codes.

    Codes go out once, and their gradients come back for the rows of all processes.
    """
    several = cell.n_processes > 1
    rows = cell.batch_size * (1 + cell.n_processes)
    return {
        "gradient_bytes": 4 * n_weights * several,
        "code_bytes": 4 * rows * cell.n_components * several,
    }


def measure(cell: Cell) -> dict[str, Any]:
    """`fit` in processes of their own; what the first says."""
    with TemporaryDirectory() as folder:
        store = str(Path(folder) / "store")
        command = [sys.executable, "-m", "benchmarks.distributed", "--fit", json.dumps(cell)]
        started = [
            subprocess.Popen(
                [*command, str(rank), store],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=variables(1),
                cwd=ROOT,
            )
            for rank in range(cell.n_processes)
        ]
        try:
            ended = [process.communicate() for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
    for process, (_, errors) in zip(started, ended, strict=True):
        if process.returncode:
            raise RuntimeError(f"{cell} failed: {errors[-2000:]}")
    row: dict[str, Any] = json.loads(ended[0][0].splitlines()[-1])
    return {**cell._asdict(), **row}


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and write the page's numbers."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks distributed", description=__doc__)
    for name, values in SWEEPS.items():
        option = f"--{name.removeprefix('n_').replace('_', '-')}"
        parser.add_argument(option, dest=name, type=int, nargs="+", default=values)
    parser.add_argument("--base", type=int, nargs=4, default=BASE[:4], help="the others meanwhile")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.fit:
        cell, rank, store = arguments.fit
        row = fit(Cell(*json.loads(cell)), int(rank), store)
        os.write(1, f"{json.dumps(row)}\n".encode())
        return
    rows: list[dict[str, Any]] = []
    sweeps = {name: tuple(getattr(arguments, name)) for name in SWEEPS}
    for number in range(arguments.rounds):
        for cell in cells(sweeps, Cell(*(*arguments.base, 1))):
            rows.append({"round": number, **measure(cell)})
            print(rows[-1], flush=True)
            write("distributed", rows, folder=arguments.output)
    if arguments.output == RESULTS:
        distributed_page.main()


if __name__ == "__main__":
    main()
