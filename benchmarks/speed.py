"""Rows per second of training, ours against pythae and scVI on the same work.

``python -m benchmarks speed`` runs each contender in a process of its own, in turn (A B A B),
and writes ``results/speed.json``. Its last lines are ratios of medians.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.results import Results, parser
from benchmarks.runner import Report, Row, limit_threads, memory_mib, result, run
from benchmarks.work import CONTENDERS, N_ROWS, Fit

#: What each ratio divides.
RATIOS = {
    "ratio_pythae_paper_float32": ("paper: HEBAE, float32", "paper: pythae"),
    "ratio_pythae_paper_vae": ("paper: VAE", "paper: pythae"),
    "ratio_pythae_paper": ("paper: HEBAE", "paper: pythae"),
    "ratio_scvi_counts": ("counts: HEBAE", "counts: scVI"),
    "ratio_scvi_gaussian": ("gaussian: HEBAE", "gaussian: scVI"),
}
PEERS = {"pythae": "pythae", "scVI": "scvi"}
#: Epochs of the two fits whose difference is timed, for images and for cells.
EPOCHS, CELL_EPOCHS = (1, 5), (1, 10)


@contextmanager
def unwarned() -> Iterator[None]:
    """Ignore warnings: few epochs converge to nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def rate(fit: Fit, n_rows: int, epochs: tuple[int, int] = EPOCHS) -> float:
    """Return rows per second, from the difference of a long and a short fit."""
    fit(1)  # pays for what is done once
    seconds = []
    for count in epochs:
        start = time.perf_counter()
        fit(count)
        seconds.append(time.perf_counter() - start)
    return n_rows * (epochs[1] - epochs[0]) / (seconds[1] - seconds[0])


def train(spec: Row, report: Report) -> Row:
    """Time one contender, in its process."""
    with unwarned():
        fit = CONTENDERS[spec["name"]](spec["n_rows"])
        limit_threads(spec["threads"])
        epochs = EPOCHS if spec["name"].startswith("paper") else CELL_EPOCHS
        speed = rate(fit, spec["n_rows"], epochs)
    return {"rows_per_second": speed, "peak_mib": memory_mib()}


def measure(name: str, threads: int, n_rows: int = N_ROWS) -> Row:
    """Run one contender."""
    with TemporaryDirectory() as folder:
        spec = {"name": name, "n_rows": n_rows}
        return result(run("benchmarks.speed:train", [spec], Path(folder), threads=threads))


def ratios(rows: list[Row]) -> dict[str, str]:
    """Return ratios of the median rates, with the ranges of the repeats' own."""
    found = {}
    for label, names in RATIOS.items():
        a, b = ([row["rows_per_second"] for row in rows if row["name"] == n] for n in names)
        if a and b:
            each = [x / y for x, y in zip(a, b, strict=True)]
            found[label] = f"{median(a) / median(b):.2f} ({min(each):.2f} to {max(each):.2f})"
    return found


def main(argv: list[str] | None = None) -> None:
    """Measure, write, print the ratios."""
    made = parser("speed", __doc__, threads=2)
    made.add_argument("--repeats", type=int, default=2)
    made.add_argument("--rows", type=int, default=N_ROWS)
    made.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    arguments = made.parse_args(argv)
    missing = {peer for peer, module in PEERS.items() if not find_spec(module)}
    results = Results(arguments.output / "speed.json")
    for repeat in range(arguments.repeats):
        for name in arguments.only:
            if name.split(": ")[1] not in missing:
                row = measure(name, arguments.threads, arguments.rows)
                results.add({"name": name, **row, "repeat": repeat})
    for peer in sorted(missing):
        print(f"{peer} is not installed: pip install it for its ratios")
    for label, text in ratios(results.rows).items():
        print(f"{label}: {text}")
