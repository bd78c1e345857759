"""What the benchmarks share: a measure of samples, the machine's description, JSON."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

RESULTS = Path(__file__).parent / "results"


def two_sample_accuracy(real: NDArray[Any], generated: NDArray[Any]) -> float:
    """Accuracy of 5 neighbours at telling real rows from generated ones; 0.5 is chance."""
    rows = np.concatenate([real, generated])
    labels = np.repeat([0, 1], [len(real), len(generated)])
    return float(cross_val_score(KNeighborsClassifier(5), rows, labels, cv=5).mean())


def environment() -> dict[str, Any]:
    """Where and with what a result was made."""
    # Here, so that a process that measures PCA loads no torch for it.
    import sklearn
    import torch

    import skhebae

    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0].split(":")[1].strip() if models else processor
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "skhebae": skhebae.__version__,
    }


class Results:
    """The JSON of a run, written after every row.

    Parameters
    ----------
    path : Path
    resume : bool
        Whether to keep the rows that are there.
    """

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume and path.exists():
            self.rows = json.loads(path.read_text())["rows"]

    def write(self) -> None:
        """Write what there is."""
        write(self.path.stem, self.rows, folder=self.path.parent)


def write(name: str, rows: list[dict[str, Any]], folder: Path = RESULTS) -> None:
    """Write results so far, with the environment, to ``<name>.json``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {"environment": environment(), "rows": rows}
    temporary = folder / f".{name}.json.tmp"
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    os.replace(temporary, folder / f"{name}.json")
