"""Single cells: embeddings of cell types, of batches, and of cells of a new batch.

``python -m benchmarks single-cell`` writes ``results/single_cell.json`` after each row. Types are
measured by neighbours, k-means and silhouette, integration by scib-metrics, also after each batch
has lost a type of its own. Batches left out of the fit are projected, and their types predicted.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from benchmarks.datasets import DATA
from benchmarks.metrics import label_metrics
from benchmarks.results import Results, parser
from benchmarks.runner import Row, limit_threads
from skhebae import tl

Array = NDArray[Any]
N_COMPONENTS, N_GENES, N_NEIGHBORS = 10, 2000, 15
#: Epochs of scVI and DRVI, with batches and without; with many cells fewer by scVI's own rule.
PEER_EPOCHS = {True: 200, False: 100}
#: Module that a method needs, and what to install for it.
NEEDED = {"UMAP": ("umap", "umap-learn"), "scVI": ("scvi", "scvi-tools")}
NEEDED |= {"Harmony": ("harmonypy", "harmonypy"), "DRVI": ("drvi", "drvi-py")}


class Fitted(NamedTuple):
    """The codes of the cells of a fit, and a map for new ones."""

    codes: Array
    project: Callable[[Any], Array]


#: From cells as `prepared`, the column of their batches (None: none) and a seed.
Method = Callable[[Any, str | None, int], Fitted]


def ours(name: str, **params: Any) -> Method:
    """Return one of `skhebae.tl`."""

    def fit(adata: Any, batch_key: str | None, seed: int) -> Fitted:
        how = {"key_added": "codes", "copy": True}
        own = {"mask_var": None, "batch_key": batch_key, "random_state": seed, **params}
        embed = getattr(tl, name)
        fitted, model = embed(adata, N_COMPONENTS, return_model=True, **how, **own)
        codes = fitted.obsm["codes"]
        return Fitted(codes, lambda query: tl.project(query, model, **how).obsm["codes"])

    return fit


def on_log_values(make: Any, adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Fit a reducer, made from a seed, to log-normalised values."""
    model = make(seed)
    codes = model.fit_transform(adata.layers["log"])
    return Fitted(codes, lambda query: model.transform(query.layers["log"]))


pca = partial(on_log_values, lambda seed: PCA(N_COMPONENTS, random_state=seed))
umap = partial(
    on_log_values,
    lambda seed: import_module("umap").UMAP(N_NEIGHBORS, N_COMPONENTS, random_state=seed, n_jobs=1),
)


def peer(library: str, name: str, adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Fit scVI or DRVI with defaults except for the epochs; new cells go through scArches."""
    import_module("scvi").settings.seed = seed
    cls, adata = getattr(import_module(f"{library}.model"), name), adata.copy()
    cls.setup_anndata(adata, batch_key=batch_key)
    model = cls(adata, n_latent=N_COMPONENTS)
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "logger": False}
    epochs = min(PEER_EPOCHS[batch_key is not None], round(20_000 / adata.n_obs * 400))
    model.train(max_epochs=epochs, **quiet)

    def project(query: Any) -> Array:
        mapped = cls.load_query_data(query.copy(), model)
        mapped.train(max_epochs=100, plan_kwargs={"weight_decay": 0.0}, **quiet)
        return np.asarray(mapped.get_latent_representation())

    return Fitted(model.get_latent_representation(), project)


def harmony(adata: Any, batch_key: str | None, seed: int) -> Fitted:
    """Fit Harmony to principal components; it has no map for new cells."""
    run, (codes, project) = import_module("harmonypy").run_harmony, pca(adata, batch_key, seed)
    codes = np.asarray(run(codes, adata.obs, batch_key, random_state=seed, verbose=False).Z_corr)
    # Some releases return columns.
    return Fitted(codes if len(codes) == adata.n_obs else codes.T, project)


METHODS: dict[str, Method] = {
    "PCA": pca,
    "UMAP": umap,
    "HEBAE": ours("hebae"),
    "HEBAE, log values": ours("hebae", layer="log"),
    "VAE": ours("vae"),
    "WAE": ours("wae"),
    "scVI": partial(peer, "scvi", "SCVI"),
    "DRVI": partial(peer, "drvi", "DRVI"),
}

#: For batches only: Harmony; and how batches leave HEBAE's codes, by the decoder only (0), and
#: with ever more of the closed form for each batch. The default, 1, is in METHODS.
INTEGRATORS: dict[str, Method] = {
    f"HEBAE, batch_share={share:g}": ours("hebae", batch_share=share) for share in (0.0, 0.25, 0.5)
}
INTEGRATORS["Harmony"] = harmony


class CellSet(NamedTuple):
    """A file, the columns of obs with types, and the use of its batches."""

    file: str
    labels: tuple[str, ...] = ("cell_type",)
    integrates: bool = False
    one_sided: bool = False
    projects: bool = False


SETS = {
    "pbmc3k": CellSet("pbmc3k.h5ad"),
    "paul15": CellSet("paul15.h5ad", ("cell_type", "lineage")),
    "cbmc": CellSet("cbmc_citeseq.h5ad"),
    "kang_ctrl": CellSet("kang_ctrl_8donor.h5ad"),
    "pbmc_3tech": CellSet("pbmc_3tech.h5ad", integrates=True, projects=True),
    "kang_ifnb": CellSet("kang_ifnb.h5ad", integrates=True),
    "pbmc_3tech, one-sided": CellSet("pbmc_3tech.h5ad", integrates=True, one_sided=True),
    "kang_ifnb, one-sided": CellSet("kang_ifnb.h5ad", integrates=True, one_sided=True),
}


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
    """Take from the i-th batch the i-th most frequent type, named in ``uns["one_sided"]``."""
    types = adata.obs["cell_type"].value_counts().index
    batches = sorted(adata.obs["batch"].unique())
    kept = np.ones(adata.n_obs, dtype=bool)
    for batch, lost in zip(batches, types, strict=False):
        kept &= ~((adata.obs["batch"] == batch) & (adata.obs["cell_type"] == lost)).to_numpy()
    result = adata[kept].copy()
    result.uns["one_sided"] = np.asarray(types[: len(batches)], dtype=str)
    return result


def neighbour_accuracy(codes: Array, labels: Array, seed: int) -> float:
    """Return the accuracy of neighbours in five folds."""
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        # About a type with fewer cells than there are folds.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        model = KNeighborsClassifier(N_NEIGHBORS)
        return float(cross_val_score(model, codes, labels, cv=folds).mean())


def measure_integration(adata: Any, codes: Array) -> dict[str, float]:
    """Return totals of scib-metrics; 50 principal components are the state before."""
    from scib_metrics.benchmark import Benchmarker

    adata = adata.copy()
    before = PCA(min(50, *adata.shape), random_state=0)
    adata.obsm["before"] = before.fit_transform(adata.layers["log"])
    adata.obsm["codes"] = np.asarray(codes, dtype=np.float32)
    how = {"pre_integrated_embedding_obsm_key": "before", "n_jobs": 1, "progress_bar": False}
    judge = Benchmarker(adata, "batch", "cell_type", embedding_obsm_keys=["codes"], **how)
    judge.benchmark()
    row = judge.get_results(min_max_scale=False).loc["codes"]
    return {str(name): float(value) for name, value in row.items()}


def purity(codes: Array, labels: Array, chosen: Array) -> float:
    """Return the share of neighbours of cells of `chosen` types that have the cell's own type."""
    found = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(codes).kneighbors(return_distance=False)
    same = (labels[found] == labels[:, None]).mean(axis=1)
    return float(same[np.isin(labels, chosen)].mean())


def timed(method: Method, adata: Any, batch_key: str | None, seed: int, threads: int) -> Any:
    """Fit with so many threads; return what was fitted, and seconds of clock and processor."""
    limit_threads(threads)
    clock, processor = time.perf_counter(), time.process_time()
    fitted = method(adata, batch_key, seed)
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    return fitted, {"fit_seconds": clock, "processor_seconds": processor, "threads": threads}


def measure_types(
    of: CellSet, adata: Any, method: Method, seed: int, threads: int
) -> Iterator[Row]:
    """Fit a method, and measure its codes by each column of types."""
    fitted, seconds = timed(method, adata, "batch" if of.integrates else None, seed, threads)
    common = {**seconds, "n_cells": adata.n_obs, "n_genes": adata.n_vars}
    for column in of.labels:
        labels = adata.obs[column].to_numpy(dtype=str)
        accuracy = neighbour_accuracy(fitted.codes, labels, seed)
        row = {**common, "label": column, "knn_accuracy": accuracy}
        row |= {k: asdict(v) for k, v in label_metrics(fitted.codes, labels, seed).items()}
        if of.integrates:
            row["scib"] = measure_integration(adata, fitted.codes)
        if of.one_sided:
            row["purity"] = purity(fitted.codes, labels, adata.uns["one_sided"])
        yield row


def measure_projection(
    of: CellSet, adata: Any, method: Method, seed: int, threads: int
) -> Iterator[Row]:
    """Leave each batch out of the fit and predict its types by neighbours."""
    for batch in sorted(adata.obs["batch"].unique()):
        known, query = (adata[(adata.obs["batch"] == batch) == new].copy() for new in (False, True))
        fitted, seconds = timed(method, known, "batch", seed, threads)
        start = time.perf_counter()
        codes = fitted.project(query)
        spent = {"project_seconds": time.perf_counter() - start, **seconds}
        knn = KNeighborsClassifier(N_NEIGHBORS).fit(fitted.codes, known.obs["cell_type"])
        accuracy = float(knn.score(codes, query.obs["cell_type"]))
        yield {"batch": str(batch), "n_cells": len(codes), "accuracy": accuracy, **spent}


def read(of: CellSet, folder: Path) -> Any:
    """Return a set, prepared; None, and why, where its file or scib-metrics is not there."""
    import anndata

    path = folder / of.file
    if not path.is_file():
        print(f"left out: no file {path}; set SKHEBAE_DATA to the folder that has it")
        return None
    if of.integrates and not find_spec("scib_metrics"):
        print(f"{path.stem} left out: python -m pip install scib-metrics")
        return None
    adata = prepared(anndata.read_h5ad(path), "batch" if of.integrates else None)
    return without_one_type_each(adata) if of.one_sided else adata


def add_rows(results: Results, cell: Row, adata: Any, method: Method, threads: int) -> None:
    """Measure one method on one set, where that is not there yet."""
    of, whole = SETS[cell["data"]], cell["method"] in METHODS
    for kind, measure, applies in (
        ("types", measure_types, of.integrates or whole),
        ("projection", measure_projection, of.projects and whole),
    ):
        if applies and not results.has(kind=kind, **cell):
            for row in measure(of, adata, method, cell["seed"], threads):
                results.add({"kind": kind, **cell, **row})


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    made = parser("single-cell", __doc__, threads=2, resumes=True)
    made.add_argument("--data", nargs="+", choices=list(SETS), default=list(SETS))
    made.add_argument("--methods", nargs="+", default=[*METHODS, *INTEGRATORS])
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--data-dir", type=Path, default=DATA)
    arguments = made.parse_args(argv)
    path = arguments.output / "single_cell.json"
    results = Results(path, resume=arguments.resume, threads=arguments.threads)
    methods = {name: {**METHODS, **INTEGRATORS}[name] for name in arguments.methods}
    for name, (module, package) in NEEDED.items():
        if name in methods and not find_spec(module):
            print(f"{name} left out: python -m pip install {package}")
            del methods[name]
    for seed in arguments.seeds:
        for name in arguments.data:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of scanpy, umap and scVI
                adata = read(SETS[name], arguments.data_dir)
                for method, fit in methods.items() if adata is not None else ():
                    cell = {"data": name, "method": method, "seed": seed}
                    add_rows(results, cell, adata, fit, arguments.threads)
