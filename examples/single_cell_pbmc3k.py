"""From raw counts to an embedding, decoded markers, generated cells and a new sample.

Run ``python examples/single_cell_pbmc3k.py --output demo_output``. By default scanpy downloads
the 2,638 blood cells of its tutorial. ``--file cells.h5ad`` uses your own cells, with raw counts
in X and the types to compare with in ``obs["cell_type"]``. It needs ``skhebae[anndata]``.
"""

from __future__ import annotations

import argparse
import socket
import sys
import time
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.neighbors import KNeighborsClassifier

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # from scanpy's dependencies
    import anndata
    import scanpy as sc

import skhebae

mpl.use("Agg")
import matplotlib.pyplot as plt

#: How long to wait for a server that does not answer.
SECONDS = 30.0

#: Marker genes of blood cells, and the cells that express them.
MARKERS = {
    "CD3D": "T cells",
    "MS4A1": "B cells",
    "NKG7": "NK and killer T cells",
    "LYZ": "monocytes",
    "FCGR3A": "NK cells, some monocytes",
    "PPBP": "platelets",
}


def download() -> Any:
    """Fetch the counts of the cells in scanpy's tutorial, with its cell types.

    Raises
    ------
    SystemExit
        If they are not there and cannot be downloaded. The message is one line.
    """
    sc.settings.verbosity = "error"  # scanpy reports a first failure before it tries again
    socket.setdefaulttimeout(SECONDS)
    name = "pbmc3k_processed.h5ad"
    try:
        annotated = sc.datasets.pbmc3k_processed()
        name = "pbmc3k_raw.h5ad"
        adata = sc.datasets.pbmc3k()[annotated.obs_names].copy()
        adata.obs["cell_type"] = annotated.obs["louvain"]
    except (OSError, HTTPException, KeyError, ValueError) as error:
        path = Path(sc.settings.datasetdir) / name
        reason = " ".join(str(error).split())
        if path.exists():
            what = f"{path} cannot be read ({reason}). Delete it to download it again"
        else:
            what = f"{name} cannot be downloaded ({reason}). Try again with a network"
        sys.exit(f"{what}, or pass --file cells.h5ad to use your own cells.")
    return adata


def mark_variable_genes(adata: Any) -> None:
    """Mark 2,000 variable genes, as any scanpy analysis does, and leave the counts unchanged."""
    log = adata.copy()
    sc.pp.normalize_total(log, target_sum=1e4)
    sc.pp.log1p(log)
    sc.pp.highly_variable_genes(log, n_top_genes=min(2000, adata.n_vars))
    adata.var["highly_variable"] = log.var["highly_variable"]


def decoded_markers(adata: Any, model: Any) -> pd.DataFrame:
    """Tabulate mean counts per 10,000 for each type, as measured / as decoded."""
    genes = [gene for gene in MARKERS if gene in model.anndata_["var_names"]]
    skhebae.tl.denoise(adata, model, size_factor=1e4)
    chosen = adata[:, genes]
    # Totals over the genes of the model only, because the others are not decoded.
    used = adata[:, list(model.anndata_["var_names"])].X
    totals = np.asarray(used.sum(axis=1))
    measured = np.asarray(chosen.X.todense()) / totals * 1e4
    decoded = chosen.layers["hebae_denoised"]
    types = adata.obs["cell_type"]
    means = [
        pd.DataFrame(values, index=types.index, columns=genes).groupby(types, observed=True).mean()
        for values in (measured, decoded)
    ]
    text = [table.map("{:.1f}".format) for table in means]
    return text[0] + " / " + text[1]


def plot(adata: Any, path: Path) -> None:
    """Draw a UMAP of the codes by type, depth and score."""
    sc.pp.neighbors(adata, use_rep="X_hebae")
    sc.tl.umap(adata, random_state=0)
    figure, axes = plt.subplots(1, 3, figsize=(16, 4.6), layout="constrained")
    for axis, colour in zip(axes, ("cell_type", "n_counts", "hebae_score"), strict=True):
        sc.pl.umap(adata, color=colour, ax=axis, show=False, frameon=False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main(file: Path | None, output: Path) -> None:
    """Embed, plot, decode, project new cells and generate cells."""
    output.mkdir(parents=True, exist_ok=True)
    adata = download() if file is None else anndata.read_h5ad(file)
    adata.obs["n_counts"] = np.asarray(adata.X.sum(axis=1)).ravel()
    # A fifth of the cells are held out and stand in for a new sample.
    later = np.random.default_rng(0).permutation(adata.n_obs) < adata.n_obs // 5
    adata, query = adata[~later].copy(), adata[later].copy()

    mark_variable_genes(adata)
    start = time.perf_counter()
    model = skhebae.tl.hebae(adata, 10, return_model=True)
    seconds = time.perf_counter() - start
    print(f"{adata.n_obs} cells, {model.n_features_in_} variable genes -> 10 numbers per cell")
    print(f"likelihood: {model.likelihood}; {model.n_iter_} epochs in {seconds:.0f} s")

    skhebae.tl.score(adata, model)
    plot(adata, output / "pbmc3k_umap.png")

    print("\nCounts per 10,000 of marker genes, measured / decoded:")
    print(decoded_markers(adata, model).to_string(index_names=False))

    start = time.perf_counter()
    skhebae.tl.project(query, model)  # matches genes by name and trains nothing
    milliseconds = 1000 * (time.perf_counter() - start)
    knn = KNeighborsClassifier(15).fit(adata.obsm["X_hebae"], adata.obs["cell_type"])
    accuracy = knn.score(query.obsm["X_hebae"], query.obs["cell_type"])
    print(f"\n{query.n_obs} new cells projected in {milliseconds:.0f} ms;")
    print(f"accuracy of their types by 15 neighbours among the old ones: {accuracy:.3f}")

    generated = skhebae.tl.sample(model, 1000)
    zeros = [1 - x.nnz / np.prod(x.shape) for x in (adata[:, generated.var_names].X, generated.X)]
    print(f"\nZeros among counts: {zeros[0]:.3f} of real cells, {zeros[1]:.3f} of generated ones")
    model.save(output / "pbmc3k.hebae")
    size = (output / "pbmc3k.hebae").stat().st_size
    print(f"The saved model takes {size / 1e6:.1f} MB and holds none of the cells")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="an .h5ad of raw counts with obs['cell_type']")
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    arguments = parser.parse_args()
    main(arguments.file, arguments.output)
