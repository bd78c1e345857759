"""Features that are constant at first: no influence until they vary, and then a fresh start."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from torch import nn

from skhebae import HEBAETransformer
from skhebae.data import FeatureScaling, StoredTable, Table
from skhebae.exceptions import OutOfRangeWarning
from skhebae.likelihoods import CountScaling

AT = 3  # the feature


def table(n_rows=400, seed=0):
    """Eight features of two dimensions, of which one is not 0 from the second quarter on."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, 8))
    X += 0.1 * rng.normal(size=X.shape)
    X[: n_rows // 4, AT] = 0.0
    return X


def counts(n_rows=400, seed=0):
    rng = np.random.default_rng(seed)
    rate = np.exp(1.5 + 0.5 * rng.normal(size=(n_rows, 2)) @ rng.normal(size=(2, 8)))
    X = rng.poisson(rate).astype(np.float64)
    X[: n_rows // 4, AT] = 0.0
    return X


def quarters(X):
    return np.split(X, 4)


def errors(model, X):
    """Mean square error of each feature, as a share of its variance."""
    return ((model.inverse_transform(model.transform(X)) - X) ** 2).mean(axis=0) / X.var(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("unit", [1e-6, 1.0, 1e6])
def test_a_feature_that_varies_later_spoils_no_other(cls, unit):
    X = table()
    X[:, AT] *= unit
    model = cls(2, random_state=0)
    for _ in range(10):
        model.partial_fit(iter(quarters(X)))
    error = errors(model, X)
    assert np.delete(error, AT).max() < 0.5
    assert error[AT] < 0.7
    assert np.isfinite(model.noise_variance_).all()
    assert (model.noise_variance_ < 2.0 * X.var(axis=0)).all()
    assert model.score(X) > -8.0 * (2.0 + max(0.0, np.log(unit)))


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, StoredTable])
def test_it_is_measured_over_all_rows_so_far(quick, form):
    X = table()
    model = HEBAETransformer(**quick)
    model.partial_fit(X[:100])
    before = model.fitted_.scaling
    assert_array_equal(before.constant, [AT])
    model.partial_fit(X[:100])
    assert model.fitted_.scaling is before
    model.partial_fit(form(X[100:200]))
    scaling, expected = (
        model.fitted_.scaling,
        FeatureScaling.measure(Table(X[[*range(100)] * 2 + [*range(100, 200)]])),
    )
    assert scaling.constant.size == 0
    assert model.fitted_.model.varies is None
    for name in ("location", "scale", "variance"):
        got, was, wanted = (getattr(of, name) for of in (scaling, before, expected))
        assert_array_equal(np.delete(got, AT), np.delete(was, AT))
        assert_allclose(got[AT], wanted[AT], rtol=1e-10)
    likelihood = model.fitted_.likelihood
    assert_allclose(likelihood.scale.numpy(), scaling.scale, rtol=1e-6)
    assert_allclose(likelihood.floor.numpy(), 0.01 * scaling.variance, rtol=1e-6)
    assert_allclose(float(likelihood.log_units), likelihood.log_unit.sum(), rtol=1e-5)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 1e6 + 0.1])
def test_a_constant_in_single_precision_is_that_in_double(quick, value):
    X = table()
    X[:, AT] = value
    model = HEBAETransformer(**quick).partial_fit(X[:100].astype(np.float32))
    model.partial_fit(X[100:200])
    assert_array_equal(model.fitted_.scaling.constant, [AT])
    X[200:, AT] *= 2.0
    model.partial_fit(X[200:300])
    assert model.fitted_.scaling.constant.size == 0
    assert_allclose(model.fitted_.scaling.location[AT], value * 4 / 3, rtol=1e-6)


@pytest.mark.parametrize("linear_path", [False, True])
def test_the_start_is_neutral(quick, monkeypatch, linear_path):
    """Before the first step after it varies, all codes and all other features are as before."""
    X = table()
    # What comes after training, for all rows so far, is left out; so are the axes of codes.
    monkeypatch.setattr("skhebae.fitted.fit.finish_likelihood", lambda *arguments: None)
    monkeypatch.setattr("skhebae.fitted.fit.measure_axes", lambda *arguments: None)
    model = HEBAETransformer(**quick, reg_weight=0.0, linear_path=linear_path)
    model.partial_fit(X[:100])
    codes, decoded = model.transform(X), model.inverse_transform(model.transform(X))
    score = model.score_samples(X[:100])
    steps = []
    monkeypatch.setattr("skhebae.training.adam.Adam.step", lambda self: steps.append(self.state()))
    model.partial_fit(X[100:200])
    assert len(steps) > 0
    assert_array_equal(model.transform(X), codes)
    again = model.inverse_transform(codes)
    assert_array_equal(np.delete(again, AT, axis=1), np.delete(decoded, AT, axis=1))
    assert_allclose(again[:, AT], X[:200, AT].mean(), rtol=1e-5)
    assert np.isfinite(model.score_samples(X)).all()
    assert (model.score_samples(X[:100]) > score - 5.0).all()
    # Adam knows nothing of it either.
    name = "encoder.path.weight" if linear_path else "encoder.layers.0.weight"
    weights = dict(model.fitted_.model.named_parameters())
    # In the order of Adam: those that decay first.
    order = sorted(weights, key=lambda key: weights[key].ndim <= 1 or ".path." in key)
    encoder = order.index(name)
    moments = model.fitted_.optimizer_state[encoder]["exp_avg_sq"]
    assert (moments[:, AT] == 0.0).all()
    assert (np.delete(moments.numpy(), AT, axis=1) > 0.0).any()


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "negative_binomial"])
@pytest.mark.parametrize("value", [1e-3, 1.0, 400.0])
def test_no_influence_on_codes_until_then(cls, brief, likelihood, value):
    X = counts()[:100] if likelihood == "negative_binomial" else table()[:100]
    if likelihood == "bernoulli":
        X = np.abs(np.sin(X))
    model = cls(**brief, likelihood=likelihood).fit(X)
    other = X.copy()
    other[:, AT] = max(1.0, value) if likelihood == "negative_binomial" else value
    if likelihood == "bernoulli":
        other[:, AT] = min(1.0, value)
    assert_array_equal(model.transform(other), model.transform(X))
    assert_array_equal(model.posterior(other).mean, model.posterior(X).mean)
    assert np.isfinite(model.score_samples(other)).all()
    assert (model.score_samples(other) < model.score_samples(X)).all()
    if likelihood == "gaussian":
        assert_array_equal(model.inverse_transform(model.transform(X))[:, AT], 0.0)


@pytest.mark.slow
def test_not_even_of_noise(quick):
    """What is added to the encoder's input stays away from it, too."""
    X = table()[:100]
    X[:, AT + 1] = 2.0
    quick = {**quick, "linear_path": False}  # whose perceptrons do not decay
    model = HEBAETransformer(**quick, input_noise=0.5).fit(X)
    weights = model.fitted_.model.encoder.layers[0].weight.detach()
    start = HEBAETransformer(**quick, learning_rate_init=1e-30, max_iter="auto").fit(X)
    at_first = start.fitted_.model.encoder.layers[0].weight.detach()
    assert_array_equal(weights[:, [AT, AT + 1]], at_first[:, [AT, AT + 1]])
    assert (weights[:, 0] != at_first[:, 0]).any()


@pytest.mark.slow
def test_counts_of_a_gene_that_comes_later(cls, quick):
    X = counts()
    model = cls(**quick, likelihood="negative_binomial")
    for _ in range(15):
        model.partial_fit(iter(quarters(X)))
    scaling = model.fitted_.scaling
    assert scaling.constant.size == 0
    expected = CountScaling.measure(Table(X))
    assert_allclose(scaling.proportions.sum(), 1.0)
    assert_allclose(scaling.proportions[AT], expected.proportions[AT], rtol=0.7)
    assert 0.3 < scaling.scale[AT] / expected.scale[AT] < 3.0
    codes, totals = model.transform(X), X.sum(axis=1)
    decoded = model.inverse_transform(codes, size_factor=totals)
    error = ((decoded - X) ** 2).mean(axis=0) / X.var(axis=0)
    assert error.mean() < 1.1
    mean = decoded[100:].mean(axis=0)
    assert_allclose(mean, X[100:].mean(axis=0), rtol=0.5)
    assert np.isfinite(model.theta_).all()


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, StoredTable])
@pytest.mark.parametrize("sized", [False, True])
def test_such_a_gene_is_measured_over_all_rows_so_far(quick, form, sized):
    X = counts()
    factors = {"size_factor": X.sum(axis=1) / 10} if sized else {}
    first, second = (
        {k: v[rows] for k, v in factors.items()} for rows in (slice(100), slice(100, 200))
    )
    model = HEBAETransformer(**quick, likelihood="zero_inflated_negative_binomial")
    model.partial_fit(form(X[:100]), **first)
    before = model.fitted_.scaling
    assert_array_equal(before.constant, [AT])
    model.partial_fit(form(X[100:200]), **second)
    scaling, expected = model.fitted_.scaling, CountScaling.measure(Table(X[:200]))
    assert scaling.constant.size == 0
    for name, tolerance in (
        ("location", 0.1),
        ("scale", 0.1),
        ("proportions", 0.1),
        ("dispersion", 0.3),
        ("zero_share", 0.02),
    ):
        got, was, wanted = (getattr(of, name) for of in (scaling, before, expected))
        assert_allclose(got[AT], wanted[AT], rtol=tolerance)
        if name != "proportions":  # which add up to 1
            assert_array_equal(np.delete(got, AT), np.delete(was, AT))


@pytest.mark.parametrize("way", ["pickle", "file"])
def test_copies_know(quick, tmp_path, way):
    X = table()
    model = HEBAETransformer(**quick).partial_fit(X[:100])
    if way == "file":
        model.save(tmp_path / "model")
        copy = HEBAETransformer.load(tmp_path / "model")
    else:
        copy = pickle.loads(pickle.dumps(model))
    assert_array_equal(copy.fitted_.scaling.constant, [AT])
    assert_array_equal(copy.transform(X), model.transform(X))
    copy.partial_fit(X[100:200])
    assert copy.fitted_.scaling.constant.size == 0
    assert np.delete(errors(copy, X), AT).max() < 1.2


@pytest.mark.slow
def test_warm_start_takes_it_in(quick):
    X = table()
    model = HEBAETransformer(**quick, warm_start=True).fit(X[:100])
    model.fit(X)
    assert model.fitted_.scaling.constant.size == 0
    assert errors(model, X).max() < 0.7


def test_with_modules_of_the_users_own(quick):
    X = table()
    X[:, AT] *= 1e4
    model = HEBAETransformer(**quick, encoder=make_encoder, decoder=make_decoder)
    model.partial_fit(X[:100])
    with pytest.warns(OutOfRangeWarning, match="column 3"):
        far = model.transform(X)
    near = X.copy()
    near[:, AT] = 0.0
    assert_array_equal(far, model.transform(near))
    for _ in range(10):
        model.partial_fit(iter(quarters(X)))
    assert np.delete(errors(model, X), AT).max() < 0.6


def make_encoder(shape, n_outputs):
    return nn.Sequential(nn.Linear(*shape, 16), nn.Tanh(), nn.Linear(16, n_outputs))


def make_decoder(n_components, shape):
    return nn.Sequential(nn.Linear(n_components, 16), nn.Tanh(), nn.Linear(16, *shape))


def test_all_may_be_constant(quick):
    X = np.full((50, 4), 7.0)
    model = HEBAETransformer(**quick).partial_fit(X)
    assert_array_equal(model.inverse_transform(model.transform(X)), X)
    rng = np.random.default_rng(0)
    for _ in range(20):
        model.partial_fit(7.0 + rng.normal(size=(50, 1)) @ [[1.0, 2.0, -1.0, 0.5]])
    X = 7.0 + rng.normal(size=(50, 1)) @ [[1.0, 2.0, -1.0, 0.5]]
    assert errors(model, X).max() < 0.7


@pytest.mark.parametrize("bad", [[8], [-1], [0.5], [[0]], [True]])
def test_files_that_name_no_features_are_refused(quick, bad):
    scaling = HEBAETransformer(**quick).partial_fit(table()[:100]).fitted_.scaling
    scaling.check(8)
    with pytest.raises(ValueError, match=r"constant (has dtype|names features)"):
        replace(scaling, constant=np.array(bad)).check(8)


def test_files_of_before_have_no_constant_features(quick):
    scaling = FeatureScaling(np.zeros(2), np.ones(2), np.ones(2))
    assert scaling.constant.size == 0
    assert torch.is_tensor(HEBAETransformer(**quick).fit(table()[:100]).fitted_.model.varies)
