"""
Fill in missing values, with intervals
======================================

Fit :class:`~skhebae.HEBAETransformer` to a table with holes, fill them in, and see how sure you
can be of each value. You will also compute codes of incomplete rows and use
:class:`~skhebae.HEBAEImputer` in a pipeline.
"""

# %%
# Make a table with holes
# -----------------------
# The table has thirty measurements of 569 breast tumours. Suppose that half of the sheets were
# filled in carelessly, and lack 40 % of their values. Missing values are NaN. Because we made the
# holes ourselves, we know what belongs in them.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_breast_cancer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAEImputer, HEBAETransformer

data = load_breast_cancer()
rng = np.random.RandomState(0)
careless = rng.uniform(size=(len(data.data), 1)) < 0.5
missing = careless & (rng.uniform(size=data.data.shape) < 0.4)
X = np.where(missing, np.nan, data.data)
print(f"{missing.mean():.0%} of all values are missing")

# %%
# Fill in expected values, or draw
# --------------------------------
# Pass the incomplete table to ``fit`` as it is. ``impute(X)`` then returns the expected value of
# each missing entry given the rest of its row. ``impute(X, n_draws=100)`` returns 100 completed
# tables. Use expected values where you want the smallest error, and draws where you want to know
# how uncertain a result is.

model = HEBAETransformer(10, random_state=0).fit(X)
expected = model.impute(X)
draws = model.impute(X, n_draws=100)
low, high = np.quantile(draws, [0.05, 0.95], axis=0)

filled = {"column mean": SimpleImputer().fit_transform(X), "HEBAE": expected}
spread = data.data.std(axis=0)
rmse = {
    name: np.sqrt(np.mean(((values - data.data) / spread)[missing] ** 2))
    for name, values in filled.items()
}
coverage = np.mean((low <= data.data)[missing] & (data.data <= high)[missing])
for name, error in rmse.items():
    print(f"{name:12} error {error:.2f} standard deviations")
print(f"90 % intervals contain {coverage:.0%} of the true values")

# %%
# Each dot is a missing value, with the interval in which 90 % of its draws lie. The radius of a
# tumour follows from its area and perimeter, so its intervals are short as long as one of these is
# known. Its smoothness follows from little else, and the intervals say so.

figure, axes = plt.subplots(1, 2, figsize=(9.5, 4.4), layout="constrained")
for axis, column in zip(axes, ("mean radius", "mean smoothness"), strict=True):
    j = list(data.feature_names).index(column)
    rows = np.flatnonzero(missing[:, j])[:60]
    true = data.data[rows, j]
    axis.vlines(true, low[rows, j], high[rows, j], color="#56B4E9", lw=2, label="90 % interval")
    axis.plot(true, expected[rows, j], "o", color="#0072B2", ms=5, label="expected value")
    axis.plot(true, filled["column mean"][rows, j], "_", color="#D55E00", label="column mean")
    axis.axline((true.mean(), true.mean()), slope=1, color="0.6", lw=1, zorder=0)
    axis.set(xlabel="true value", ylabel="filled in", title=column)
axes[0].legend(frameon=False)
figure.suptitle("Missing values, filled in from the rest of the row", fontsize=14)
plt.show()

# %%
# Compute codes of incomplete rows
# --------------------------------
# ``transform`` takes incomplete rows too. Compare the codes with those of the complete rows, which
# we happen to know. Filling in column means first moves the codes much further from where they
# belong.

truth = model.transform(data.data)
incomplete = missing.any(axis=1)
variance = np.sum((truth - truth.mean(axis=0))[incomplete] ** 2)
moved = {}
for name, rows in {"column mean": filled["column mean"], "holes left open": X}.items():
    moved[name] = np.sum((model.transform(rows) - truth)[incomplete] ** 2) / variance
    print(f"{name:16} error of the codes {moved[name]:.1%} of their variance")

# %%
# Use it in a pipeline
# --------------------
# :class:`~skhebae.HEBAEImputer` does the same as a step of a pipeline, in front of any estimator
# that needs complete rows. Here a logistic regression tells malignant from benign tumours.

X_train, X_test, y_train, y_test = train_test_split(X, data.target, random_state=0)
accuracy = {}
for name, imputer in {"column mean": SimpleImputer(), "HEBAE": HEBAEImputer(model)}.items():
    pipeline = make_pipeline(imputer, StandardScaler(), LogisticRegression(max_iter=1000))
    accuracy[name] = pipeline.fit(X_train, y_train).score(X_test, y_test)
    print(f"{name:12} accuracy on held-out rows {accuracy[name]:.3f}")
