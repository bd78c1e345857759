"""Single cells: embeddings of cell types, of batches, and of cells of a new batch.

``python -m benchmarks single_cell`` writes ``results/single_cell.json`` after each row:
HEBAE, VAE and WAE on counts and on log-normalised values against PCA, UMAP and, where
installed, scVI, with ten dimensions and 2,000 variable genes, all on the same cells. Types
are measured by neighbours, k-means and silhouette, integration by scib-metrics. Batches
that are left out of the fit are projected, and their types predicted by neighbours. On
genotypes, populations at four dimensions.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.common import RESULTS, write
from benchmarks.datasets import DATA, Dataset, load
from benchmarks.metrics import label_metrics
from skhebae import HEBAETransformer, tl

Array = NDArray[Any]

N_COMPONENTS = 10
N_GENES = 2000
N_NEIGHBORS = 15

#: File of each set, and whether its batches are to be integrated.
SETS = {
    "pbmc3k": ("pbmc3k.h5ad", False),
    "paul15": ("paul15.h5ad", False),
    "kang_ctrl": ("kang_ctrl_8donor.h5ad", False),
    "cbmc": ("cbmc_citeseq.h5ad", False),
    "pbmc_3tech": ("pbmc_3tech.h5ad", True),
    "kang_ifnb": ("kang_ifnb.h5ad", True),
}
#: Set whose batches are left out in turn.
PROJECTED = "pbmc_3tech"


class Fitted(NamedTuple):
    """Codes of the cells of a fit, and a map for new ones."""

    codes: Array
    project: Callable[[Any], Array]


Method = Callable[[Any, str | None, int], Fitted]


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


def ours(name: str, layer: str | None = None, **params: Any) -> Method:
    """One of `skhebae.tl`."""

    def fit(adata: Any, batch_key: str | None, seed: int) -> Fitted:
        adata = adata.copy()
        embed = getattr(tl, name)
        model = embed(
            adata,
            N_COMPONENTS,
            layer=layer,
            mask_var=None,
            batch_key=batch_key,
            key_added="codes",
            random_state=seed,
            return_model=True,
            **params,
        )

        def project(query: Any) -> Array:
            codes: Array = tl.project(query, model, key_added="codes", copy=True).obsm["codes"]
            return codes

        return Fitted(adata.obsm["codes"], project)

    return fit


def pca(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Ten principal components of log-normalised values."""
    model = PCA(N_COMPONENTS, random_state=seed)
    codes = model.fit_transform(adata.layers["log"])
    return Fitted(codes, lambda query: model.transform(query.layers["log"]))


def umap(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """UMAP of log-normalised values."""
    from umap import UMAP

    model = UMAP(n_components=N_COMPONENTS, random_state=seed, n_jobs=1)
    codes = model.fit_transform(adata.layers["log"])
    return Fitted(codes, lambda query: model.transform(query.layers["log"]))


def scvi(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Run scVI with its defaults, as many epochs as it takes by its own rule, at most 200."""
    import scvi as library

    library.settings.seed = seed
    adata = adata.copy()
    library.model.SCVI.setup_anndata(adata, batch_key=batch_key)
    model = library.model.SCVI(adata, n_latent=N_COMPONENTS)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    model.train(max_epochs=min(200, round(20_000 / adata.n_obs * 400)), **quiet)

    def project(query: Any) -> Array:
        mapped = library.model.SCVI.load_query_data(query.copy(), model)
        mapped.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, **quiet)
        codes: Array = mapped.get_latent_representation()
        return codes

    return Fitted(model.get_latent_representation(), project)


METHODS: dict[str, Method] = {
    "PCA": pca,
    "UMAP": umap,
    "HEBAE": ours("hebae"),
    "HEBAE, log values": ours("hebae", layer="log"),
    "VAE": ours("vae"),
    "WAE": ours("wae"),
    "scVI": scvi,
}
NEEDED = {"UMAP": "umap", "scVI": "scvi"}


def of_types(codes: Array, labels: Array, seed: int) -> dict[str, Any]:
    """Neighbours' accuracy in five folds, and k-means and silhouette with their controls."""
    knn = KNeighborsClassifier(N_NEIGHBORS)
    accuracy = float(cross_val_score(knn, codes, labels, cv=5).mean())
    found = {name: asdict(value) for name, value in label_metrics(codes, labels, seed).items()}
    return {"knn_accuracy": accuracy, **found}


def of_integration(adata: Any, codes: Array) -> dict[str, float]:
    """Totals of scib-metrics, the 50 principal components being the state before."""
    from scib_metrics.benchmark import Benchmarker

    adata = adata.copy()
    adata.obsm["before"] = PCA(50, random_state=0).fit_transform(adata.layers["log"])
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


def of_projection(adata: Any, method: Method, seed: int) -> Iterator[dict[str, Any]]:
    """Leave each batch out of the fit and predict its types by neighbours."""
    for batch in adata.obs["batch"].unique():
        new = (adata.obs["batch"] == batch).to_numpy()
        known, query = adata[~new].copy(), adata[new].copy()
        start = time.process_time()
        fitted = method(known, "batch", seed)
        fit_seconds = time.process_time() - start
        start = time.process_time()
        codes = fitted.project(query)
        knn = KNeighborsClassifier(N_NEIGHBORS).fit(fitted.codes, known.obs["cell_type"])
        yield {
            "batch": str(batch),
            "accuracy": float(knn.score(codes, query.obs["cell_type"])),
            "fit_seconds": fit_seconds,
            "project_seconds": time.process_time() - start,
        }


def genotypes(data: Dataset, seed: int) -> Iterator[dict[str, Any]]:
    """Measure populations of HapMap at four dimensions."""
    for name, model in (
        ("PCA", PCA(4, random_state=seed)),
        ("HEBAE", HEBAETransformer(4, random_state=seed)),
    ):
        codes = model.fit_transform(data.rows)
        yield {"method": name, **of_types(codes, data.labels, seed)}


class Results:
    """The JSON of a run, written after every row."""

    def __init__(self, path: Path, *, resume: bool) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if resume and path.exists():
            self.rows = json.loads(path.read_text())["rows"]

    def has(self, **cell: Any) -> bool:
        """Whether a row of this kind, set, method and seed is there."""
        return any(all(row.get(k) == v for k, v in cell.items()) for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add a row, and say so."""
        self.rows.append(row)
        write(self.path.stem, self.rows, folder=self.path.parent)
        shown = {k: round(v, 3) if isinstance(v, float) else v for k, v in row.items()}
        print({k: v for k, v in shown.items() if not isinstance(v, dict)}, flush=True)


def of_set(name: str, adata: Any, methods: list[str], seeds: int, results: Results) -> None:
    """Fit every method to one set, and measure its codes."""
    integrates = SETS[name][1]
    batch_key = "batch" if integrates else None
    labels = adata.obs["cell_type"].to_numpy(dtype=str)
    for seed in range(seeds):
        for method in methods:
            cell = {"data": name, "method": method, "seed": seed}
            if not results.has(kind="types", **cell):
                start = time.process_time()
                codes = METHODS[method](adata, batch_key, seed).codes
                row = {"kind": "types", **cell, "fit_seconds": time.process_time() - start}
                row |= of_types(codes, labels, seed)
                if integrates:
                    row["scib"] = of_integration(adata, codes)
                results.add(row)
            if name == PROJECTED and not results.has(kind="projection", **cell):
                for part in of_projection(adata, METHODS[method], seed):
                    results.add({"kind": "projection", **cell, **part})


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks single_cell", description=__doc__)
    parser.add_argument("--data", nargs="+", choices=[*SETS, "hapmap"], default=[*SETS, "hapmap"])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data-dir", type=Path, default=DATA)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    results = Results(arguments.output / "single_cell.json", resume=arguments.resume)
    methods = [m for m in arguments.methods if m not in NEEDED or find_spec(NEEDED[m])]
    for method in set(arguments.methods) - set(methods):
        print(f"{method} is not installed: pip install {NEEDED[method]}")
    for name in arguments.data:
        if name == "hapmap":
            data = load(name, arguments.data_dir)
            for seed in range(arguments.seeds if data else 0):
                for row in genotypes(data, seed):
                    if not results.has(kind="genotypes", seed=seed, method=row["method"]):
                        results.add({"kind": "genotypes", "data": name, "seed": seed, **row})
            continue
        path = arguments.data_dir / SETS[name][0]
        if not path.is_file():
            print(f"{name}: no file {path}; set SKHEBAE_DATA to the folder that has it")
            continue
        import anndata

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what scanpy, umap and scVI are made of
            adata = prepared(anndata.read_h5ad(path), "batch" if SETS[name][1] else None)
            of_set(name, adata, methods, arguments.seeds, results)


if __name__ == "__main__":
    main()
