"""
Choose the number of dimensions
===============================

How many numbers does a row need? Fit once per candidate and compare errors on held-out rows,
beside those of PCA. You will also see what you get if you fit only once and cut the codes.
"""

# %%
# Compare held-out errors
# -----------------------
# Fit HEBAE and PCA with 2 to 32 components to three quarters of the digits, and decode the others.
# Errors are given as a share of the variance, so that 1 is what the mean image would reach.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.model_selection import train_test_split

from skhebae import HEBAETransformer

X_train, X_test = train_test_split(load_digits().data / 16, random_state=0)
variance = np.mean((X_test - X_train.mean(axis=0)) ** 2)
candidates = [2, 4, 8, 16, 32]
methods = {"PCA": PCA, "HEBAE": HEBAETransformer}
errors = {name: [] for name in methods}
for name, method in methods.items():
    for d in candidates:
        model = method(d, random_state=0).fit(X_train)
        decoded = model.inverse_transform(model.transform(X_test))
        errors[name].append(np.mean((decoded - X_test) ** 2) / variance)
    print(
        f"{name:6}",
        " ".join(f"{d}: {e:.3f}" for d, e in zip(candidates, errors[name], strict=True)),
    )

# %%
# Cut the codes of one fit
# ------------------------
# Components are ordered, so the first d numbers of each code are a shorter code. Set the others to
# zero and decode. This needs one fit for all candidates, but expect errors near those of PCA. A
# model that is fitted with d components uses them better.

codes = model.transform(X_test)
cut = []
for d in candidates:
    shortened = np.where(np.arange(32) < d, codes, 0)
    cut.append(np.mean((model.inverse_transform(shortened) - X_test) ** 2) / variance)

# %%
# Read the curve
# --------------
# Every component lowers the error. Choose the number from which the gain is no longer worth
# another column. Or read across: HEBAE with 8 components is about as good as PCA with 16. If the
# codes go into a classifier, choose ``n_components`` with scikit-learn's ``GridSearchCV`` instead.

figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
axis.plot(candidates, errors["PCA"], "s-", color="#D55E00", label="PCA")
axis.plot(candidates, cut, "^:", color="#56B4E9", label="HEBAE(32), first d components")
axis.plot(candidates, errors["HEBAE"], "o-", color="#0072B2", label="HEBAE(d)")
axis.set_xscale("log", base=2)
axis.set_xticks(candidates, candidates)
axis.set(xlabel="number of components d", ylabel="held-out error (share of the variance)")
axis.set(ylim=(0, 1.05))
axis.set_title("How many dimensions do digits need?", fontsize=14)
axis.legend(frameon=False)
axis.grid(alpha=0.3)
plt.show()
