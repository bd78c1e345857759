"""Larger than memory: an epoch from a file against one in memory, and the memory of both.

``python -m benchmarks scale`` writes generated counts, 2,000 genes of which one entry in
twenty is not zero, to .h5ad files, and trains on them backed and in memory, each in a
process of its own. Rows a second, and the process's peak memory, to ``results/scale.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, write
from benchmarks.processes import ROOT, variables
from benchmarks.speed_cell import DENSITY, N_GENES, columns_of

#: Cells that are generated and written together.
CHUNK_CELLS = 50_000

EPOCHS = 2


def generate(path: Path, n_cells: int) -> None:
    """Write counts as an AnnData, a chunk of cells in memory at a time."""
    import h5py

    per_cell = int(N_GENES * DENSITY)
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "anndata", "encoding-version": "0.1.0"})
        X = file.create_group("X")
        X.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0"})
        X.attrs["shape"] = np.array([n_cells, N_GENES])
        size, chunk = n_cells * per_cell, CHUNK_CELLS * per_cell // 16
        options = {"shape": (size,), "chunks": (min(size, chunk),)}
        data = X.create_dataset("data", dtype=np.float32, **options)
        indices = X.create_dataset("indices", dtype=np.int32, **options)
        X["indptr"] = np.arange(n_cells + 1, dtype=np.int64) * per_cell
        for first in range(0, n_cells, CHUNK_CELLS):
            n = min(CHUNK_CELLS, n_cells - first)
            part = slice(first * per_cell, (first + n) * per_cell)
            indices[part] = columns_of(n, rng).ravel()
            data[part] = 1.0 + rng.poisson(1.0, size=n * per_cell)
        for name, length in (("obs", n_cells), ("var", N_GENES)):
            frame = file.create_group(name)
            frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            frame.attrs["_index"] = "_index"
            frame.attrs["column-order"] = np.array([], dtype="S1")
            labels = np.char.add(name, np.arange(length).astype(str)).astype("S")
            index = frame.create_dataset("_index", data=labels)
            index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def fit(path: Path, backed: bool, threads: int) -> dict[str, Any]:
    """Train, in this process, and say how fast and with how much memory."""
    import anndata
    import torch

    from skhebae import HEBAETransformer

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs converge to nothing
        start = time.perf_counter()
        adata = anndata.read_h5ad(path, backed="r" if backed else None)
        model = HEBAETransformer(
            10, likelihood="negative_binomial", max_iter=EPOCHS, batch_size=128, random_state=0
        )
        model.fit(adata.X)
        total = time.perf_counter() - start
    return {
        "rows_per_second": adata.n_obs * EPOCHS / sum(model.history_["seconds"]),
        "total_seconds": total,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def in_a_process(path: Path, how: str, threads: int) -> dict[str, Any]:
    """`fit` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.scale", "--fit", str(path), how, str(threads)]
    done = subprocess.run(
        command, capture_output=True, text=True, env=variables(threads), cwd=ROOT, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{how} failed: {done.stderr[-2000:]}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks scale", description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", default=[250_000, 500_000, 1_000_000])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of the generated files; by default temporary")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.fit:
        path, how, threads = arguments.fit
        row = fit(Path(path), how == "backed", int(threads))
        os.write(1, f"{json.dumps(row)}\n".encode())
        return
    rows: list[dict[str, Any]] = []
    for n_cells in arguments.cells:
        with TemporaryDirectory(dir=arguments.folder) as folder:
            path = Path(folder) / "cells.h5ad"
            generate(path, n_cells)
            for how in ("backed", "in memory"):
                row = in_a_process(path, how, arguments.threads)
                common = {"n_cells": n_cells, "how": how, "threads": arguments.threads}
                rows.append({**common, "file_mb": path.stat().st_size / 1e6, **row})
                print(rows[-1], flush=True)
                write("scale", rows, folder=arguments.output)


if __name__ == "__main__":
    main()
