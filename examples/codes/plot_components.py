"""
Read what each component means
==============================

The components of :class:`~skhebae.HEBAETransformer` are ordered, as those of PCA are. You will see how
much each one explains, draw its loadings, and watch what the decoded row does as you move
along one component.
"""

# %%
# Fit ten components
# ------------------
# Digits are images, so everything that the model learned about its components can be looked at.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from skhebae import HEBAETransformer

X = load_digits().data / 16
model = HEBAETransformer(10, random_state=0).fit(X)
codes = model.transform(X)

# %%
# See how much each component explains
# ------------------------------------
# ``explained_variance_ratio_`` has the same meaning as in PCA. Set all but the first k numbers of
# each code to zero, decode, and the explained variance is the sum of the first k shares.

shares = model.explained_variance_ratio_
first = np.where(np.arange(10) < 3, codes, 0)
error = np.sum((model.inverse_transform(first) - X) ** 2)
measured = 1 - error / np.sum((X - X.mean(axis=0)) ** 2)
print("shares:", " ".join(f"{share:.1%}" for share in shares))
print(f"the first three add up to {shares[:3].sum():.1%}, and explain {measured:.1%}")

# %%
# Draw loadings, and move along a component
# -----------------------------------------
# ``components_`` holds the loadings: how the decoded image changes, on average, per unit of
# each code. Red pixels get darker and blue ones get lighter. The loadings of a nonlinear model
# are only an average, so also decode codes along one component and leave the others at zero.
# Each row below does this from the 5th to the 95th percentile of one component.

steps = 7
figure, axes = plt.subplots(
    4, steps + 1, figsize=(9, 5), layout="constrained", gridspec_kw={"wspace": 0.02}
)
limit = np.abs(model.components_[:4]).max()
for k, line in enumerate(axes):
    loadings = model.components_[k].reshape(8, 8)
    line[0].imshow(loadings, cmap="RdBu_r", vmin=-limit, vmax=limit)
    line[0].set_ylabel(f"component {k + 1}\n{shares[k]:.0%} explained", fontsize=11)
    path = np.zeros((steps, 10))
    path[:, k] = np.linspace(*np.quantile(codes[:, k], [0.05, 0.95]), steps)
    for axis, image in zip(line[1:], model.inverse_transform(path), strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_title("loadings", fontsize=11)
axes[0, 1].set_title("5th percentile", fontsize=10)
axes[0, -1].set_title("95th percentile", fontsize=10)
figure.suptitle("What the first four components do to a digit", fontsize=14)
plt.show()

# %%
# Name the features that matter
# -----------------------------
# In a table of measurements you would list names instead of drawing images. Sort a component by the
# size of its loadings.

strongest = np.argsort(-np.abs(model.components_[0]))[:5]
for j in strongest:
    row, column = divmod(j, 8)
    print(f"row {row}, column {column}: {model.components_[0, j]:+.3f}")
