"""Rows a second of training, ours against pythae and scVI on the same work.

``python -m benchmarks speed`` runs each contender in a process of its own, in turn (A B
A B), and writes ``results/speed.json``. Its last lines are ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write
from benchmarks.processes import ROOT, variables
from benchmarks.speed_cell import CONTENDERS, N_COMPONENTS, images
from skhebae import HEBAETransformer

#: What each ratio divides.
RATIOS = {
    "ratio_pythae_paper_float32": ("paper: HEBAE, float32", "paper: pythae"),
    "ratio_pythae_paper_vae": ("paper: VAE", "paper: pythae"),
    "ratio_pythae_paper": ("paper: HEBAE", "paper: pythae"),
    "ratio_scvi_counts": ("counts: HEBAE", "counts: scVI"),
    "ratio_scvi_gaussian": ("gaussian: HEBAE", "gaussian: scVI"),
}
PEERS = {"pythae": "pythae", "scVI": "scvi"}


def measure(name: str, threads: int) -> dict[str, Any]:
    """Run one contender."""
    command = [sys.executable, "-m", "benchmarks.speed_cell", name, str(threads)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=variables(threads), cwd=ROOT, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(lines[-1])
    return row


def of_a_small_table(repeats: int) -> dict[str, Any]:
    """Seconds of a fit with defaults to 500 rows of 20 features, and the share not training."""
    rows = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    total, training = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        model = HEBAETransformer(random_state=0).fit(rows)
        total.append(time.perf_counter() - start)
        training.append(sum(model.history_["seconds"]))
    share = 1.0 - median(training) / median(total)
    return {"name": "500 x 20", "seconds": median(total), "share_not_training": share}


#: What skhebae stands on is imported before the clock starts.
IMPORT = """
import time, torch, sklearn.mixture, sklearn.preprocessing
start = time.perf_counter()
import skhebae
print(time.perf_counter() - start)
"""


def of_import(repeats: int, threads: int) -> dict[str, Any]:
    """Milliseconds of ``import skhebae`` beyond torch and scikit-learn."""
    command = [sys.executable, "-c", IMPORT]
    seconds = [
        float(subprocess.check_output(command, text=True, env=variables(threads), cwd=ROOT))
        for _ in range(repeats)
    ]
    return {"name": "import", "ms": 1e3 * median(seconds)}


def of_transform(repeats: int) -> dict[str, Any]:
    """Rows a second of transform at 784-128-10, and milliseconds of one row."""
    rows = images(50_000)
    model = HEBAETransformer(N_COMPONENTS, max_iter=1, random_state=0)
    model.fit(rows[:2000])
    model.transform(rows[:1000])
    many, one = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        model.transform(rows)
        many.append(len(rows) / (time.perf_counter() - start))
        start = time.perf_counter()
        for i in range(50):
            model.transform(rows[i : i + 1])
        one.append((time.perf_counter() - start) / 50)
    return {"name": "transform", "rows_per_second": median(many), "one_row_ms": 1e3 * median(one)}


def main(argv: list[str] | None = None) -> None:
    """Measure, write, print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    missing = {peer for peer, module in PEERS.items() if not find_spec(module)}
    names = [name for name in arguments.only if name.split(": ")[1] not in missing]
    rows: list[dict[str, Any]] = []
    for repeat in range(arguments.repeats):
        for name in names:
            rows.append({**measure(name, arguments.threads), "repeat": repeat})
            print(rows[-1], flush=True)
            write("speed", rows, folder=arguments.output)
    if "pythae" not in missing:
        rows.append(measure("bounds", arguments.threads))
        print(rows[-1], flush=True)
    import warnings

    import torch

    torch.set_num_threads(arguments.threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one epoch
        rows += [
            of_a_small_table(5),
            of_transform(5),
            of_import(5, arguments.threads),
        ]
    print(*rows[-3:], sep="\n")
    write("speed", rows, folder=arguments.output)
    for peer in sorted(missing):
        print(f"{peer} is not installed: pip install it for its ratios")
    for label, text in ratios(rows).items():
        print(f"{label}: {text}")


def ratios(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Ratios of the median rates, with the ranges of the repeats' own."""
    rates = {
        name: [row["rows_per_second"] for row in rows if row["name"] == name] for name in CONTENDERS
    }
    found = {}
    for label, (a, b) in RATIOS.items():
        if rates[a] and rates[b]:
            each = [x / y for x, y in zip(rates[a], rates[b], strict=True)]
            ratio = median(rates[a]) / median(rates[b])
            found[label] = f"{ratio:.2f} ({min(each):.2f} to {max(each):.2f})"
    return found


if __name__ == "__main__":
    main()
