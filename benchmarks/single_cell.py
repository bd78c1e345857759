"""Single cells: embeddings of cell types, of batches, and of cells of a new batch.

``python -m benchmarks single-cell`` writes ``results/single_cell.json`` after each row:
HEBAE, VAE and WAE on counts and on log-normalised values against PCA, UMAP and, where
installed, scVI, with ten dimensions and 2,000 variable genes, all on the same cells. Types
are measured by neighbours, k-means and silhouette, integration by scib-metrics; where
batches are integrated, HEBAE's ways to do so too, also after each batch lost a type of its
own. Batches that are left out of the fit are projected, and their types predicted by
neighbours. On genotypes, populations at four dimensions.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.common import RESULTS, Results
from benchmarks.datasets import DATA, Dataset, load
from benchmarks.metrics import label_metrics
from benchmarks.single_cell_methods import METHODS, NEEDED, SHARES, Method
from skhebae import HEBAETransformer

Array = NDArray[Any]

N_GENES = 2000
N_NEIGHBORS = 15
#: Dimensions at which genotypes are looked at.
POPULATION_COMPONENTS = 4


class CellSet(NamedTuple):
    """A file, the columns of obs with types, and what is done with its batches."""

    file: str
    labels: tuple[str, ...] = ("cell_type",)
    integrates: bool = False
    one_sided: bool = False


SETS = {
    "pbmc3k": CellSet("pbmc3k.h5ad"),
    "paul15": CellSet("paul15.h5ad", ("cell_type", "lineage")),
    "cbmc": CellSet("cbmc_citeseq.h5ad"),
    "kang_ctrl": CellSet("kang_ctrl_8donor.h5ad"),
    "pbmc_3tech": CellSet("pbmc_3tech.h5ad", integrates=True),
    "kang_ifnb": CellSet("kang_ifnb.h5ad", integrates=True),
    "pbmc_3tech, one-sided": CellSet("pbmc_3tech.h5ad", integrates=True, one_sided=True),
    "kang_ifnb, one-sided": CellSet("kang_ifnb.h5ad", integrates=True, one_sided=True),
}
#: Set whose batches are left out in turn.
PROJECTED = "pbmc_3tech"
GENOTYPES = "hapmap"


def prepared(adata: Any, batch_key: str | None) -> Any:
    """Keep the counts of variable genes, and log-normalised values in a layer."""
    import scanpy

    log = adata.copy()
    scanpy.pp.normalize_total(log, target_sum=1e4)
    scanpy.pp.log1p(log)
    if adata.n_vars > N_GENES:
        scanpy.pp.highly_variable_genes(log, n_top_genes=N_GENES, batch_key=batch_key)
        kept = log.var["highly_variable"].to_numpy()
        adata, log = adata[:, kept].copy(), log[:, kept]
    adata.layers["log"] = log.X.toarray() if hasattr(log.X, "toarray") else np.asarray(log.X)
    return adata


def without_one_type_each(adata: Any) -> Any:
    """Take from the i-th batch the i-th most frequent type: batches differ in kind now.

    ``uns["one_sided"]`` names these types.
    """
    types = adata.obs["cell_type"].value_counts().index
    batches = sorted(adata.obs["batch"].unique())
    kept = np.ones(adata.n_obs, dtype=bool)
    for batch, lost in zip(batches, types, strict=False):
        kept &= ~((adata.obs["batch"] == batch) & (adata.obs["cell_type"] == lost)).to_numpy()
    result = adata[kept].copy()
    result.uns["one_sided"] = np.asarray(types[: len(batches)], dtype=str)
    return result


def neighbour_accuracy(codes: Array, labels: Array, seed: int) -> float:
    """Accuracy of neighbours in five folds."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # Of a type with fewer cells than there are folds.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        model = KNeighborsClassifier(N_NEIGHBORS)
        return float(cross_val_score(model, codes, labels, cv=folds).mean())


def of_types(codes: Array, labels: Array, seed: int) -> dict[str, Any]:
    """Neighbours' accuracy, and k-means and silhouette with their controls."""
    found = {name: asdict(value) for name, value in label_metrics(codes, labels, seed).items()}
    return {"knn_accuracy": neighbour_accuracy(codes, labels, seed), **found}


def of_integration(adata: Any, codes: Array) -> dict[str, float]:
    """Totals of scib-metrics, the 50 principal components being the state before."""
    from scib_metrics.benchmark import Benchmarker

    adata = adata.copy()
    before = PCA(min(50, *adata.shape), random_state=0)
    adata.obsm["before"] = before.fit_transform(adata.layers["log"])
    adata.obsm["codes"] = np.asarray(codes, dtype=np.float32)
    judge = Benchmarker(
        adata,
        batch_key="batch",
        label_key="cell_type",
        embedding_obsm_keys=["codes"],
        pre_integrated_embedding_obsm_key="before",
        n_jobs=1,
        progress_bar=False,
    )
    judge.benchmark()
    row = judge.get_results(min_max_scale=False).loc["codes"]
    return {str(name): float(value) for name, value in row.items()}


def purity(codes: Array, labels: Array, chosen: Array) -> float:
    """Share of the neighbours of cells of the `chosen` types that are of the cell's own."""
    found = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(codes).kneighbors(return_distance=False)
    same = (labels[found] == labels[:, None]).mean(axis=1)
    return float(same[np.isin(labels, chosen)].mean())


def timed(method: Method, adata: Any, batch_key: str | None, seed: int, threads: int) -> Any:
    """Fit with so many threads; what was fitted, and seconds of clock and processor."""
    import torch

    # scanpy and numba set torch's threads to their own number when imported.
    torch.set_num_threads(threads)
    clock, processor = time.perf_counter(), time.process_time()
    fitted = method(adata, batch_key, seed)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return fitted, {"fit_seconds": clock, "processor_seconds": processor, "threads": threads}


def of_projection(adata: Any, method: Method, seed: int, threads: int) -> Iterator[dict[str, Any]]:
    """Leave each batch out of the fit and predict its types by neighbours."""
    for batch in sorted(adata.obs["batch"].unique()):
        new = (adata.obs["batch"] == batch).to_numpy()
        known, query = adata[~new].copy(), adata[new].copy()
        fitted, seconds = timed(method, known, "batch", seed, threads)
        start = time.perf_counter()
        codes = fitted.project(query)
        project_seconds = time.perf_counter() - start
        knn = KNeighborsClassifier(N_NEIGHBORS).fit(fitted.codes, known.obs["cell_type"])
        accuracy = float(knn.score(codes, query.obs["cell_type"]))
        yield {
            "batch": str(batch),
            "n_cells": len(codes),
            "accuracy": accuracy,
            "project_seconds": project_seconds,
            **seconds,
        }


def genotypes(data: Dataset, seed: int) -> Iterator[dict[str, Any]]:
    """Measure populations."""
    hebae = partial(HEBAETransformer, POPULATION_COMPONENTS, random_state=seed)
    for name, model, rows in (
        ("PCA", PCA(POPULATION_COMPONENTS, random_state=seed), data.rows),
        ("HEBAE", hebae(), data.rows),
        ("HEBAE, shares", hebae(likelihood="bernoulli"), data.rows / 2.0),
    ):
        codes = model.fit_transform(rows)
        yield {"method": name, "label": "population", **of_types(codes, data.labels, seed)}


class PrintedResults(Results):
    """The JSON of a run, written and shown after every row."""

    def has(self, **cell: Any) -> bool:
        """Whether a row of this kind, set, method and seed is there."""
        return any(all(row.get(k) == v for k, v in cell.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, and say so."""
        self.rows.append(row)
        self.write()
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        print({k: v for k, v in shown.items() if not isinstance(v, dict)}, flush=True)


def of_set(
    name: str,
    adata: Any,
    methods: dict[str, Method],
    seed: int,
    threads: int,
    results: PrintedResults,
) -> None:
    """Fit every method to one set, and measure its codes."""
    batch_key = "batch" if SETS[name].integrates else None
    for method, fit in methods.items():
        cell = {"data": name, "method": method, "seed": seed}
        if not results.has(kind="types", **cell):
            fitted, seconds = timed(fit, adata, batch_key, seed, threads)
            common = {**cell, **seconds, "n_cells": adata.n_obs, "n_genes": adata.n_vars}
            for column in SETS[name].labels:
                labels = adata.obs[column].to_numpy(dtype=str)
                row = {"kind": "types", **common, "label": column}
                row |= of_types(fitted.codes, labels, seed)
                if batch_key is not None:
                    row["scib"] = of_integration(adata, fitted.codes)
                if SETS[name].one_sided:
                    row["purity"] = purity(fitted.codes, labels, adata.uns["one_sided"])
                results.add(row)
        if name == PROJECTED and method in METHODS and not results.has(kind="projection", **cell):
            for part in of_projection(adata, fit, seed, threads):
                results.add({"kind": "projection", **cell, **part})


def chosen_methods(names: list[str] | None) -> dict[str, Method]:
    """Return the methods that can run here, and say of the others what to install."""
    methods = {**METHODS, **SHARES}
    if names is not None:
        methods = {name: methods[name] for name in names}
    for name, (module, package) in NEEDED.items():
        if name in methods and not find_spec(module):
            print(f"{name} left out: python -m pip install {package}")
            del methods[name]
    return methods


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    everything = [*SETS, GENOTYPES]
    parser = argparse.ArgumentParser(prog="python -m benchmarks single-cell", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=everything, default=everything)
    parser.add_argument("--methods", nargs="+", choices=[*METHODS, *SHARES])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data-dir", type=Path, default=DATA)
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    results = PrintedResults(arguments.output / "single_cell.json", resume=arguments.resume)
    methods = chosen_methods(arguments.methods)
    for seed in arguments.seeds:
        for name in arguments.data:
            if name == GENOTYPES:
                of_genotypes(arguments.data_dir, seed, results)
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of what scanpy, umap and scVI are made of
                adata = read(name, arguments.data_dir)
                if adata is not None:
                    own = {k: v for k, v in methods.items() if k in METHODS or integrates(name)}
                    of_set(name, adata, own, seed, arguments.threads, results)


def integrates(name: str) -> bool:
    """Whether the batches of a set are integrated."""
    return SETS[name].integrates


def of_genotypes(folder: Path, seed: int, results: PrintedResults) -> None:
    """Measure genotypes where the file is there."""
    data = load(GENOTYPES, folder)
    if data is not None and not results.has(kind="genotypes", seed=seed):
        for row in genotypes(data, seed):
            results.add({"kind": "genotypes", "data": GENOTYPES, "seed": seed, **row})


def read(name: str, folder: Path) -> Any:
    """Return a set, prepared; None, and why, where its file or scib-metrics is not there."""
    import anndata

    path = folder / SETS[name].file
    if not path.is_file():
        print(f"{name} left out: no file {path}; set SKHEBAE_DATA to the folder that has it")
        return None
    if integrates(name) and not find_spec("scib_metrics"):
        print(f"{name} left out: python -m pip install scib-metrics")
        return None
    adata = prepared(anndata.read_h5ad(path), "batch" if integrates(name) else None)
    return without_one_type_each(adata) if SETS[name].one_sided else adata


if __name__ == "__main__":
    main()
