"""
Denoise counts
==============

Most counts of a cell are zero because few molecules are caught. ``skhebae.tl.denoise`` replaces
them by means that are decoded from the whole cell. This example holds molecules back to check that
the denoised values predict what the measurement missed.
"""

# %%
# Hold out half of the molecules
# ------------------------------
# scanpy ships 700 blood cells with log-normalised values, from which the counts can be restored.
# Each molecule then goes to one of two halves by chance, as if every cell had been sequenced
# twice. The model sees the first half only.
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

seen = np.random.default_rng(0).binomial(counts, 0.5)
held_out = counts - seen
adata = ad.AnnData(
    sparse.csr_matrix(seen.astype(np.float32)),
    obs=pd.DataFrame(index=reduced.obs_names),
    var=pd.DataFrame(index=reduced.raw.var_names),
)

# %%
# Denoise the other half
# ----------------------
# By default each cell keeps its own total, so the values compare with its counts.
model = skhebae.tl.hebae(adata, 10, return_model=True)
skhebae.tl.denoise(adata, model)
denoised = adata.layers["hebae_denoised"]

# %%
# Check them against the molecules held out
# -----------------------------------------
# The deviance of Poisson counts measures how well a mean predicts them. Counts that were seen are
# no good as means, so we smooth them first. The mean of each gene in all cells, scaled to the total
# of the cell, is another simple prediction.
totals = seen.sum(axis=1, keepdims=True)
predictions = {
    "the counts seen, + 0.1": seen + 0.1,
    "mean of the gene": totals * seen.sum(axis=0) / seen.sum(),
    "denoised": denoised,
}
deviance = {}
for name, mean in predictions.items():
    ratio = np.where(held_out > 0, held_out / mean, 1.0)
    deviance[name] = float(2 * (held_out * np.log(ratio) - held_out + mean).mean())
pd.Series(deviance, name="deviance per value").round(3)

# %%
# See it
# ------
# CD2 marks T cells and MS4A1 marks B cells. Few of their molecules were caught, so half of these
# cells show neither and lie in the corner. The denoised values tell the types apart. They are also
# smooth functions of ten codes, so genes correlate more in them than in the cells. Test differences
# on counts, not on denoised values.
genes = ["CD2", "MS4A1"]
columns = adata.var_names.get_indexer(genes)
labels = reduced.obs["bulk_labels"].astype(str).str
kinds = {"T": labels.match("CD4|CD8").to_numpy(), "B": labels.match("CD19").to_numpy()}
kinds["other"] = ~(kinds["T"] | kinds["B"])
colours = {"T": "#009E73", "B": "#0072B2", "other": "#BBBBBB"}
jitter = np.random.default_rng(0).uniform(-0.3, 0.3, (adata.n_obs, 2))

figure, (before, after, bars) = plt.subplots(1, 3, figsize=(13, 4.2), layout="constrained")
for ax, table in ((before, seen[:, columns] + jitter), (after, denoised[:, columns])):
    for kind in ("other", "T", "B"):
        style = {"s": 14, "color": colours[kind], "alpha": 0.7, "lw": 0, "label": kind}
        ax.scatter(*table[kinds[kind]].T, **style)
    ax.set(xlabel=f"{genes[0]}, molecules", ylabel=f"{genes[1]}, molecules")
neither = (seen[~kinds["other"]][:, columns].sum(axis=1) == 0).mean()
before.set_title(f"Counts: {neither:.0%} of T and B have neither")
after.set(title="Denoised", xscale="log", yscale="log")
before.legend(title="cells", markerscale=2)

bars.barh(list(deviance), list(deviance.values()), color=["#999999", "#56B4E9", "#0072B2"])
bars.invert_yaxis()
bars.set(title="Error on held-out molecules", xlabel="Poisson deviance per value")
plt.show()
