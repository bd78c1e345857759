"""Larger than memory: an epoch from a file against one in memory, and the memory of both.

``python -m benchmarks scale`` writes generated counts, 2,000 genes of which one entry in
twenty is not zero, to .h5ad files, and trains on them backed and in memory, each in a
process of its own. Rows a second, and the process's peak memory, to ``results/scale.json``.
``--how zarr memmap`` measures the same counts in other files: sparse in zarr, dense bytes in
a memory map (whose pages the system counts as the process's, and may take back).
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
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import sparse

from benchmarks.common import RESULTS, Results
from benchmarks.processes import ROOT, variables
from benchmarks.speed_cell import DENSITY, N_GENES, columns_of

#: Cells that are generated and written together.
CHUNK_CELLS = 50_000

EPOCHS = 2


#: Where rows come from, and the name of their file.
FILES = {
    "backed": "cells.h5ad",
    "in memory": "cells.h5ad",
    "zarr": "cells.zarr",
    "memmap": "cells.bytes",
}


def chunks(n_cells: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Cells, genes that are not zero in each, and their counts, some cells at a time."""
    rng = np.random.default_rng(0)
    for first in range(0, n_cells, CHUNK_CELLS):
        cells = slice(first, min(first + CHUNK_CELLS, n_cells))
        columns = columns_of(cells.stop - first, rng)
        yield cells, columns, 1.0 + rng.poisson(1.0, size=columns.shape)


def generate(path: Path, n_cells: int) -> None:
    """Write counts to the kind of file that the path's suffix says."""
    {".h5ad": write_h5ad, ".zarr": write_zarr, ".bytes": write_bytes}[path.suffix](path, n_cells)


def write_h5ad(path: Path, n_cells: int) -> None:
    """Write counts as an AnnData, a chunk of cells in memory at a time."""
    import h5py

    per_cell = int(N_GENES * DENSITY)
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
        for cells, columns, values in chunks(n_cells):
            part = slice(cells.start * per_cell, cells.stop * per_cell)
            indices[part], data[part] = columns.ravel(), values.ravel()
        for name, length in (("obs", n_cells), ("var", N_GENES)):
            frame = file.create_group(name)
            frame.attrs.update({"encoding-type": "dataframe", "encoding-version": "0.2.0"})
            frame.attrs["_index"] = "_index"
            frame.attrs["column-order"] = np.array([], dtype="S1")
            labels = np.char.add(name, np.arange(length).astype(str)).astype("S")
            index = frame.create_dataset("_index", data=labels)
            index.attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})


def write_zarr(path: Path, n_cells: int) -> None:
    """Write counts as a sparse matrix of anndata's, without cells' names."""
    import anndata
    import zarr

    file = zarr.open_group(path, mode="w")
    for cells, columns, values in chunks(n_cells):
        pointers = np.arange(len(columns) + 1) * columns.shape[1]
        shape = (len(columns), N_GENES)
        counts = values.astype(np.float32).ravel(), columns.astype(np.int32).ravel(), pointers
        rows = sparse.csr_matrix(counts, shape)
        if cells.start == 0:
            anndata.io.write_elem(file, "X", rows, dataset_kwargs={"shards": None})
        else:
            anndata.io.sparse_dataset(file["X"]).append(rows)


def write_bytes(path: Path, n_cells: int) -> None:
    """Write counts as they would be in memory, dense, a byte each."""
    with path.open("wb") as file:
        for _, columns, values in chunks(n_cells):
            rows = np.zeros((len(columns), N_GENES), dtype=np.uint8)
            np.put_along_axis(rows, columns, values.astype(np.uint8), axis=1)
            rows.tofile(file)


def table(path: Path, how: str) -> Any:
    """Open what `generate` wrote."""
    import anndata

    if how == "zarr":
        import zarr

        return anndata.io.sparse_dataset(zarr.open_group(path, mode="r")["X"])
    if how == "memmap":
        return np.memmap(path, dtype=np.uint8, mode="r").reshape(-1, N_GENES)
    return anndata.read_h5ad(path, backed="r" if how == "backed" else None).X


def fit(path: Path, how: str, threads: int) -> dict[str, Any]:
    """Train, in this process, and say how fast and with how much memory."""
    import torch

    from skhebae import HEBAETransformer

    torch.set_num_threads(threads)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # two epochs converge to nothing
        start = time.perf_counter()
        X = table(path, how)
        model = HEBAETransformer(
            10, likelihood="negative_binomial", max_iter=EPOCHS, batch_size=128, random_state=0
        )
        model.fit(X)
        total = time.perf_counter() - start
    return {
        "rows_per_second": X.shape[0] * EPOCHS / sum(model.history_["seconds"]),
        "total_seconds": total,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files of a folder."""
    parts = [part for part in path.rglob("*") if part.is_file()] if path.is_dir() else [path]
    return sum(part.stat().st_size for part in parts)


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
    parser.add_argument("--how", nargs="+", choices=FILES, default=["backed", "in memory"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folder", type=Path, help="of the generated files; by default temporary")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--fit", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.fit:
        path, how, threads = arguments.fit
        row = fit(Path(path), how, int(threads))
        os.write(1, f"{json.dumps(row)}\n".encode())
        return
    results = Results(arguments.output / "scale.json", resume=arguments.resume)
    for n_cells in arguments.cells:
        done = {row["how"] for row in results.rows if row["n_cells"] == n_cells}
        with TemporaryDirectory(dir=arguments.folder) as folder:
            for how in (how for how in arguments.how if how not in done):
                path = Path(folder) / FILES[how]
                if not path.exists():
                    generate(path, n_cells)
                row = in_a_process(path, how, arguments.threads)
                common = {"n_cells": n_cells, "how": how, "threads": arguments.threads}
                results.rows.append({**common, "file_mb": size_of(path) / 1e6, **row})
                print(results.rows[-1], flush=True)
                results.write()


if __name__ == "__main__":
    main()
