"""Rows a second of training, ours against pythae and scVI on the same work.

``python -m benchmarks speed`` runs each contender in a process of its own, in turn (A B
A B), and writes ``results/speed.json``. Its last lines are ratios of medians.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import RESULTS, write
from benchmarks.processes import ROOT, variables
from benchmarks.speed_cell import CONTENDERS

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


def main(argv: list[str] | None = None) -> None:
    """Measure, write, print the ratios."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks speed", description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--own", action="store_true", help="small fits, transform, import anew")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    missing = {peer for peer, module in PEERS.items() if not find_spec(module)}
    names = [name for name in arguments.only if name.split(": ")[1] not in missing]
    rows: list[dict[str, Any]] = []
    if arguments.own:
        rows = json.loads((arguments.output / "speed.json").read_text())["rows"]
        rows = [row for row in rows if row["name"] in (*CONTENDERS, "bounds")]
        names = []
    for repeat in range(arguments.repeats):
        for name in names:
            rows.append({**measure(name, arguments.threads), "repeat": repeat})
            print(rows[-1], flush=True)
            write("speed", rows, folder=arguments.output)
    if "pythae" not in missing and not arguments.own:
        rows.append(measure("bounds", arguments.threads))
        print(rows[-1], flush=True)
    for row in measure("own", arguments.threads)["rows"]:
        print(row)
        rows.append(row)
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
