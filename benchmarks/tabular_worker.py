"""What ``tabular`` runs in another interpreter: ``tabular_worker.py TASK FOLDER OPTIONS``.

It imports nothing of this repository, and prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd


def read(path: Path) -> Any:
    """Read a frame; only empty cells are missing."""
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def is_number(column: Any) -> bool:
    """Whether a column holds numbers."""
    return bool(pd.api.types.is_numeric_dtype(column))


def sdmetrics(folder: Path) -> dict[str, Any]:
    """Return the scores of sdmetrics' quality report."""
    from sdmetrics.reports.single_table import QualityReport

    train, rows = read(folder / "train.csv"), read(folder / "rows.csv")
    kinds = {
        name: {"sdtype": "numerical" if is_number(train[name]) else "categorical"} for name in train
    }
    report = QualityReport()
    report.generate(train, rows, {"columns": kinds}, verbose=False)
    scores = report.get_properties().set_index("Property")["Score"]
    return {
        "column_shapes": float(scores["Column Shapes"]),
        "pair_trends": float(scores["Column Pair Trends"]),
        "sdmetrics": version("sdmetrics"),
    }


def arf(folder: Path, seed: int) -> dict[str, Any]:
    """Draw as many rows as there are by adversarial random forests (Watson et al., 2023)."""
    from arfpy import arf as library

    vars(np).setdefault("in1d", np.isin)  # which it calls, and NumPy 2.4 has no more
    np.random.seed(seed)
    train = read(folder / "train.csv").dropna().reset_index(drop=True)
    for name in train:
        if not is_number(train[name]):
            train[name] = train[name].astype("category")
    start = time.process_time()
    model = library.arf(x=train, random_state=seed, verbose=False)
    model.forde()
    fitted = time.process_time()
    rows = model.forge(n=len(train))
    done = time.process_time()
    rows.to_csv(folder / "drawn.csv", index=False)
    seconds = {"fit_seconds": fitted - start, "sample_seconds": done - fitted}
    return {**seconds, "arfpy": version("arfpy")}


def main() -> None:
    """Run a task."""
    task, folder, options = sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3])
    tasks: dict[str, Any] = {"sdmetrics": sdmetrics, "arf": arf}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = tasks[task](folder, **options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
