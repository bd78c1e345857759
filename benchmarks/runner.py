"""Run a contender in a process of its own, and keep what it reports.

`run("benchmarks.speed:train", [spec], threads=1)` calls that function in a new process with its
specification and with `report(stage, row)`, which writes the row so far: a crash or a time limit
in a later stage loses nothing. Only the standard library is imported here, so that memory and
seconds of importing are those of the contender.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
Report = Callable[[str | None, Row], None]
ROOT = Path(__file__).parents[1]
#: Seconds between looks at a process.
POLL = 0.05
#: Libraries that read their number of threads when they are imported.
THREADED = ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB_MAXIMUM")


def run(
    function: str,
    specs: Sequence[Row],
    folder: Path,
    *,
    threads: int,
    limits: Mapping[str, float] | None = None,
    optional: Collection[str] = (),
) -> list[Row]:
    """Run one process per specification, all at once, and return their rows.

    Each process writes into a folder of its own in `folder`, named by its number, which its
    specification names. `limits` are the seconds that a stage may take, with "" for any other.
    If one of the `optional` stages fails, ``row["errors"]`` says so and not ``row["error"]``.
    """
    processes, rows = [], []
    try:
        for number, spec in enumerate(specs):
            own = folder / str(number)
            own.mkdir()
            whole = {**spec, "threads": threads, "folder": str(own)}
            write_json(own / "spec.json", {"function": function, "spec": whole})
            command = [sys.executable, "-m", __name__, str(own)]
            processes.append(start(command, own, threads))
        for number, process in enumerate(processes):
            rows.append(finish(process, folder / str(number), limits or {}, optional))
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return rows


def result(rows: Sequence[Row]) -> Row:
    """Return the first of several rows; raise what stopped any of them."""
    for row in rows:
        if "error" in row:
            raise RuntimeError(f"the process failed: {row['error']}")
    return rows[0]


def start(command: list[str], folder: Path, threads: int) -> subprocess.Popen[bytes]:
    """Start a process with its threads set before its imports, and without a graphics card."""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in THREADED}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, **limits, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    with (folder / "log.txt").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def finish(
    process: subprocess.Popen[bytes],
    folder: Path,
    limits: Mapping[str, float],
    optional: Collection[str] = (),
) -> Row:
    """Wait for a process or its time limit, and return its row, with why it did not end well."""
    reason, current, begun = None, None, time.monotonic()
    while process.poll() is None and reason is None:
        stage, _ = read(folder)
        if stage != current:
            current, begun = stage, time.monotonic()
        limit = limits.get(stage or "", limits.get("", float("inf")))
        if time.monotonic() - begun > limit:
            reason = f"no end after {limit:g} s"
        time.sleep(POLL)
    process.kill()
    process.wait()
    stage, row = read(folder)
    if reason is None and stage is not None:
        reason = f"ended with code {process.returncode}: {last_line(folder / 'log.txt')}"
    if reason is not None and stage in optional:
        row.setdefault("errors", {})[stage] = reason
    elif reason is not None:
        row["error"] = f"{stage}: {reason}"
    return row


def read(folder: Path) -> tuple[str | None, Row]:
    """Return the stage that a process is in, None at its end, and its row so far."""
    path = folder / "row.json"
    if not path.exists():
        return "start", {}
    document = json.loads(path.read_text())
    return document["stage"], document["row"]


def write_json(path: Path, document: Row) -> None:
    """Write a document whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(partial, path)


def described(error: BaseException) -> str:
    """Describe an error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def last_line(log: Path) -> str:
    """Return the last line that says something: in a traceback, the error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line[-300:] for line in reversed(lines) if line), "no output")


def end_children_too() -> None:
    """Let SIGTERM end this process as Ctrl-C does: by way of `run`, with its children."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def memory_mib(field: str = "VmHWM") -> float:
    """Return this process's memory, now ("VmRSS") or at its peak, which Linux alone tells apart."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)


def clock(n_threads: int) -> Callable[[], float]:
    """Return the processor's clock for one thread, whoever else is busy; the wall's for several."""
    return time.process_time if n_threads == 1 else time.perf_counter


def limit_threads(n_threads: int) -> None:
    """Set torch's number of threads again: numba and others change it when imported."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(n_threads)


def main(folder: Path) -> None:
    """Call the function that the folder's specification names, and write its row."""
    document = json.loads((folder / "spec.json").read_text())
    latest: tuple[str | None, Row] = ("start", {})

    def report(stage: str | None, row: Row) -> None:
        nonlocal latest
        latest = (stage, row)
        write_json(folder / "row.json", {"stage": stage, "row": row})

    module, _, name = document["function"].partition(":")
    try:
        row = getattr(importlib.import_module(module), name)(document["spec"], report)
    except Exception as error:
        traceback.print_exc()
        stage, row = latest
        row = {**row, "error": f"{stage}: {described(error)}"}
    report(None, row)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
