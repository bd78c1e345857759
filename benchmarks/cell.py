"""Measure one method on one split, stage by stage, in the process that `compare` starts.

Only the method's own package is imported until its memory has been measured.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reducers import METHODS, Array, Reducer
from benchmarks.runner import Report, Row, clock, described, limit_threads, memory_mib

#: Stages that may fail without the others. The inverse is last: some cannot be interrupted
#: but by ending the process.
OPTIONAL = ("transform_time", "saved_size", "samples", "independence", "inverse")
#: Rows of the fit before the measured one, where a package compiles on its first.
WARM_UP_ROWS = 200
#: Rows whose codes are compared on their own, reversed, and in the whole.
INDEPENDENCE_ROWS = 100
#: Rows drawn from each latent distribution.
SAMPLED_ROWS = 2000
#: Noise of repeated rows, as a share of the features' spread, so that no two are the same.
JITTER = 1e-3
#: A timing is the median of this many calls, or of those that fit into some seconds.
CALLS, CALL_SECONDS = 50, 5.0


def repeated(rows: Array, n_rows: int, seed: int) -> Array:
    """Return as many rows as asked for, the given ones in turn, no two of them the same."""
    many = np.resize(rows, (n_rows, rows.shape[1]))
    noise = np.random.default_rng(seed).normal(size=many.shape)
    many = np.clip(many + JITTER * rows.std(axis=0) * noise, rows.min(), rows.max())
    return many.astype(rows.dtype)


class Cell:
    """A method on one split, measured into `row`."""

    def __init__(self, spec: dict[str, Any]) -> None:
        self.spec, self.folder = spec, Path(spec["folder"])
        self.clock = clock(spec["threads"])
        kind = "processor" if spec["threads"] == 1 else "wall"
        self.row: Row = {"errors": {}, "clock": kind}
        self.reducer = self._new_reducer()
        self.rows, self.held_out = (
            np.load(Path(spec["rows"]) / f"{part}.npy") for part in ("train", "test")
        )

    def _new_reducer(self) -> Reducer:
        spec = self.spec
        return METHODS[spec["method"]](spec["n_components"], spec["likelihood"], spec["seed"])

    def _seconds(self, call: Callable[[], object], limit: float = CALL_SECONDS) -> float:
        measured: list[float] = []
        while not measured or (len(measured) < CALLS and sum(measured) < limit):
            start = self.clock()
            call()
            measured.append(self.clock() - start)
        return float(np.median(measured))

    def load(self) -> None:
        """Import the package."""
        start = self.clock()
        self.reducer.load()
        self.row["import_seconds"] = self.clock() - start
        limit_threads(self.spec["threads"])

    def warm_up(self) -> None:
        """Fit a few rows where a package compiles itself on its first fit."""
        if self.reducer.compiles:
            few, other = self.rows[:WARM_UP_ROWS], self._new_reducer()
            start = self.clock()
            other.load()
            other.fit(few)
            other.transform(few[:2])
            self.row["compile_seconds"] = self.clock() - start
            limit_threads(self.spec["threads"])

    def fit(self) -> None:
        """Measure time and peak memory of the fit."""
        clear = Path("/proc/self/clear_refs")
        if clear.exists():
            clear.write_text("5")  # the peak begins anew
        before, start = memory_mib("VmRSS"), self.clock()
        self.reducer.fit(self.rows)
        self.row["fit_seconds"] = self.clock() - start
        self.row["peak_mib"] = memory_mib()
        self.row["fit_mib"] = self.row["peak_mib"] - before
        self.row["settings"] = self.reducer.settings

    def codes(self) -> None:
        """Save codes of the training rows, as the fit left them, and of the held-out ones."""
        self.z = self.reducer.transform(self.held_out)
        np.save(self.folder / "codes_train.npy", self.reducer.training_codes(self.rows))
        np.save(self.folder / "codes_test.npy", self.z)

    def transform_time(self) -> None:
        """Time the codes of many new rows, and of one."""
        n_rows, transform = self.spec["transform_rows"], self.reducer.transform
        rows = repeated(self.held_out, n_rows, self.spec["seed"])
        self.row["transform_rows"] = n_rows
        self.row["transform_seconds"] = self._seconds(lambda: transform(rows), 1.0)
        transform(rows[:1])
        self.row["one_row_seconds"] = self._seconds(lambda: transform(rows[:1]))

    def saved_size(self) -> None:
        """Count the bytes of what a new process needs to map rows."""
        self.row["saved_bytes"] = self.reducer.saved_bytes()

    def samples(self) -> None:
        """Draw new rows, for whoever measures how real they look."""
        n_rows = min(SAMPLED_ROWS, len(self.held_out))
        for latent in self.reducer.latents:
            rows = self.reducer.sample(n_rows, latent, self.rows)
            np.save(self.folder / f"samples_{latent}.npy", rows)

    def independence(self) -> None:
        """Measure whether a row's code depends on the rows beside it, or on the call."""
        from benchmarks.metrics import row_independence  # imports more than some methods do

        limit_threads(self.spec["threads"])
        self.row |= row_independence(self.reducer.transform, self.held_out[:INDEPENDENCE_ROWS])

    def inverse(self) -> None:
        """Measure error and seconds of decoding held-out codes, some of them if it is slow."""
        if not self.reducer.inverts:
            return
        z, rows = (part[: self.reducer.inverse_rows] for part in (self.z, self.held_out))
        self.reducer.inverse_transform(z[:1])
        start = self.clock()
        decoded = self.reducer.inverse_transform(z)
        self.row |= {"inverse_seconds": self.clock() - start, "inverse_rows": len(rows)}
        self.row["held_out_squared_error"] = float(np.square(decoded - rows).mean())
        # The error of decoding every code to the mean of the training rows.
        mean = self.rows.mean(axis=0)
        self.row["squared_error_of_mean"] = float(np.square(rows - mean).mean())


def measure(spec: dict[str, Any], report: Report) -> Row:
    """Go through the stages; each of the optional ones may fail."""
    cell = Cell(spec)
    for name in ("load", "warm_up", "fit", "codes", *OPTIONAL):
        report(name, cell.row)
        try:
            getattr(cell, name)()
        except Exception as error:
            if name not in OPTIONAL:
                raise
            cell.row["errors"][name] = described(error)
    return cell.row
