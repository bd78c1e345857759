"""
Generate a table of numbers, categories and booleans
====================================================

Pass a frame with columns of several types to :class:`~skhebae.HEBAETransformer` as it is. You get
back frames with the same types, and you will compare generated columns with real ones.
"""

# %%
# Prepare a frame
# ---------------
# The American National Election Study asked 944 people before the election of 1996. The types of
# the columns tell the model what each one holds: text, booleans, ordered categories, integers or
# numbers. Dates work too. You need neither one-hot encoding nor scaling.

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import statsmodels.api as sm

from skhebae import HEBAETransformer

answers = sm.datasets.anes96.load_pandas().data.astype({"PID": int, "selfLR": int})
parties = ["strong Dem.", "weak Dem.", "leans Dem.", "independent"]
parties += ["leans Rep.", "weak Rep.", "strong Rep."]
views = ["very liberal", "liberal", "slightly liberal", "moderate"]
views += ["slightly cons.", "conservative", "very cons."]
people = pd.DataFrame(
    {
        "vote": np.where(answers["vote"] == 1, "Dole", "Clinton"),
        "party": pd.Categorical.from_codes(answers["PID"], parties, ordered=True),
        "views": pd.Categorical.from_codes(answers["selfLR"] - 1, views, ordered=True),
        "has a degree": answers["educ"] >= 5,
        "age": answers["age"].astype(int),
        "TV news per week": answers["TVnews"].astype(int),
        "income bracket": answers["income"].astype(int),
        "town size (1,000s)": answers["popul"],
    }
)
print(people.dtypes)

# %%
# Fit, and draw new rows
# ----------------------
# ``transform`` returns an array of codes. ``sample`` returns a frame with the types, ranges and
# categories of the frame that you passed to ``fit``.

model = HEBAETransformer(random_state=0).fit(people)
generated = model.sample(len(people), random_state=0)
print(generated.head().to_string())

# %%
# Compare columns
# ---------------
# Each column should have the same distribution among real and generated rows. Wide columns are cut
# into ranges to be drawn.

ranges = {
    "age": [17, 29, 39, 49, 59, 69, 79, 91],
    "income bracket": [0, 4, 8, 12, 16, 20, 24],
    "town size (1,000s)": [-1, 9, 49, 199, 999, 8000],
}
colours = {"real": "#0072B2", "generated": "#E69F00"}
figure, axes = plt.subplots(2, 4, figsize=(11, 5.6), layout="constrained")
for axis, name in zip(axes.flat, people, strict=True):
    for shift, frame, colour in zip(
        (-0.2, 0.2), (people, generated), colours.values(), strict=True
    ):
        values = frame[name]
        if name in ranges:
            values = pd.cut(values, ranges[name]).map(lambda cut: f"{cut.left + 1}-{cut.right}")
        shares = 100 * values.value_counts(normalize=True).sort_index()
        axis.bar(np.arange(len(shares)) + shift, shares, 0.4, color=colour)
    axis.set_xticks(range(len(shares)), shares.index)
    if len(shares) > 2 and name != "TV news per week":
        plt.setp(axis.get_xticklabels(), rotation=40, ha="right", rotation_mode="anchor")
    axis.set_title(name, fontsize=12)
for axis in axes[:, 0]:
    axis.set_ylabel("% of rows")
figure.legend(axes[0, 0].containers, colours, loc="outside upper right", ncols=2, frameon=False)
figure.suptitle("A survey, column by column: real and generated rows", fontsize=14, x=0.3)
plt.show()

# %%
# Compare pairs of columns
# ------------------------
# Columns may look right one by one and still not fit together. Count how often the party that a
# generated person prefers is that of the candidate, beside the real people.

matches = {}
for name, frame in {"real": people, "generated": generated}.items():
    republican = frame["party"] >= "leans Rep."
    partisan = frame["party"] != "independent"
    matches[name] = np.mean((republican == (frame["vote"] == "Dole"))[partisan])
    print(f"{name:10} vote for the candidate of their own party: {matches[name]:.0%}")
