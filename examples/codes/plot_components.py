"""
Read what each component means
==============================

The components of :class:`~skhebae.HEBAETransformer` are ordered, as those of PCA are. You will
see how much each one explains, draw its loadings, and watch the decoded row change as you move
along one component.
"""

# %%
# See how much each component explains
# ------------------------------------
# Fit six components to thirty measurements of breast tumours. ``explained_variance_ratio_`` is
# read as in PCA. Keep the first k numbers of each code, set the others to zero and decode. The sum
# of the first k shares is the variance that you then explain, with features standardised as the
# model does it.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer, load_digits

from skhebae import HEBAETransformer

tumours = load_breast_cancer()
model = HEBAETransformer(6, random_state=0).fit(tumours.data)
shares = model.explained_variance_ratio_
print("explained:", " ".join(f"{share:.1%}" for share in shares), f"in all {shares.sum():.1%}")

# %%
# Name the features that matter
# -----------------------------
# ``components_`` holds the loadings: how much each decoded feature changes, on average, per unit
# of a code. Multiply by the spread of the code and divide by that of the feature to compare
# features with different units. Here the first component is about size and shape, the second about
# fractal dimension.

spread = model.transform(tumours.data).std(axis=0)
loadings = model.components_ * spread[:, None] / tumours.data.std(axis=0)
for k in range(2):
    strongest = np.argsort(-np.abs(loadings[k]))[:4]
    names = [f"{tumours.feature_names[j]} {loadings[k, j]:+.2f}" for j in strongest]
    print(f"component {k + 1}:", ", ".join(names))

# %%
# Move along a component
# ----------------------
# In a nonlinear model the loadings are only an average. So also decode codes along one component,
# with the others at zero, and look at the rows. Images show this best. Each line of the figure has
# one component of a model of digits: its loadings (red pixels get darker, blue ones get lighter),
# then what is decoded from the 5th to the 95th percentile of its codes.

images = load_digits().data / 16
reader = HEBAETransformer(10, random_state=0).fit(images)
codes = reader.transform(images)
steps = 7
figure, axes = plt.subplots(
    4, steps + 1, figsize=(9, 5), layout="constrained", gridspec_kw={"wspace": 0.02}
)
limit = np.abs(reader.components_[:4]).max()
for k, line in enumerate(axes):
    pixels = reader.components_[k].reshape(8, 8)
    line[0].imshow(pixels, cmap="RdBu_r", vmin=-limit, vmax=limit)
    line[0].set_ylabel(f"component {k + 1}", fontsize=11)
    path = np.zeros((steps, 10))
    path[:, k] = np.linspace(*np.quantile(codes[:, k], [0.05, 0.95]), steps)
    for axis, image in zip(line[1:], reader.inverse_transform(path), strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
for axis in axes.flat:
    axis.set(xticks=[], yticks=[])
axes[0, 0].set_title("loadings", fontsize=11)
axes[0, 1].set_title("5th percentile", fontsize=10)
axes[0, -1].set_title("95th percentile", fontsize=10)
figure.suptitle("What the first four components do to a digit", fontsize=14)
plt.show()
