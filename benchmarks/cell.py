"""What one process of ``compare`` does: one method on one split.

``python -m benchmarks.cell FOLDER`` reads ``FOLDER/spec.json`` and writes what it has
measured to ``FOLDER/document.json`` before each stage, so that whoever ends the process
keeps what came before, and arrays beside it. Only the method's own package is imported
until its memory has been measured.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.methods import METHODS
from benchmarks.reducer import Reducer

Array = NDArray[Any]

#: Stages without which there is nothing to report.
ESSENTIAL = ("start", "load", "warm_up", "fit", "codes")

#: Rows of the fit before the measured one, where a package compiles on its first.
WARM_UP_ROWS = 200
#: Rows whose codes are compared alone, reversed, and in the whole.
INDEPENDENCE_ROWS = 100
#: Rows drawn from each latent distribution.
SAMPLED_ROWS = 2000
#: Noise of repeated rows, as a share of the features' spread, so that no two are the same.
JITTER = 1e-3
#: A timing is the median of this many calls, or of those that fit into some seconds.
CALLS, CALL_SECONDS = 50, 5.0


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write all or nothing."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(partial, path)


def described(error: BaseException) -> str:
    """One line of an error."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def memory_mib(field: str) -> float:
    """Resident memory of this process, now ("VmRSS") or at most ("VmHWM").

    Where the kernel does not tell, the peak stands for both. `resource` would start from
    the peak of the process that started this one.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def forget_peak() -> None:
    """Let the peak begin anew, where the kernel can."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def limit_threads(n_threads: int) -> None:
    """Give torch its number of threads again: numba and others change it when imported."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)


def clock_of(threads: int) -> Callable[[], float]:
    """Return the processor's seconds for one thread, which a busy machine leaves alone.

    With more threads they would be added up, so there it is the clock on the wall.
    """
    return time.process_time if threads == 1 else time.perf_counter


def median_seconds(
    call: Callable[[], object], clock: Callable[[], float], seconds: float = CALL_SECONDS
) -> float:
    """Median time of a call that has been made before."""
    measured: list[float] = []
    while not measured or (len(measured) < CALLS and sum(measured) < seconds):
        start = clock()
        call()
        measured.append(clock() - start)
    return float(np.median(measured))


def repeated(rows: Array, n_rows: int, seed: int, *, jitter: bool) -> Array:
    """As many rows as asked for, the held-out ones in turn, no two of them the same."""
    many = np.resize(rows, (n_rows, rows.shape[1]))
    if jitter:
        noise = np.random.default_rng(seed).normal(size=many.shape)
        many = many + JITTER * rows.std(axis=0) * noise
        many = np.clip(many, rows.min(), rows.max())
    return many.astype(rows.dtype)


class Cell:
    """A method on one split, measured stage by stage into `row`."""

    def __init__(self, spec: dict[str, Any], folder: Path) -> None:
        self.spec = spec
        self.folder = folder
        self.clock = clock_of(spec["threads"])
        name = "processor" if self.clock is time.process_time else "wall"
        self.row: dict[str, Any] = {"errors": {}, "clock": name}
        self.reducer = self._new_reducer()
        self.rows: Array = np.load(Path(spec["rows"]) / "train.npy")
        self.held_out: Array = np.load(Path(spec["rows"]) / "test.npy")

    def _new_reducer(self) -> Reducer:
        spec = self.spec
        method = METHODS[spec["method"]]
        return method(spec["n_components"], spec["likelihood"], spec["seed"])

    def run(self) -> None:
        """Go through the stages; the first have to succeed, of the others each may fail."""
        stages = (
            self.load,
            self.warm_up,
            self.fit,
            self.codes,
            self.transform_time,
            self.saved_size,
            self.samples,
            self.independence,
            self.inverse,  # last: some cannot be interrupted but by ending the process
        )
        for stage in stages:
            name = stage.__name__
            self.report(name)
            try:
                stage()
            except Exception as error:
                if name in ESSENTIAL:
                    self.row["error"] = f"{name}: {described(error)}"
                    break
                self.row["errors"][name] = described(error)
        self.report(None)

    def report(self, stage: str | None) -> None:
        """Write what there is, and the stage that begins."""
        write_json(self.folder / "document.json", {"stage": stage, "row": self.row})

    def load(self) -> None:
        """Import the package, and prepare the rows."""
        start = self.clock()
        self.reducer.load()
        self.row["import_seconds"] = self.clock() - start
        limit_threads(self.spec["threads"])
        self.input, self.new = map(self.reducer.prepare, (self.rows, self.held_out))

    def warm_up(self) -> None:
        """Fit a few rows where a package compiles itself on its first fit."""
        if not self.reducer.compiles:
            return
        few = self.input[:WARM_UP_ROWS]
        start = self.clock()
        other = self._new_reducer()
        other.load()
        other.fit(few)
        other.transform(few[:2])
        self.row["compile_seconds"] = self.clock() - start
        limit_threads(self.spec["threads"])

    def fit(self) -> None:
        """Time and peak memory of the fit."""
        forget_peak()
        before = memory_mib("VmRSS")
        start = self.clock()
        self.reducer.fit(self.input)
        self.row["fit_seconds"] = self.clock() - start
        self.row["peak_mib"] = memory_mib("VmHWM")
        self.row["fit_mib"] = self.row["peak_mib"] - before
        self.row["settings"] = self.reducer.settings

    def codes(self) -> None:
        """Codes of the training rows, as the fit left them, and of the held-out ones."""
        self.z = self.reducer.transform(self.new)
        np.save(self.folder / "codes_train.npy", self.reducer.training_codes(self.input))
        np.save(self.folder / "codes_test.npy", self.z)

    def transform_time(self) -> None:
        """Seconds of many new rows, and of one."""
        n_rows = self.spec["transform_rows"]
        counts = self.reducer.takes_counts
        rows = repeated(self.new, n_rows, self.spec["seed"], jitter=not counts)
        self.row["transform_rows"] = n_rows
        self.row["transform_seconds"] = median_seconds(
            lambda: self.reducer.transform(rows), self.clock, 1.0
        )
        self.reducer.transform(rows[:1])
        self.row["one_row_seconds"] = median_seconds(
            lambda: self.reducer.transform(rows[:1]), self.clock
        )

    def saved_size(self) -> None:
        """Bytes of what a new process needs to map rows."""
        self.row["saved_bytes"] = self.reducer.saved_bytes()

    def samples(self) -> None:
        """Draw new rows, for whoever measures how real they look."""
        n_rows = min(SAMPLED_ROWS, len(self.new))
        for latent in self.reducer.latents:
            rows = self.reducer.sample(n_rows, latent, self.input)
            np.save(self.folder / f"samples_{latent}.npy", rows)

    def independence(self) -> None:
        """Whether a row's code depends on the rows beside it, or on the call."""
        from benchmarks.metrics import row_independence  # imports more than some methods do

        limit_threads(self.spec["threads"])
        found = row_independence(self.reducer.transform, self.new[:INDEPENDENCE_ROWS])
        self.row |= {
            "row_independent": found.independent,
            "deterministic": found.deterministic,
            "row_difference": found.difference,
            "repeat_difference": found.repeat_difference,
        }

    def inverse(self) -> None:
        """Error and seconds of decoding held-out codes, some of them if it is slow."""
        if not self.reducer.inverts:
            return
        z, rows = (part[: self.reducer.inverse_rows] for part in (self.z, self.held_out))
        self.reducer.inverse_transform(z[:1])
        start = self.clock()
        decoded = self.reducer.inverse_transform(z)
        self.row["inverse_seconds"] = self.clock() - start
        self.row["inverse_rows"] = len(rows)
        self.row["held_out_squared_error"] = float(np.square(decoded - rows).mean())
        # What decoding every code to the mean of the training rows would give.
        mean = self.rows.mean(axis=0)
        self.row["squared_error_of_mean"] = float(np.square(rows - mean).mean())


def main() -> None:
    """Measure what the folder's specification says."""
    folder = Path(sys.argv[1])
    Cell(json.loads((folder / "spec.json").read_text()), folder).run()


if __name__ == "__main__":
    main()
