"""Integration of two batches: the decoder sees the batch, so the code need not carry it.

Run ``python examples/single_cell_integration.py --output demo_output``. By default it uses the
700 blood cells that ship with scanpy, and simulates a second chemistry for a random half of
them, which keeps each molecule with a probability that depends on its gene. ``--file
cells.h5ad`` uses your own cells, with raw counts in X, ``obs["batch"]`` and
``obs["cell_type"]``. It needs ``skhebae[anndata]``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # from scanpy's dependencies
    import anndata
    import scanpy as sc

import skhebae

mpl.use("Agg")
import matplotlib.pyplot as plt

N_NEIGHBORS = 15


def two_chemistries() -> Any:
    """Load scanpy's blood cells and thin the counts of a random half, gene by gene."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scanpy reads an old file format
        reduced = sc.datasets.pbmc68k_reduced()
    # The file has log-normalised values; the smallest in each cell stands for one count.
    values = np.expm1(reduced.raw.X.toarray())
    one = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
    counts = np.rint(values / one).astype(int)
    rng = np.random.default_rng(0)
    second = rng.permutation(len(counts)) < len(counts) // 2
    found = rng.beta(2.0, 2.0, size=counts.shape[1])
    counts[second] = rng.binomial(counts[second], found)
    obs = pd.DataFrame(
        {
            "cell_type": reduced.obs["bulk_labels"].to_numpy(),
            "batch": np.where(second, "second", "first"),
        },
        index=reduced.obs_names,
    ).astype("category")
    X = sparse.csr_matrix(counts.astype(np.float32))
    return anndata.AnnData(X, obs=obs, var=pd.DataFrame(index=reduced.raw.var_names))


def mark_variable_genes(adata: Any) -> None:
    """Mark at most 2,000 genes that vary within batches, and add their PCA for comparison."""
    log = adata.copy()
    sc.pp.normalize_total(log, target_sum=1e4)
    sc.pp.log1p(log)
    n_genes = min(2000, adata.n_vars)
    sc.pp.highly_variable_genes(log, n_top_genes=n_genes, batch_key="batch")
    adata.var["highly_variable"] = log.var["highly_variable"]
    adata.obsm["X_pca"] = sc.pp.pca(log[:, log.var["highly_variable"]].X.toarray(), n_comps=10)


def mixing(codes: Any, batch: Any) -> float:
    """Return the mean share of a cell's neighbours that belong to its own batch."""
    found = NearestNeighbors(n_neighbors=N_NEIGHBORS).fit(codes).kneighbors(return_distance=False)
    batch = np.asarray(batch)
    return float((batch[found] == batch[:, None]).mean())


def accuracy(codes: Any, types: Any) -> float:
    """Return the accuracy of predicting types from 15 neighbours, in five folds."""
    knn = KNeighborsClassifier(N_NEIGHBORS)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")
        return float(cross_val_score(knn, codes, types, cv=5).mean())


def plot(adata: Any, keys: list[str], path: Path) -> None:
    """Draw a UMAP of each embedding, by type and by batch."""
    figure, axes = plt.subplots(len(keys), 2, figsize=(12, 4.4 * len(keys)), layout="constrained")
    for line, key in zip(axes, keys, strict=True):
        sc.pp.neighbors(adata, use_rep=key)
        sc.tl.umap(adata, random_state=0)
        for axis, colour in zip(line, ("cell_type", "batch"), strict=True):
            title = f"{key}: {colour}"
            sc.pl.umap(adata, color=colour, title=title, ax=axis, show=False, frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main(file: Path | None, output: Path) -> None:
    """Embed with and without batches, compare, decode as each batch, and project a new batch."""
    output.mkdir(parents=True, exist_ok=True)
    adata = two_chemistries() if file is None else anndata.read_h5ad(file)
    mark_variable_genes(adata)
    skhebae.tl.hebae(adata, 10, key_added="without_batch")
    model = skhebae.tl.hebae(adata, 10, batch_key="batch", return_model=True)

    shares = adata.obs["batch"].value_counts(normalize=True)
    mixed = (shares**2).sum()
    print(f"{adata.n_obs} cells in {len(shares)} batches: share of neighbours from a cell's own")
    print(f"batch ({mixed:.2f} if mixed), and accuracy of types by {N_NEIGHBORS} neighbours:")
    keys = ["X_pca", "without_batch", "X_hebae"]
    for key in keys:
        own = mixing(adata.obsm[key], adata.obs["batch"])
        right = accuracy(adata.obsm[key], adata.obs["cell_type"])
        print(f"  {key:14} own batch {own:.2f}   types {right:.3f}")
    plot(adata, keys, output / "integration_umap.png")

    # Decode every cell as if it had been measured in each of the batches.
    decoded = {}
    for batch in [*shares.index, "average"]:
        layer = f"as_{batch}"
        skhebae.tl.denoise(adata, model, batch=batch, size_factor=1e4, key_added=layer)
        decoded[batch] = adata[:, list(model.anndata_["var_names"])].layers[layer].mean(axis=0)
    table = pd.DataFrame(decoded, index=model.anndata_["var_names"])
    per_batch = table[list(shares.index)]
    gene = (per_batch.max(axis=1) - per_batch.min(axis=1)).idxmax()
    print(f"\nMean of {gene} per 10,000 counts, all cells decoded as if from one batch:")
    print("  " + ", ".join(f"{name} {value:.1f}" for name, value in table.loc[gene].items()))

    # Projecting the cells of a batch that the model has never seen needs no labels.
    new = (adata.obs["batch"] == shares.index[-1]).to_numpy()
    known, query = adata[~new].copy(), adata[new].copy()
    batch_key = "batch" if len(shares) > 2 else None
    model = skhebae.tl.hebae(known, 10, batch_key=batch_key, return_model=True)
    skhebae.tl.project(query, model)
    knn = KNeighborsClassifier(N_NEIGHBORS).fit(known.obsm["X_hebae"], known.obs["cell_type"])
    right = knn.score(query.obsm["X_hebae"], query.obs["cell_type"])
    print(f"\nFitted without batch {shares.index[-1]!r}, whose {query.n_obs} cells are projected:")
    print(f"  accuracy of types by {N_NEIGHBORS} neighbours among the other cells: {right:.3f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--file", type=Path, help="an .h5ad with obs['batch'] and ['cell_type']")
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    arguments = parser.parse_args()
    main(arguments.file, arguments.output)
