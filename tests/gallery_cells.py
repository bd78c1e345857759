"""Assertions on what the examples in examples/cells and examples/training claim.

`CHECKS` maps an example to Python source that runs after it, with its variables.
"""

from __future__ import annotations

CHECKS: dict[str, str] = {
    "cells/plot_batches": """
share, right = table["own batch"], table["type accuracy"]
assert share["PCA"] > 0.9  # the batches lie apart
assert 0.45 < share["with batch_key"] < 0.6  # and are mixed, as 0.5 is
assert right["with batch_key"] > right["PCA"] - 0.03 > 0.8  # types are as clear as before
assert set(adata.obs["cell_type"]) == {"B", "NK", "T", "dendritic", "monocyte", "progenitor"}
""",
    "cells/plot_map_new_cells": """
assert [warning.category.__name__ for warning in caught] == ["MissingGenesWarning"]
assert str(caught[0].message).startswith("77 of the model's 765 genes are not in var_names")
assert accuracy > 0.83
assert mistakes.sum() == query.n_obs == 234
close = mistakes[3, 4] + mistakes[4, 3] + mistakes[1, 2] + mistakes[2, 1]
assert close > 0.6 * (mistakes.sum() - np.trace(mistakes))  # between types that are close
# The model that made the reference gives the same codes as its file, and needs no order of genes.
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    again = skhebae.tl.project(query[:, ::-1].copy(), model, copy=True)
assert np.allclose(again.obsm["X_hebae"], query.obsm["X_hebae"], atol=1e-4)
""",
    "cells/plot_denoise": """
assert np.array_equal(seen + held_out, counts)
assert deviance["denoised"] < 0.8 * deviance["mean of the gene"]
assert deviance["denoised"] < 0.8 * deviance["the counts seen, + 0.1"]
# Many T and B cells have no molecule of either marker; denoised values tell the types apart.
from sklearn.metrics import roc_auc_score
assert 0.4 < neither < 0.6
either = kinds["T"] | kinds["B"]
apart = [
    roc_auc_score(kinds["T"][either], np.log1p(table[either][:, columns]) @ [1, -1])
    for table in (seen, denoised)
]
assert apart[0] < 0.87
assert apart[1] > 0.96
inflated, measured = (np.corrcoef(np.log1p(table[:, :200].T)) for table in (denoised, seen))
assert np.abs(inflated).mean() > 2 * np.abs(measured).mean()
""",
    "cells/plot_marker_means": """
off = {title: 2 ** (table - first).abs().mean(axis=None) for title, table in means.items()}
decoded_off = off["Chemistry 2, decoded as chemistry 1"]
assert 1.5 < off["Chemistry 2, measured"] < 1.9
assert decoded_off < 1.4
strongest = means["Chemistry 2, decoded as chemistry 1"].idxmax()
assert strongest.equals(first.idxmax())  # each marker is highest in the type that it marks
assert strongest[["CD3D", "MS4A1", "GNLY", "LYZ"]].tolist() == ["T", "B", "NK", "dendritic"]
""",
    "cells/plot_generate_counts": """
assert generated.shape == (2000, 765)
assert sparse.issparse(generated.X)
assert np.array_equal(drawn, np.rint(drawn))
assert drawn.min() == 0
assert abs(table.loc["median total", "generated"] / table.loc["median total", "real"] - 1) < 0.05
zeros_of = table.loc["share of zeros"]
assert abs(zeros_of["generated"] - zeros_of["real"]) < 0.02
assert zeros_of["Poisson"] < zeros_of["real"] - 0.03
ratio = {name: np.log(X.var(axis=0) / counts.var(axis=0)) for name, X in cells.items()}
assert abs(np.median(ratio["generated"])) < 0.25
assert np.median(ratio["Poisson"]) < -0.25
""",
    "training/plot_checkpoint": """
assert same_codes
assert same_loss
assert np.array_equal(resumed.sample(5, random_state=0), whole.sample(5, random_state=0))
assert first_session == list(range(29))
# The second session starts where the file ends, and not from scratch.
assert 0 < second_session[0] <= 29
assert second_session == list(range(second_session[0], resumed.n_iter_))
""",
    "training/plot_distributed": """
assert np.array_equal(*codes)
assert codes[0].std() > 0.1
assert abs(table.loc["1 process", "score"] - table.loc["2 processes", "score"]) < 5.0
assert (table[["fit, s", "start, s"]] > 0).all(axis=None)
""",
    "training/plot_own_likelihood": """
assert own.score(test) > gaussian.score(test) + 0.2
assert tails["Gaussian"][0] > 10 * tails["Gaussian"][1]  # hardly any expected, but many found
assert 0.3 < tails["Laplace"][0] / tails["Laplace"][1] < 2.0
from scipy.integrate import quad
assert abs(quad(stats.laplace.pdf, 4, np.inf)[0] * 2 - tails["Laplace"][1]) < 1e-6
assert own.transform(test).std() > 1.5  # the codes use the wide prior
drawn = np.random.RandomState(0)
assert abs(WidePrior(5).sample(20_000, drawn).std() - 3.0) < 0.05
""",
    "training/plot_own_objective": """
kl = {name: divergence.sum(axis=1) for name, divergence in divergences.items()}
assert (kl["VAEObjective"] > 2.0).mean() > 0.8  # most wines cost more than 2 nats
assert abs(kl["FreeBits"].mean() - kl["VAEObjective"].mean()) < 0.15
assert kl["GenerousFreeBits"].mean() > kl["VAEObjective"].mean() + 1.5
more = divergences["GenerousFreeBits"].mean(axis=0) - divergences["VAEObjective"].mean(axis=0)
assert more.min() > 0.2  # all three dimensions get a share
from scipy import stats
mean, deviation = models["FreeBits"].fitted_.encode_with_spread(X[:1])
draws = mean + deviation * np.random.default_rng(0).normal(size=(400_000, 3))
ratio = stats.norm.logpdf(draws, mean, deviation) - stats.norm.logpdf(draws)
assert np.allclose(ratio.mean(axis=0), divergences["FreeBits"][0], atol=0.01)
""",
    "training/plot_images": """
errors = {
    name: np.mean((m.inverse_transform(m.transform(test)) - test) ** 2)
    for name, m in {"convolutions": model, "perceptron": perceptron}.items()
}
assert errors["convolutions"] < 0.013  # pixels have a variance of about 0.14 around 0.3
assert errors["convolutions"] < 1.2 * errors["perceptron"]
weights = [sum(w.numel() for w in m.fitted_.model.parameters()) for m in (model, perceptron)]
assert weights[0] < 0.8 * weights[1]  # convolutions need fewer
# Generated digits lie near real ones, and are not blank.
from sklearn.neighbors import NearestNeighbors
nearest = NearestNeighbors(n_neighbors=1)
apart = nearest.fit(train).kneighbors(np.vstack([generated, test]))[0].ravel()
assert np.median(apart[:24]) < 1.5 * np.median(apart[24:])
assert generated.std(axis=1).min() > 0.2
""",
}
