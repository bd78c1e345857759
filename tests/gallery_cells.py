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
    "training/plot_checkpoint": """
assert same_codes
assert same_loss
assert np.array_equal(resumed.sample(5, random_state=0), whole.sample(5, random_state=0))
assert first_session == list(range(54))
# The second session starts where the file ends, and not from scratch.
assert 0 < second_session[0] <= 54
assert second_session == list(range(second_session[0], resumed.n_iter_))
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
