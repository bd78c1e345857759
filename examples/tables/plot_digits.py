"""
Compress digits with HEBAE and with PCA
=======================================

Put :class:`~skhebae.HEBAETransformer` where you would put PCA. Ten numbers per image then keep
more of the image, a classifier works on them as before, and the model can also draw new images.
"""

# %%
# Fit both methods
# ----------------
# scikit-learn ships 1,797 handwritten digits of 8 x 8 pixels. Hold out a quarter of them and fit
# two transformers with ten components each. Only the name of the class differs.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer

X, y = load_digits(return_X_y=True)
X_train, X_test, y_train, y_test = train_test_split(X / 16, y, random_state=0)

pca = PCA(10).fit(X_train)
hebae = HEBAETransformer(10, random_state=0).fit(X_train)

# %%
# Compare reconstructions
# -----------------------
# ``transform`` turns a row into its code, and ``inverse_transform`` turns a code into a row. PCA
# can only add up ten fixed images. HEBAE starts from PCA and adds what is not linear, which halves
# the error on images that neither model has seen.

decoded = {
    "PCA": pca.inverse_transform(pca.transform(X_test)),
    "HEBAE": hebae.inverse_transform(hebae.transform(X_test)),
}
errors = {name: np.mean((images - X_test) ** 2) for name, images in decoded.items()}
for name, error in errors.items():
    print(f"{name:6} mean squared error of held-out pixels {error:.4f}")

# %%
# Draw new digits
# ---------------
# ``sample`` draws codes that are distributed like those of the training rows and decodes them.
# Below, each column of the upper three rows shows one held-out digit. The last row is new.

rows = {
    "original": X_test,
    "PCA, 10 numbers": decoded["PCA"],
    "HEBAE, 10 numbers": decoded["HEBAE"],
    "new digits": hebae.sample(10, random_state=2),
}
columns = [np.flatnonzero(y_test == digit)[1] for digit in range(10)]
figure, axes = plt.subplots(4, 10, figsize=(9, 4.1), layout="constrained")
for line, (name, images) in zip(axes, rows.items(), strict=True):
    line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=12)
    shown = images if len(images) == 10 else images[columns]
    for axis, image in zip(line, shown, strict=True):
        axis.imshow(image.reshape(8, 8), cmap="gray_r", vmin=0, vmax=1)
        axis.set(xticks=[], yticks=[])
figure.suptitle("Handwritten digits from ten numbers each", fontsize=14)
plt.show()

# %%
# Use the codes in a pipeline
# ---------------------------
# The transformer follows scikit-learn's conventions, so it can be a step of a pipeline. Ten
# numbers per digit are enough for a logistic regression to read most of them.

accuracy = {}
for name, reducer in {"PCA": PCA(10), "HEBAE": HEBAETransformer(10, random_state=0)}.items():
    model = make_pipeline(reducer, StandardScaler(), LogisticRegression())
    accuracy[name] = model.fit(X_train, y_train).score(X_test, y_test)
    print(f"{name:6} accuracy on held-out digits {accuracy[name]:.3f}")
