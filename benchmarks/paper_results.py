"""Find what `benchmarks.paper` wrote by method, size, weight and seed."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.pages import spread_out
from benchmarks.paper import GRID, METHODS
from benchmarks.runner import Row


def number(row: Row, key: str) -> float | None:
    """Return the value at a dotted key; None if it is missing, infinite, or its controls failed."""
    value: Any = row
    for part in key.split("."):
        value = None if value is None else value.get(part)
    if isinstance(value, dict):
        value = value["value"] if value["valid"] else None
    return float(value) if value is not None and math.isfinite(value) else None


class Run:
    """The cells of one data set; a weight of None is each method's own of the paper."""

    def __init__(self, rows: list[Row], environment: Row | None = None) -> None:
        self.environment = environment or {}
        self.data = rows[0]["data"]
        self.middle = GRID.middle
        # A file can hold shorter trials too: the number of epochs with most cells is the run.
        counts = Counter(row["epochs"] for row in rows)
        self.epochs = max(counts, key=lambda epochs: (counts[epochs], epochs))
        self.rows = [row for row in rows if row["epochs"] == self.epochs]
        self.methods = [m for m in METHODS if any(row["method"] == m for row in self.rows)]
        usual = [row for row in self.rows if row["weight"] == METHODS[row["method"]][2]]
        self.dims = sorted({row["n_components"] for row in usual})
        of_middle = [row for row in self.rows if row["n_components"] == self.middle]
        self.weights = sorted({row["weight"] for row in of_middle})
        self.seeds = sorted({row["seed"] for row in self.rows})

    @classmethod
    def read(cls, path: Path) -> Run:
        """Read ``paper-<data>.json``."""
        document = json.loads(path.read_text())
        return cls(document["rows"], document["environment"])

    def cells(self, method: str, d: int, weight: float | None = None) -> dict[int, Row]:
        """Return rows by seed."""
        key = (method, d, METHODS[method][2] if weight is None else weight)
        found = [r for r in self.rows if (r["method"], r["n_components"], r["weight"]) == key]
        return {row["seed"]: row for row in sorted(found, key=lambda row: row["seed"])}

    def values(
        self, method: str, key: str, d: int, weight: float | None = None
    ) -> dict[int, float]:
        """Return one number by seed, where there is one."""
        numbers = {s: number(row, key) for s, row in self.cells(method, d, weight).items()}
        return {seed: value for seed, value in numbers.items() if value is not None}

    def said(
        self, method: str, key: str, d: int, form: str = "{:.1f}", weight: float | None = None
    ) -> str:
        """Format the mean over seeds and the standard deviation."""
        found = list(self.values(method, key, d, weight).values())
        return spread_out(found, form) if found else "none"


def curve(row: Row, name: str) -> list[float]:
    """Return a training curve: ``"own"`` bound, its penalty at weight 1, or the ``"elbo"``."""
    history = row["history"]
    if name == "own":
        terms = zip(history["reconstruction"], history["penalty"], strict=True)
        return [-(reconstruction + penalty) for reconstruction, penalty in terms]
    return [-math.inf if value is None else value for value in history[name]]
