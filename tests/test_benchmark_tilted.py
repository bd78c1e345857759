"""The benchmark of the tilted prior: strange images, what is measured of them, and the verdicts."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks import tilted
from benchmarks.datasets import Dataset
from benchmarks.speed import unwarned
from skhebae import VAETransformer


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    return rng.random((40, 28, 28)).round(2).reshape(40, -1)


def test_strange_images_are_what_they_are_called(images):
    found = tilted.strange_images(images, 0)
    assert tuple(found) == tilted.STRANGE
    assert all(rows.shape == (40, 784) for rows in found.values())
    assert all(rows.min() >= 0.0 and rows.max() <= 1.0 for rows in found.values())
    assert (np.ptp(found["constant"], axis=1) == 0.0).all()
    first = images[0].reshape(28, 28)
    assert (found["mirrored"][0].reshape(28, 28)[:, ::-1] == first).all()
    assert (found["upside down"][0].reshape(28, 28)[::-1] == first).all()
    assert (np.rot90(found["rotated"][0].reshape(28, 28), -1) == first).all()
    framed = found["digits"].reshape(-1, 28, 28)
    assert framed[:, :4].max() == 0.0
    assert framed[:, 4:24].max() > 0.9


@pytest.mark.slow
def test_scores_are_the_negative_bound_and_that_of_the_code(images):
    params = {"n_components": 2, "hidden_layer_sizes": (4,), "random_state": 0, "max_iter": "auto"}
    model = VAETransformer(**params, prior="tilted", likelihood="bernoulli").fit(images)
    found = tilted.scores(model, images)
    np.testing.assert_allclose(found["elbo"], -model.elbo(images), rtol=1e-6)
    # The divergence is left, and how much worse each pixel is than its own value would be.
    assert (found["excess"] > 0.0).all()
    best = np.array(
        [stats.bernoulli(row[(row > 0.0) & (row < 1.0)]).entropy().sum() for row in images]
    )
    np.testing.assert_allclose(found["elbo"] - found["excess"], best, rtol=1e-6)
    # Noise of codes costs some reconstruction, and nothing else differs.
    assert (found["mean"] < found["elbo"] + 0.5).all()
    assert tilted.quadratic_error(model, images) < 1.0


def test_sharpness_and_distance(images):
    blurred = np.repeat(images.mean(axis=1, keepdims=True), 784, axis=1)
    assert tilted.sharpness(blurred) == pytest.approx(0.0, abs=1e-12)
    assert tilted.sharpness(images) > 0.1
    assert tilted.distance_to(images, images) < 1e-6
    assert tilted.distance_to(images[:20], images[20:]) > 1.0


def made_up(method, value, **more):
    row = {f"{name}, {kind}": value for name in tilted.STRANGE for kind in tilted.SCORES}
    keys = ("bound", "sharpness", "rebuilt_sharpness", "distance", "fit_seconds", "score_seconds")
    return {"method": method, "seed": 0, **dict.fromkeys(keys, 1.0), **row, **more}


def test_verdicts_follow_the_rules():
    rows = [made_up(tilted.STANDARD, 0.7), made_up("tilted, auto", 0.8, quadratic_error=0.2)]
    better = made_up(tilted.TILTED, 0.96, quadratic_error=0.05, sharpness=1.1)
    verdicts = [line[-1] for line in tilted.claims([*rows, better])]
    assert verdicts == ["holds", "holds", "holds", "not tested", "holds", "holds"]
    mixed = {**better, "digits, elbo": 0.6, "distance": 2.0, "quadratic_error": 0.3}
    verdicts = [line[-1] for line in tilted.claims([*rows, mixed])]
    assert verdicts == ["holds", "partly", "does not", "not tested", "partly", "partly"]
    worse = made_up(tilted.TILTED, 0.7, quadratic_error=0.6)
    verdicts = [line[-1] for line in tilted.claims([made_up(tilted.STANDARD, 0.9), worse])]
    assert verdicts == ["does not", "does not", "does not", "not tested", "does not", "does not"]
    text = "\n".join(tilted.summary([*rows, better]))
    assert "| tilted, 25 | bound | 0.960 |" in text
    assert "| the tilted prior detects more | mean AUROC from 0.700 to 0.960 | holds |" in text


@pytest.mark.slow
def test_a_row_has_all_that_the_page_shows(images, monkeypatch):
    dataset = Dataset("images", images.astype(np.float32), np.zeros(40), "bernoulli", n_train=30)
    params = {"n_components": 2, "hidden_layer_sizes": (4,), "max_iter": 3}
    monkeypatch.setattr(tilted, "PARAMS", params)
    with unwarned():
        measured = {
            method: tilted.measure(dataset, method, 0, iter(range(9)).__next__)
            for method in tilted.METHODS
        }
    rows = [{"method": method, "seed": 0, **row} for method, row in measured.items()]
    assert len(tilted.claims(rows)) == 6
    assert len(tilted.summary(rows)) > 15
