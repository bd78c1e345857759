"""What `benchmarks.paper` wrote, found by method, size, weight and seed."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.pages import spread_out
from benchmarks.paper import METHODS, setting

Row = dict[str, Any]

#: Share of the rise of a bound, from its first epoch to its last, that counts as converged.
CONVERGED = 0.95


def number(row: Row, key: str) -> float | None:
    """Value at a dotted key; None if it is missing, not finite, or its controls failed."""
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
        self.setting = setting(self.data)
        self.middle = self.setting.grid.middle
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
        """Rows by seed."""
        key = (method, d, METHODS[method][2] if weight is None else weight)
        found = [r for r in self.rows if (r["method"], r["n_components"], r["weight"]) == key]
        return {row["seed"]: row for row in sorted(found, key=lambda row: row["seed"])}

    def values(
        self, method: str, key: str, d: int, weight: float | None = None
    ) -> dict[int, float]:
        """One number by seed, where there is one."""
        numbers = {s: number(row, key) for s, row in self.cells(method, d, weight).items()}
        return {seed: value for seed, value in numbers.items() if value is not None}

    def said(
        self, method: str, key: str, d: int, form: str = "{:.1f}", weight: float | None = None
    ) -> str:
        """Mean over seeds and standard deviation, in words."""
        values = list(self.values(method, key, d, weight).values())
        return spread_out(values, form) if values else "none"

    def pairs(self, key: str, d: int, one: str, other: str) -> list[tuple[float, float]]:
        """One number of two methods at the paper's weights, for every seed that both have."""
        ones, others = self.values(one, key, d), self.values(other, key, d)
        return [(ones[seed], others[seed]) for seed in ones if seed in others]

    def over_weights(self, key: str) -> list[dict[str, list[float]]]:
        """One number at the weights shared by all methods that have it: a dict for each seed.

        A seed needs two weights, or it is left out.
        """
        found = []
        for seed in self.seeds:
            at: dict[str, dict[float, float]] = {m: {} for m in self.methods}
            for method, by_weight in at.items():
                for weight in self.weights:
                    values = self.values(method, key, self.middle, weight)
                    by_weight |= {weight: values[seed]} if seed in values else {}
            at = {method: by_weight for method, by_weight in at.items() if by_weight}
            shared = [w for w in self.weights if at and all(w in b for b in at.values())]
            if len(shared) > 1:
                found.append({m: [by_weight[w] for w in shared] for m, by_weight in at.items()})
        return found


def curve(row: Row, name: str) -> list[float]:
    """Training curve: ``"own"`` bound, its penalty at weight 1, or the standard ``"elbo"``."""
    history = row["history"]
    if name == "own":
        terms = zip(history["reconstruction"], history["penalty"], strict=True)
        return [-(reconstruction + penalty) for reconstruction, penalty in terms]
    return [-math.inf if value is None else value for value in history[name]]


def first_epoch(values: Sequence[float], target: float) -> float:
    """Epoch, from 1, at which a curve reaches a target; infinity if never."""
    return next((epoch for epoch, value in enumerate(values, 1) if value >= target), math.inf)


def converged_epoch(values: Sequence[float]) -> float:
    """Epoch at which a curve has done `CONVERGED` of its way from its first to its last value."""
    return first_epoch(values, values[0] + CONVERGED * (values[-1] - values[0]))


def image_shape(n_features: int) -> tuple[int, ...] | None:
    """Shape of flat square images, grey or in three colours; None of other rows."""
    for channels in (1, 3):
        side = math.isqrt(n_features // channels)
        if channels * side**2 == n_features:
            return (channels, side, side)
    return None


def read_images(path: Path) -> dict[str, NDArray[np.uint8]]:
    """Read ``paper-<data>.npz`` if it is there: bytes by method and kind."""
    if not path.exists():
        return {}
    with np.load(path) as parts:
        return dict(parts)
