"""The study of densities to sample from: known densities, extremes, and orderings."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

pytest.importorskip("torchmetrics", reason="pip install torchmetrics")
pytest.importorskip("prdc", reason="pip install prdc")

from skhebae.estimators.latent import CodeMixture

from benchmarks import frechet, sampling
from benchmarks.datasets import load_table
from benchmarks.sampling import Affine, Density, Flow, Model, Prior, Shrunk
from skhebae import HEBAETransformer


@pytest.fixture(scope="module")
def rows():
    """A study of HEBAE on 600 digits."""
    table = load_table("digits", 0)
    table = table._replace(train=table.train[:600], y_train=table.y_train[:600])
    parts = (table.train, table.y_train, table.test, table.y_test)
    net = frechet.train_feature_net(*parts, table.image_shape)
    model = Model("HEBAE", HEBAETransformer, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampling, "ROWS", 450)  # one draw
        return list(sampling.measure(table, model, net, 0, whole=False))


@pytest.fixture(scope="module")
def by_latent(rows):
    return {row["latent"]: row for row in rows}


@pytest.fixture
def codes():
    """Correlated codes of other units and means."""
    rng = np.random.default_rng(0)
    return rng.normal(size=(2000, 3)) @ rng.normal(size=(3, 3)) * [1.0, 30.0, 0.1] + [5.0, 0, -2]


def test_every_number_is_finite(rows):
    for row in rows:
        numbers = [value for value in row.values() if isinstance(value, float)]
        assert np.isfinite(numbers).all(), row["latent"]


def test_orderings_known_beforehand(by_latent):
    distance = {name: row["frechet"] for name, row in by_latent.items()}
    assert distance["training rows"] < distance["training codes"] < distance["prior"]
    mixture, prior = by_latent["sized"], by_latent["prior"]
    assert mixture["frechet"] < 0.8 * prior["frechet"]
    assert mixture["log_density"] > prior["log_density"] + 1
    assert mixture["coverage"] > prior["coverage"]
    assert distance["training rows"] == prior["floor"]
    assert distance["training codes"] == prior["frechet_codes"]
    assert "frechet" in prior["controls_valid"]


def test_bytes_are_those_of_a_mixture(by_latent):
    assert by_latent["full 10"]["bytes"] == 8 * 10 * (1 + 10 + 100)
    assert by_latent["tied 50"]["bytes"] == 8 * (50 * (1 + 10) + 100)
    assert by_latent["KDE 0.2"]["bytes"] == 4 * 600 * 10
    assert by_latent["prior"]["bytes"] == 0


@pytest.mark.parametrize(
    ("n_rows", "n_components", "size"),
    [(30, 10, 1), (300, 2, 10), (1347, 10, 44), (1347, 50, 8), (3000, 10, 50), (7000, 64, 31)],
)
def test_sized_is_the_mixture_of_the_estimators(n_rows, n_components, size):
    codes = np.random.default_rng(0).normal(size=(n_rows, n_components)).astype(np.float32)
    shipped = CodeMixture.fit(codes, seed=0)
    candidate = Density("", partial(sampling.sized, n_rows, n_components, 0))
    density, affine, _ = sampling.fit_density(candidate, codes.astype(float))
    assert len(shipped.weights) == density.n_components == size
    means = affine.shift + density.means_ @ affine.matrix
    np.testing.assert_allclose(means, shipped.means, atol=1e-4)
    covariances = affine.matrix.T @ density.covariances_ @ affine.matrix
    np.testing.assert_allclose(covariances, shipped.covariances, atol=1e-4)


@pytest.mark.parametrize("target", ["diagonal", "sphere"])
def test_shrinking_keeps_size_and_counts_rows(codes, target):
    plain = GaussianMixture(1, reg_covar=0.0).fit(codes)
    shrunk = Shrunk(GaussianMixture(1, reg_covar=0.0), 100, target).fit(codes)
    before, after = plain.covariances_[0], shrunk.covariances_[0]
    assert np.trace(after) == pytest.approx(np.trace(before))
    kept = len(codes) / (len(codes) + 100)
    np.testing.assert_allclose(after[0, 1:], kept * before[0, 1:])
    expected = multivariate_normal(codes.mean(axis=0), after).logpdf(codes)
    np.testing.assert_allclose(shrunk.score_samples(codes), expected)


@pytest.mark.parametrize("scale", ["standardised", "whitened"])
def test_log_density_is_of_codes_on_their_own_scale(codes, scale):
    make = partial(GaussianMixture, 1, reg_covar=0.0)
    density, affine, _ = sampling.fit_density(Density("", make, scale), codes)
    expected = multivariate_normal(codes.mean(axis=0), np.cov(codes.T, bias=True)).logpdf(codes)
    found = sampling.mean_log_density(density, affine, codes)
    assert found == pytest.approx(expected.mean(), rel=1e-9)
    drawn = sampling.draw(density, affine, 20_000, seed=0)
    np.testing.assert_allclose(drawn.mean(axis=0), codes.mean(axis=0), atol=0.05 * codes.std())
    ratio = np.linalg.solve(np.cov(codes.T), np.cov(drawn.T))
    np.testing.assert_allclose(np.linalg.eigvals(ratio), 1.0, atol=0.1)


@pytest.mark.parametrize("scale", ["none", "standardised", "whitened"])
def test_affine_inverts(codes, scale):
    affine = Affine.of(codes, scale)
    z = affine.inverse(codes)
    np.testing.assert_allclose(affine.shift + z @ affine.matrix, codes, atol=1e-9)
    if scale == "whitened":
        np.testing.assert_allclose(np.cov(z.T), np.eye(3), atol=1e-9)


def test_prior_is_standard_normal(codes):
    prior = Prior(0).fit(codes)
    expected = multivariate_normal(np.zeros(3), np.eye(3)).logpdf(codes)
    np.testing.assert_allclose(prior.score_samples(codes), expected)
    np.testing.assert_allclose(np.cov(prior.sample(20_000).T), np.eye(3), atol=0.05)


@pytest.mark.parametrize(
    ("n_rows", "n_components", "constant"), [(30, 10, False), (200, 64, False), (100, 3, True)]
)
def test_extremes_have_finite_samples(n_rows, n_components, constant):
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(n_rows, n_components)) * (0.0 if constant else 1.0) + 2.0
    for candidate in sampling.densities(n_rows, n_components, seed=0):
        density, affine, _ = sampling.fit_density(candidate, codes)
        drawn = sampling.draw(density, affine, 100, seed=0)
        assert drawn.shape == (100, n_components)
        assert np.isfinite(drawn).all(), candidate.name
        assert np.isfinite(sampling.mean_log_density(density, affine, codes)), candidate.name
        if constant and candidate.name.startswith("full 1"):
            np.testing.assert_allclose(drawn, 2.0, atol=0.5)


def test_sizes_beyond_the_limit_count_once():
    assert sampling.at_most(26, 10, 20, 50, 100) == [10, 20, 26]
    assert sampling.at_most(1, 1, 10) == [1]


def test_quick_run_leaves_committed_results_alone(tmp_path, monkeypatch):
    written = {"latent": "prior", "frechet": 1.0}
    monkeypatch.setattr(sampling, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(sampling, "measure", lambda *_, **__: iter([written]))
    monkeypatch.setattr(frechet, "MIN_UPDATES", 1)
    monkeypatch.setattr(frechet, "MIN_EPOCHS", 1)
    committed = sampling.RESULTS / "sampling.json"
    before = committed.stat().st_mtime_ns if committed.exists() else None
    sampling.main(["--data", "digits", "--quick"])
    document = json.loads((tmp_path / "cache" / "sampling-quick.json").read_text())
    assert document["rows"] == [{"data": "digits", **written}]
    assert before == (committed.stat().st_mtime_ns if committed.exists() else None)


def test_flow_beats_a_gaussian_where_codes_are_not_one():
    pytest.importorskip("zuko", reason="pip install zuko")
    rng = np.random.default_rng(0)
    codes = rng.choice([-2.0, 2.0], (1000, 2)) + 0.3 * rng.normal(size=(1000, 2))
    state = torch.random.get_rng_state()
    flow = Flow(0, np.inf).fit(codes)
    flow.sample(10)
    assert torch.equal(state, torch.random.get_rng_state())
    gaussian = GaussianMixture(1).fit(codes)
    assert flow.score_samples(codes).mean() > gaussian.score(codes) + 0.5
    grid = np.stack(np.meshgrid(*[np.linspace(-5, 5, 201)] * 2), axis=-1).reshape(-1, 2)
    assert np.exp(flow.score_samples(grid)).sum() * 0.05**2 == pytest.approx(1.0, abs=0.02)
