"""
Compare markers between batches
===============================

A decoded mean says what a cell would express had it been measured in another batch. Pass
``batch=`` to ``skhebae.tl.denoise`` to decode all cells as if they came from one batch. Means of
marker genes can then be compared between cells that were measured in different ways.
"""

# %%
# Prepare counts with a known batch effect
# ----------------------------------------
# scanpy ships 700 blood cells with log-normalised values, from which the counts can be restored. A
# second chemistry is simulated for a random half of the cells. It detects each molecule with a
# probability that depends on the gene.
import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse

import skhebae

reduced = sc.datasets.pbmc68k_reduced()
values = np.expm1(reduced.raw.X.toarray())
one_molecule = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
counts = np.rint(values / one_molecule).astype(int)

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
# Decode every cell as chemistry 1
# --------------------------------
# ``size_factor=1e4`` also gives all cells the same total count. The result is a layer of means.
model = skhebae.tl.hebae(adata, 10, batch_key="batch", return_model=True)
skhebae.tl.denoise(adata, model, batch="chemistry 1", size_factor=1e4, key_added="decoded")

# %%
# Average the markers of each type
# --------------------------------
# The measured means are counts per 10,000. Cells of the second chemistry show the same markers,
# but in other amounts. Decoded as chemistry 1, they should agree with other cells, those that the
# first chemistry really measured.
markers = ["CD3D", "CD79A", "MS4A1", "NKG7", "GNLY", "LYZ", "S100A8", "FCER1A", "CST3", "HLA-DRA"]
types = ["T", "NK", "B", "monocyte", "dendritic"]
genes = adata.var_names.get_indexer(markers)
measured = counts[:, genes] / counts.sum(axis=1, keepdims=True) * 1e4
decoded = adata.layers["decoded"][:, genes]

by_type = adata.obs["cell_type"].astype(str)
means = {
    title: pd.DataFrame(table[rows], columns=markers).groupby(by_type[rows].to_numpy()).mean()
    for title, table, rows in [
        ("Chemistry 1, measured", measured, ~second),
        ("Chemistry 2, measured", measured, second),
        ("Chemistry 2, decoded as chemistry 1", decoded, second),
    ]
}
means = {title: np.log2(1 + table.loc[types]) for title, table in means.items()}
first = means["Chemistry 1, measured"]
for title, table in list(means.items())[1:]:
    print(f"{title}: off by {2 ** (table - first).abs().mean(axis=None):.2f}-fold on average")

# %%
# See it
# ------
figure, axes = plt.subplots(1, 3, figsize=(12, 4.4), layout="constrained", sharey=True)
for ax, (title, table) in zip(axes, means.items(), strict=True):
    image = ax.imshow(table.T, cmap="viridis", vmin=0, vmax=9, aspect="auto")
    ax.set_xticks(range(len(types)), types, rotation=30, ha="right")
    ax.set_yticks(range(len(markers)), markers)
    off = (table - first).abs().mean(axis=None)
    ax.set_title(title if ax is axes[0] else f"{title}\n{2**off:.2f}-fold off", fontsize=11)
figure.colorbar(image, ax=axes, label="log2(1 + counts per 10,000)")
figure.suptitle("Marker genes per cell type, in two chemistries", fontsize=14)
plt.show()
