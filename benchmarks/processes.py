"""Processes of their own for ``compare``: their threads, their time limits, what they leave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.cell import ESSENTIAL, write_json

ROOT = Path(__file__).parents[1]

#: Seconds for decoding: UMAP's needs the Delaunay triangulation of the codes, which has no
#: end in ten dimensions, and cannot be interrupted but with the process.
INVERSE_TIMEOUT = 60.0
#: Seconds between looks at a process.
POLL = 0.1

#: Libraries that read their number of threads when imported.
THREADED = ("OMP", "MKL", "OPENBLAS", "NUMBA", "VECLIB_MAXIMUM")


def variables(threads: int, **more: str) -> dict[str, str]:
    """Return the environment of a process, which has to be there before its imports."""
    limits = {f"{library}_NUM_THREADS": str(threads) for library in THREADED}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    # Without a graphics card: not all of the methods would use it.
    return {**os.environ, **limits, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", **more}


def run(
    spec: dict[str, Any],
    folder: Path,
    timeout: float,
    inverse_timeout: float = INVERSE_TIMEOUT,
    command: list[str] | None = None,
) -> dict[str, Any]:
    """Run one process to its end or its time limit, and return the row it has written."""
    write_json(folder / "spec.json", spec)
    is_conformance = spec["kind"] == "conformance"
    module = f"benchmarks.{spec['kind']}"
    command = command or [sys.executable, "-m", module, str(folder)]
    # scikit-learn's checks of the array API want this.
    more = {"SCIPY_ARRAY_API": "1"} if is_conformance else {}
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=variables(spec["threads"], **more)
        )
        try:
            reason = wait(process, folder, timeout, inverse_timeout)
        finally:
            process.kill()
            process.wait()
    document = read_document(folder)
    row: dict[str, Any] = document["row"]
    stage = document["stage"]
    if reason is None and stage is not None:
        reason = f"ended with code {process.returncode}: {last_line(folder / 'log.txt')}"
    if reason is not None:
        if is_conformance or stage in ESSENTIAL:
            row["error"] = f"{stage}: {reason}"
        else:
            row["errors"][stage] = reason
    return row


def wait(
    process: subprocess.Popen[bytes], folder: Path, timeout: float, inverse_timeout: float
) -> str | None:
    """Wait for a process; return why not for longer if a limit is over."""
    end = time.monotonic() + timeout
    inverse_end = float("inf")
    while process.poll() is None:
        now = time.monotonic()
        if now > end:
            return f"no end after {timeout:g} s"
        if now > inverse_end:
            return f"no end after {inverse_timeout:g} s"
        if inverse_end == float("inf") and read_document(folder)["stage"] == "inverse":
            inverse_end = now + inverse_timeout
        time.sleep(POLL)
    return None


def end_children_too() -> None:
    """Let SIGTERM end this process as Ctrl-C does: by way of `run`, with its child."""
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))


def read_document(folder: Path) -> dict[str, Any]:
    """Return what a process has written so far."""
    path = folder / "document.json"
    if not path.exists():
        return {"stage": "start", "row": {"errors": {}}}
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def last_line(log: Path) -> str:
    """Return the last line that says something: of a traceback, the error."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines()]
    return next((line[-300:] for line in reversed(lines) if line), "no output")
