"""
Integrate two batches of cells
==============================

Two chemistries find different genes, so cells of one type lie apart in an ordinary embedding.
Pass ``batch_key=`` and the decoder sees each cell's batch, so the embedding does not have to
encode it. This example counts how well the batches mix, and checks that cell types stay apart.
"""

# %%
# Prepare counts with a known batch effect
# ----------------------------------------
# scanpy ships 700 blood cells with log-normalised values. The smallest positive value of a cell
# stands for one molecule, which gives the counts back.
import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from sklearn.manifold import TSNE
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

import skhebae

reduced = sc.datasets.pbmc68k_reduced()
values = np.expm1(reduced.raw.X.toarray())
one_molecule = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
counts = np.rint(values / one_molecule).astype(int)

# %%
# A second chemistry is simulated for a random half of the cells. It detects each molecule with a
# probability that depends on the gene.
rng = np.random.default_rng(0)
second = rng.permutation(len(counts)) < len(counts) // 2
detected = rng.beta(2.0, 2.0, size=counts.shape[1])
counts[second] = rng.binomial(counts[second], detected)

lineage = {"Dendritic": "dendritic", "CD14+ Monocyte": "monocyte", "CD19+ B": "B"}
lineage |= {"CD56+ NK": "NK", "CD34+": "progenitor"}
cell_type = [lineage.get(label, "T") for label in reduced.obs["bulk_labels"]]
obs = {"cell_type": cell_type, "batch": np.where(second, "chemistry 2", "chemistry 1")}
adata = ad.AnnData(
    sparse.csr_matrix(counts.astype(np.float32)),
    obs=pd.DataFrame(obs, index=reduced.obs_names, dtype="category"),
    var=pd.DataFrame(index=reduced.raw.var_names),
)

# %%
# Embed with the batches
# ----------------------
# The likelihood of counts is negative binomial by default, so the counts need no normalisation.
# PCA of the usual log-normalised values serves as the comparison.
skhebae.tl.hebae(adata, 10, batch_key="batch", key_added="with batch_key")

log = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
adata.obsm["PCA"] = sc.pp.pca(log.X.toarray(), n_comps=10)

# %%
# Measure mixing and types
# ------------------------
# Where batches are mixed, half of a cell's 15 nearest neighbours are of its own batch. A classifier
# that predicts a cell's type from those neighbours shows whether the types are still apart.
batch, types = adata.obs["batch"].to_numpy(), adata.obs["cell_type"].to_numpy()
folds = StratifiedKFold(5, shuffle=True, random_state=0)
table = pd.DataFrame(columns=["own batch", "type accuracy"], dtype=float)
for key in ("PCA", "with batch_key"):
    codes = adata.obsm[key]
    near = NearestNeighbors(n_neighbors=15).fit(codes).kneighbors(return_distance=False)
    accuracy = cross_val_score(KNeighborsClassifier(15), codes, types, cv=folds).mean()
    table.loc[key] = [(batch[near] == batch[:, None]).mean(), accuracy]
table.round(2)

# %%
# See it
# ------
# The batches separate in PCA, and every type falls into two. With ``batch_key=`` the batches
# overlap, and the types are as clear as before.
figure, axes = plt.subplots(2, 2, figsize=(9.5, 7.6), layout="constrained")
colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#D55E00"]
for line, key in zip(axes, ("PCA", "with batch_key"), strict=True):
    xy = TSNE(random_state=0).fit_transform(adata.obsm[key])
    for ax, labels in zip(line, (batch, types), strict=True):
        for colour, label in zip(colours, np.unique(labels), strict=False):
            ax.scatter(*xy[labels == label].T, s=14, color=colour, alpha=0.8, lw=0, label=label)
        ax.set(xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    line[0].set_title(f"{key}: {table.loc[key, 'own batch']:.0%} of neighbours from own batch")
    line[1].set_title(f"{key}: {table.loc[key, 'type accuracy']:.0%} of types predicted")
for ax, title in zip(axes[0], ("batch", "cell type"), strict=True):
    ax.legend(title=title, loc="best", fontsize=8, markerscale=1.6)
figure.suptitle("Two chemistries, before and after integration", fontsize=14)
plt.show()
