"""
Choose how much to regularise
=============================

Find the weight of a penalty that suits your own rows.
:func:`~skhebae.diagnostics.regularisation_path` fits one model per weight and fold. Its curves
show which weights are so small that the model overfits, and which are so large that it underfits.
"""

# %%
# Fit each weight on each fold
# ----------------------------
# The parameter can be any number that the estimator takes. Here it is ``beta``, the weight of the
# divergence in a VAE, on thirty measurements per breast tumour. Pass ``n_jobs=-1`` to fit on all
# processors at once.

import matplotlib.pyplot as plt
from sklearn.datasets import load_breast_cancer

from skhebae import VAETransformer
from skhebae.diagnostics import regularisation_path

X = load_breast_cancer().data
path = regularisation_path(
    VAETransformer(5, random_state=0),
    X,
    parameter="beta",
    values=[0.1, 0.3, 1, 3, 10],
    cv=2,
)
print(path)

# %%
# Read the curves
# ---------------
# The path has three curves: the mean score of the rows that a model was fitted to, of rows that
# were held out, and of rows that the model generates. Held-out rows decide. They score best at a
# weight of 0.3, but a weight of 1 is within a standard error, and it leaves a smaller gap to the
# training rows.
#
# On the left, the model finds its own generated rows more likely than real ones that it has not
# seen, so it overfits. On the right, all scores fall, because the codes no longer carry enough of
# a row.

curves = {
    "training rows": (path.train, path.errors["train"], "#0072B2", "o"),
    "held-out rows": (path.held_out, path.errors["held_out"], "#D55E00", "s"),
    "generated rows": (path.generated, path.errors["generated"], "#E69F00", "^"),
}
figure, axis = plt.subplots(figsize=(7.5, 4.6), layout="constrained")
for label, (mean, error, colour, marker) in curves.items():
    axis.plot(path.values, mean, marker + "-", color=colour, label=label)
    axis.fill_between(path.values, mean - error, mean + error, color=colour, alpha=0.15, lw=0)
axis.axvline(path.best, color="0.3", lw=1)
axis.axvline(path.one_standard_error, color="0.3", lw=1, ls="--")
axis.text(path.best, 5.2, " best", color="0.3")
axis.text(path.one_standard_error, 5.2, " largest within one\n standard error", color="0.3")
axis.set(xscale="log", xlabel="beta, the weight of the penalty", ylabel="score (nats per row)")
axis.set_title("Too little or too much regularisation?", fontsize=14)
axis.legend(frameon=False)
plt.show()

# %%
# Use the answer
# --------------
# ``path.one_standard_error`` is the largest weight that is not measurably worse than the best.
# :class:`~skhebae.plotting.RegularisationDisplay` draws such a figure in one line.

model = VAETransformer(5, beta=path.one_standard_error, random_state=0).fit(X)
print(f"beta {path.one_standard_error:g}: score of all rows {model.score(X):.1f} nats per row")
