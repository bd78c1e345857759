"""
Generate rows that have given values
====================================

Fix some columns of a table and let the model draw the others. You will ask for people of a given
kind with ``sample(given=...)`` and compare the answers with the real people of that kind.
"""

# %%
# Fit to a survey
# ---------------
# In 1974, the magazine Redbook asked its readers about their marriages. Fit to all columns of the
# 6,366 answers. You do not need to say which columns you will fix later.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.api as sm

from skhebae import HEBAETransformer

answers = sm.datasets.fair.load_pandas().data
jobs = ["student", "unskilled", "white-collar", "skilled", "managerial", "professional"]
women = pd.DataFrame(
    {
        "age": answers["age"],
        "years married": answers["yrs_married"],
        "children": answers["children"],
        "job": pd.Categorical.from_codes(answers["occupation"].astype(int) - 1, jobs),
        "schooling": answers["educ"],
        "religious": answers["religious"] >= 3,
        "had an affair": answers["affairs"] > 0,
    }
)
model = HEBAETransformer(random_state=0).fit(women)

# %%
# Fix some values
# ---------------
# Pass a mapping from columns to values. All generated rows have these values, and the other
# columns are drawn from what goes with them. You can fix any column, and several at once.

kinds = {
    "married for 2.5 years": {"years married": 2.5},
    "married for 23 years": {"years married": 23.0},
    "a professional": {"job": "professional"},
}
generated = {kind: model.sample(1000, given=given, random_state=0) for kind, given in kinds.items()}
real = {
    kind: women[np.logical_and.reduce([women[column] == value for column, value in given.items()])]
    for kind, given in kinds.items()
}
for kind, rows in real.items():
    print(f"{kind}: {len(rows)} real rows")

# %%
# Compare with real rows of that kind
# -----------------------------------
# Women who have been married for long are older and have more children, and professionals went to
# school for longer. The generated women follow, although the model was fitted to all women at
# once.

shown = {"age": "years", "children": "number", "schooling": "years"}
figure, axes = plt.subplots(3, 3, figsize=(9.5, 6.6), sharex="col", layout="constrained")
for line, kind in zip(axes, kinds, strict=True):
    for axis, column in zip(line, shown, strict=True):
        levels = np.sort(women[column].unique())
        for shift, rows, colour in ((-0.2, real, "#0072B2"), (0.2, generated, "#E69F00")):
            shares = rows[kind][column].value_counts(normalize=True).reindex(levels, fill_value=0)
            axis.bar(np.arange(len(levels)) + shift, 100 * shares, 0.4, color=colour)
        everyone = women[column].value_counts(normalize=True).reindex(levels)
        axis.step(np.arange(len(levels)), 100 * everyone, where="mid", color="0.4", lw=1)
        axis.set_xticks(range(len(levels)), [f"{level:g}" for level in levels])
    line[0].set_ylabel(f"{kind}\n% of women")
for axis, (column, unit) in zip(axes[-1], shown.items(), strict=True):
    axis.set_xlabel(f"{column} ({unit})")
names = ["real", "generated", "all women"]
handles = [*axes[0, 0].containers, axes[0, 0].lines[0]]
figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
figure.suptitle("Women of a given kind: real and generated", fontsize=14)
plt.show()

# %%
# Check rare kinds
# ----------------
# The rarer a kind is, the less the model could learn about it. There are only 109 professionals
# among the rows, and the generated ones went to school for a year less than the real ones.

for kind in kinds:
    for column in shown:
        means = [rows[kind][column].mean() for rows in (real, generated)]
        print(f"{kind:22} {column:10} real {means[0]:5.1f} generated {means[1]:5.1f}")
