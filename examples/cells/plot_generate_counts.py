"""
Generate cells
==============

``skhebae.tl.sample`` draws codes, decodes them and draws counts from the fitted negative binomials.
This example compares 2,000 generated cells with the real ones in three ways that simulated counts
often fail.
"""

# %%
# Fit real cells, and draw new ones
# ---------------------------------
# scanpy ships 700 blood cells with log-normalised values, from which the counts can be restored.
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
adata = ad.AnnData(
    sparse.csr_matrix(counts.astype(np.float32)),
    obs=pd.DataFrame(index=reduced.obs_names),
    var=pd.DataFrame(index=reduced.raw.var_names),
)

model = skhebae.tl.hebae(adata, 10, return_model=True)
generated = skhebae.tl.sample(model, 2000, random_state=0)

# %%
# The result is an AnnData of sparse counts with the genes of the model.
print(generated)

# %%
# Compare totals, zeros and variances
# -----------------------------------
# Poisson counts with the same mean per gene are the simplest alternative. They have too few zeros
# and too small variances, because cells differ.
drawn = generated.X.toarray()
rng = np.random.default_rng(0)
size = counts.sum(axis=1, keepdims=True) / counts.sum()
cells = {"real": counts, "generated": drawn, "Poisson": rng.poisson(size * counts.sum(axis=0))}
table = pd.DataFrame(
    {
        name: {
            "median total": np.median(X.sum(axis=1)),
            "share of zeros": (X == 0).mean(),
            "median variance / mean": np.median(X.var(axis=0) / X.mean(axis=0)),
        }
        for name, X in cells.items()
    }
)
table.round(2)

# %%
# See it
# ------
# A point in the second and third panel is a gene.
figure, (totals, zeros, spread) = plt.subplots(1, 3, figsize=(12, 4.2), layout="constrained")
bins = np.geomspace(100, 10_000, 30)
colours = {"real": "#BBBBBB", "generated": "#0072B2", "Poisson": "#E69F00"}
for name, kind, width in (("real", "stepfilled", 0), ("generated", "step", 2.5)):
    style = {"histtype": kind, "lw": width, "color": colours[name], "label": name}
    totals.hist(cells[name].sum(axis=1), bins, density=True, **style)
totals.set(xscale="log", title="Totals", xlabel="molecules per cell", ylabel="density", yticks=[])
totals.legend()

for name in ("Poisson", "generated"):
    X, style = cells[name], {"s": 9, "color": colours[name], "alpha": 0.6, "lw": 0, "label": name}
    zeros.scatter((counts == 0).mean(axis=0), (X == 0).mean(axis=0), **style)
    spread.scatter(counts.var(axis=0), X.var(axis=0), **style)
zeros.set(title="Share of zeros per gene", xlabel="real cells", ylabel="generated cells")
spread.set(title="Variance per gene", xlabel="real cells", ylabel="generated cells")
spread.set(xscale="log", yscale="log")
for ax, ends in ((zeros, (0, 1)), (spread, (1e-3, 1e3))):
    ax.plot(ends, ends, color="black", lw=1)
    ax.legend(markerscale=2)
figure.suptitle("Generated cells have the totals, zeros and variances of real ones", fontsize=14)
plt.show()
