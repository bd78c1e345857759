"""Results of a run: rows in a JSON file, with where and with what they were made."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.runner import Row, write_json

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """Describe the date, the machine and the versions that results depend on."""
    import sklearn
    import torch

    import skhebae

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0].split(":")[1].strip() if models else processor
    machine = {"processor": processor, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    packages = {"torch": torch, "scikit-learn": sklearn, "numpy": np, "skhebae": skhebae}
    versions = {name: package.__version__ for name, package in packages.items()}
    date = datetime.now(UTC).date().isoformat()
    return {"date": date, **machine, "python": platform.python_version(), **versions}


def parser(
    name: str, description: str | None, *, threads: int | None = None, resumes: bool = False
) -> argparse.ArgumentParser:
    """Make a parser of a benchmark's command line with the options that many share."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks {name}", description=description)
    made.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    if threads is not None:
        made.add_argument("--threads", type=int, default=threads)
    if resumes:
        made.add_argument("--resume", action="store_true", help="keep the rows that are there")
    return made


class Results:
    """Rows in a file that is written after each; the last with the same `keys` counts."""

    def __init__(
        self, path: Path, keys: Sequence[str] = (), *, resume: bool = False, **facts: Any
    ) -> None:
        self.path, self.keys, self.facts = path, keys, facts
        self.rows: list[Row] = []
        if resume and path.exists():
            self.rows = json.loads(path.read_text())["rows"]

    def has(self, **cell: Any) -> bool:
        """Tell whether a row with these values is there."""
        return any(all(row.get(k) == v for k, v in cell.items()) for row in self.rows)

    def add(self, row: Row) -> None:
        """Keep a row, write all of them, and print its numbers."""
        place = [row.get(key) for key in self.keys]
        places = [[old.get(key) for key in self.keys] for old in self.rows]
        if place and place in places:
            self.rows[places.index(place)] = row
        else:
            self.rows.append(row)
        write_json(self.path, {"environment": environment() | self.facts, "rows": self.rows})
        shown = {k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}
        print({k: v for k, v in shown.items() if not isinstance(v, dict | list | None)}, flush=True)
