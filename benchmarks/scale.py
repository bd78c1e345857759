"""Larger than memory: an epoch from a file against one in memory, and the memory of both.

``python -m benchmarks scale`` writes generated counts to .h5ad files, and trains on them backed
and in memory, each in a process of its own. It writes ``results/scale.json``.
"""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.results import Results, parser
from benchmarks.runner import Report, Row, limit_threads, memory_mib, result, run
from benchmarks.speed import unwarned
from benchmarks.work import N_GENES, counts, ours

#: Cells that are generated and written together.
CHUNK_CELLS = 50_000
EPOCHS = 2
#: Where rows come from: how anndata opens their file.
HOW = {"backed": "r", "in memory": None}


def generate(path: Path, n_cells: int) -> None:
    """Write counts as an AnnData, a chunk of cells in memory at a time."""
    import anndata
    import h5py
    import pandas as pd

    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        for number, first in enumerate(range(0, n_cells, CHUNK_CELLS)):
            rows = counts(min(CHUNK_CELLS, n_cells - first), seed=number)
            if number == 0:
                how = {"chunks": (min(2**18, rows.nnz),)}
                anndata.io.write_elem(file, "X", rows, dataset_kwargs=how)
            else:
                anndata.io.sparse_dataset(file["X"]).append(rows)
        for name, length in (("obs", n_cells), ("var", N_GENES)):
            index = np.char.add(name, np.arange(length).astype(str))
            anndata.io.write_elem(file, name, pd.DataFrame(index=index))


def fit(spec: Row, report: Report) -> Row:
    """Train, in this process, and say how fast and with how much memory."""
    import anndata

    with unwarned():
        start = time.perf_counter()
        X = anndata.read_h5ad(spec["path"], backed=HOW[spec["how"]]).X
        limit_threads(spec["threads"])
        model = ours("HEBAE", X, likelihood="negative_binomial")(EPOCHS)
        total = time.perf_counter() - start
    speed = X.shape[0] * EPOCHS / sum(model.history_["seconds"])
    return {"rows_per_second": speed, "total_seconds": total, "peak_mib": memory_mib()}


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    made = parser("scale", __doc__, threads=2, resumes=True)
    made.add_argument("--cells", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    made.add_argument("--folder", type=Path, help="of the generated files; by default temporary")
    arguments = made.parse_args(argv)
    results = Results(arguments.output / "scale.json", resume=arguments.resume)
    for n_cells in arguments.cells:
        cells = [{"n_cells": n_cells, "how": how, "threads": arguments.threads} for how in HOW]
        with TemporaryDirectory(dir=arguments.folder) as name:
            path = Path(name) / "cells.h5ad"
            for number, cell in enumerate(cell for cell in cells if not results.has(**cell)):
                if not path.exists():
                    generate(path, n_cells)
                spec, folder = {"path": str(path), **cell}, Path(name) / f"run-{number}"
                folder.mkdir()
                rows = run("benchmarks.scale:fit", [spec], folder, threads=arguments.threads)
                size = {"file_mb": path.stat().st_size / 1e6}
                results.add({**cell, **size, **result(rows)})
