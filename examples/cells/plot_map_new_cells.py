"""
Map new cells onto a reference
==============================

Fit a reference once, save the model, and map new cells with ``skhebae.tl.project``. Nothing is
trained again. Genes are matched by name, and some may be missing. This example transfers cell
types to cells of a chemistry that the reference has not seen.
"""

# %%
# Prepare a reference and a query
# -------------------------------
# scanpy ships 700 blood cells with log-normalised values, from which the counts can be restored.
import tempfile
import warnings
from pathlib import Path

import anndata as ad
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import scanpy as sc
from scipy import sparse
from sklearn.manifold import TSNE
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier

import skhebae

reduced = sc.datasets.pbmc68k_reduced()
values = np.expm1(reduced.raw.X.toarray())
one_molecule = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
counts = np.rint(values / one_molecule).astype(int)

# %%
# Every third cell becomes part of the query. Its chemistry detects half of the molecules on
# average, with a probability that depends on the gene. The query also lacks every tenth gene, and
# its genes stand in another order.
new = np.arange(len(counts)) % 3 == 0
rng = np.random.default_rng(0)
detected = rng.beta(2.0, 2.0, size=counts.shape[1])
counts[new] = rng.binomial(counts[new], detected)

lineage = {"Dendritic": "dendritic", "CD14+ Monocyte": "monocyte", "CD19+ B": "B"}
lineage |= {"CD56+ NK": "NK", "CD34+": "progenitor"}
cell_type = [lineage.get(label, "T") for label in reduced.obs["bulk_labels"]]
adata = ad.AnnData(
    sparse.csr_matrix(counts.astype(np.float32)),
    obs=pd.DataFrame({"cell_type": cell_type}, index=reduced.obs_names, dtype="category"),
    var=pd.DataFrame(index=reduced.raw.var_names),
)
reference = adata[~new].copy()
kept = rng.permutation(np.flatnonzero(np.arange(adata.n_vars) % 10 != 0))
query = adata[new, kept].copy()

# %%
# Fit the reference, and map the query
# ------------------------------------
# The saved file holds the networks and the names of the genes, but no cell. A warning says which
# genes are missing. The encoder sees them as expected given the genes that are there.
model = skhebae.tl.hebae(reference, 10, return_model=True)
path = Path(tempfile.mkdtemp()) / "reference.skhebae"
model.save(path)

loaded = skhebae.HEBAETransformer.load(path)
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    skhebae.tl.project(query, loaded)
print(caught[0].message)

# %%
# Transfer the cell types
# -----------------------
# Each new cell takes the type of most of its 15 nearest neighbours in the reference.
neighbours = KNeighborsClassifier(15)
neighbours.fit(reference.obsm["X_hebae"], reference.obs["cell_type"])
query.obs["transferred"] = neighbours.predict(query.obsm["X_hebae"])

truth = query.obs["cell_type"].astype(str)
accuracy = (query.obs["transferred"] == truth).mean()
print(f"{accuracy:.0%} of {query.n_obs} new cells get their own type")

# %%
# See it
# ------
# On the left, the new cells lie on those of the reference. On the right, most of the mistakes are
# between types that are close.
xy = TSNE(random_state=0).fit_transform(
    np.vstack([reference.obsm["X_hebae"], query.obsm["X_hebae"]])
)
here, there = xy[: reference.n_obs], xy[reference.n_obs :]

figure, (ax, table) = plt.subplots(1, 2, figsize=(11, 4.8), layout="constrained")
types = ["B", "NK", "T", "dendritic", "monocyte", "progenitor"]
colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#000000", "#D55E00"]
ax.scatter(*here.T, s=22, color="#cccccc", lw=0, label="reference")
for colour, label in zip(colours, types, strict=True):
    rows = (query.obs["transferred"] == label).to_numpy()
    ax.scatter(*there[rows].T, s=20, color=colour, lw=0, label=f"new: {label}")
ax.legend(fontsize=8, markerscale=1.4)
ax.set(title="New cells on the reference", xlabel="t-SNE 1", ylabel="t-SNE 2", xticks=[], yticks=[])

mistakes = confusion_matrix(truth, query.obs["transferred"], labels=types)
table.imshow(mistakes / mistakes.sum(axis=1, keepdims=True), cmap="Blues", vmin=0, vmax=1.3)
for (line, column), number in np.ndenumerate(mistakes):
    table.text(column, line, number, ha="center", va="center", color="black" if number else "#bbb")
table.set_xticks(range(len(types)), types, rotation=30, ha="right")
table.set_yticks(range(len(types)), types)
table.set(title=f"{accuracy:.0%} of types right", xlabel="transferred type", ylabel="true type")
plt.show()
