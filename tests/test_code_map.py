"""The map behind the encoder's codes, and the noise of both."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.code_map import CodeMap, CodeNoise
from skhebae.prior import StandardNormalPrior

D = 3


def moments(seed, n_rows=50, rank=D):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, rank)) @ rng.normal(size=(rank, D)) + rng.normal(size=D)
    return rows, torch.from_numpy(rows.mean(axis=0)), torch.from_numpy(np.cov(rows, rowvar=False))


def noise_of(seed, with_map=True):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(D, D))
    _, mean, covariance = moments(seed)
    code_map = CodeMap.standardising(mean, covariance, 50) if with_map else None
    noise = CodeNoise.of(torch.from_numpy(root @ root.T + 0.1 * np.eye(D)), code_map)
    return noise, torch.from_numpy(rng.uniform(0.1, 2.0, (7, D)))


def covariances(noise, spread):
    """``A D_i C D_i A^T`` written out."""
    matrix = np.eye(D) if noise.matrix is None else noise.matrix.numpy()
    common = (noise.factor @ noise.factor.T).numpy()
    return np.stack([matrix @ np.diag(s) @ common @ np.diag(s) @ matrix.T for s in spread.numpy()])


@given(st.integers(0, 2**32 - 1), st.integers(1, D))
def test_standardised_codes_have_mean_0_and_covariance_i_the_pseudo_row_aside(seed, rank):
    rows, mean, covariance = moments(seed, rank=rank)
    code_map = CodeMap.standardising(mean, covariance, len(rows)).double()
    codes = code_map(torch.from_numpy(rows)).numpy()
    assert np.isfinite(codes).all()
    assert_allclose(codes.mean(axis=0), 0.0, atol=1e-4)
    values = np.linalg.eigvalsh(np.cov(codes, rowvar=False))
    raw = np.linalg.eigvalsh(covariance.numpy())
    # (n - 1) v / (1 + (n - 1) v) of n / (n - 1) ...: a pseudo-row of variance 1 among n.
    expected = np.sort(raw / ((1.0 + (len(rows) - 1) * raw) / len(rows)))
    assert_allclose(values, expected, rtol=1e-3, atol=1e-4)
    assert_allclose(code_map.undo(code_map(torch.from_numpy(rows))), rows, atol=1e-3)


def test_the_map_that_moves_codes_least_is_symmetric():
    _, mean, covariance = moments(0)
    matrix = CodeMap.standardising(mean, covariance, 50).matrix
    assert torch.equal(matrix, matrix.T) or torch.allclose(matrix, matrix.T, atol=1e-7)
    assert (torch.linalg.eigvalsh(matrix) > 0).all()


@pytest.mark.parametrize("with_map", [True, False])
def test_noise_is_that_of_the_written_out_covariances(with_map):
    noise, spread = noise_of(1, with_map)
    expected = covariances(noise, spread)
    factors = noise.factors(spread)
    assert_allclose(factors @ factors.mT, expected, rtol=1e-9)
    assert (torch.triu(factors, 1) == 0.0).all()
    assert (factors.diagonal(dim1=1, dim2=2) > 0.0).all()
    assert_allclose(noise.variance(spread), np.diagonal(expected, axis1=1, axis2=2), rtol=1e-9)
    assert_allclose(noise.log_det(spread), np.linalg.slogdet(expected)[1], rtol=1e-9)
    products = spread.T @ spread / len(spread)
    assert_allclose(noise.covariance(products), expected.mean(axis=0), rtol=1e-9)
    normal = torch.randn(200_000, D, generator=torch.Generator().manual_seed(0)).double()
    drawn = noise.draw(spread[:1], normal).numpy()
    assert_allclose(np.cov(drawn, rowvar=False), expected[0], rtol=0.05, atol=0.02)
    mu = torch.from_numpy(np.random.default_rng(0).normal(size=(7, D)))
    trace = np.trace(expected, axis1=1, axis2=2)
    square = mu.square().sum(dim=1).numpy()
    divergence = 0.5 * (trace + square - D - np.linalg.slogdet(expected)[1])
    assert_allclose(noise.row_kl(StandardNormalPrior(D), mu, spread), divergence, rtol=1e-9)


def test_points_stay_points():
    noise, spread = noise_of(2)
    assert torch.equal(noise.factors(0.0 * spread), torch.zeros(7, D, D, dtype=torch.float64))
    assert torch.equal(noise.variance(0.0 * spread), 0.0 * spread)


def rows(n=500, p=4, seed=0):
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n, 2)) @ rng.normal(size=(2, p))
    return (signal + 0.1 * rng.normal(size=(n, p))).astype(np.float32)


def standardised(codes, tolerance):
    covariance = np.atleast_2d(np.cov(codes, rowvar=False))
    return np.abs(codes.mean(axis=0)).max() < tolerance and (
        np.abs(covariance - np.eye(len(covariance))).max() < tolerance
    )


@pytest.mark.slow
@pytest.mark.parametrize("cls", [HEBAETransformer, WAETransformer])
@pytest.mark.parametrize("form", ["dense", "early_stopping", "batch"])
def test_codes_of_the_training_rows_are_standard(cls, form):
    X = rows()
    how = {"batch": np.arange(len(X)) % 3} if form == "batch" else {}
    # The encoder's own codes are standard already where its path is that of principal components.
    stops = form == "early_stopping"
    model = cls(2, random_state=0, early_stopping=stops, linear_path=False, whiten=True)
    codes = model.fit_transform(X, **how)
    assert_array_equal(codes, model.transform(X))
    assert standardised(codes, 5e-3)  # one pseudo-row among 500
    assert_allclose(model.latent_mean_, 0.0, atol=1e-5)
    added = model.latent_covariance_ - np.cov(codes, rowvar=False)
    assert np.linalg.eigvalsh(added)[0] > -1e-5  # posterior noise
    # The model is the same: what the encoder's own codes decode to.
    own = model.fitted_.with_encoder_codes()
    batch = how.get("batch")
    assert not standardised(own.encode(X), 0.05)
    assert_allclose(
        own.decode(own.encode(X), batch), model.inverse_transform(codes, batch=batch), atol=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("own", [{"cls": VAETransformer}, {"reg_weight": 0.0}, {"row_share": 0.5}])
def test_codes_whose_objective_promises_no_such_moments_stay(own):
    model = own.pop("cls", HEBAETransformer)(2, random_state=0, max_iter="auto", **own)
    assert model.fit(rows(200)).fitted_.model.code_map is None


@pytest.mark.parametrize(
    "X",
    [rows(60)[:, :1] @ np.ones((1, 4), dtype=np.float32), rows(5), np.ones((30, 4))],
    ids=["rank 1", "fewer rows than codes", "constant"],
)
def test_codes_without_full_rank_stay_finite(X):
    model = HEBAETransformer(6, random_state=0, whiten=True).fit(X)
    codes = model.transform(X)
    assert np.isfinite(codes).all()
    assert np.linalg.eigvalsh(np.cov(codes, rowvar=False))[-1] < 1.3
    assert np.isfinite(model.inverse_transform(codes)).all()
    assert np.isfinite(model.score_samples(X)).all()
    assert np.isfinite(model.sample(20, random_state=0)).all()


@pytest.mark.slow
def test_bounds_are_those_of_the_mapped_code():
    """The score is that of a model whose codes are standard: it depends on the map and not on A."""
    model = HEBAETransformer(2, hidden_layer_sizes=(), random_state=0, whiten=True).fit(rows())
    X, fitted = rows(seed=1)[:50], model.fitted_
    code_map = fitted.model.code_map
    # A linear decoder is a Gaussian model: x = B z + b + noise, z ~ N(0, I), exactly.
    zero, *units = fitted.decode(np.vstack([np.zeros(2), np.eye(2)]).astype(np.float32))
    loadings = np.stack([unit - zero for unit in units], axis=1).astype(np.float64)
    covariance = loadings @ loadings.T + np.diag(model.noise_variance_)
    centred = X - zero.astype(np.float64)
    expected = -0.5 * (
        np.einsum("ni,ij,nj->n", centred, np.linalg.inv(covariance), centred)
        + np.linalg.slogdet(2.0 * np.pi * covariance)[1]
    )
    assert_allclose(model.log_likelihood(X, n_draws=400), expected, atol=0.02)
    assert (model.score_samples(X) <= expected + 1e-3).all()
    assert code_map is not None


@pytest.mark.slow
def test_samples_from_the_prior_have_the_moments_of_the_rows():
    """Before, 0.81 of the variance."""
    X = rows(2000)
    model = HEBAETransformer(2, random_state=0).fit(X)
    drawn = model.sample(20_000, "prior", 0, noise=True)
    assert_allclose(drawn.var(axis=0) / X.var(axis=0), 1.0, atol=0.06)


def test_the_map_survives_every_copy_and_continued_training(tmp_path):
    X = rows(200)
    model = HEBAETransformer(2, random_state=0, warm_start=True, whiten=True).fit(X)
    codes = model.transform(X)
    model.save(tmp_path / "model")
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        HEBAETransformer.load(tmp_path / "model"),
    ):
        assert_array_equal(other.transform(X), codes)
        assert_array_equal(other.posterior(X)[1], model.posterior(X)[1])
        assert_array_equal(other.sample(5, random_state=0), model.sample(5, random_state=0))
    before = model.fitted_.model.code_map.matrix.clone()
    continued = copy.deepcopy(model).fit(X)
    assert standardised(continued.transform(X), 0.02)
    assert torch.equal(model.fitted_.model.code_map.matrix, before)


@pytest.mark.slow
def test_codes_of_a_stream_are_about_standard():
    X = rows(400)
    model = HEBAETransformer(2, random_state=0, whiten=True)
    for _ in range(20):
        for part in np.array_split(X, 4):
            model.partial_fit(part)
    codes = model.transform(X)
    assert standardised(codes, 0.3)
    own = model.fitted_.with_encoder_codes().encode(X)
    assert np.abs(np.cov(codes.T) - np.eye(2)).max() < np.abs(np.cov(own.T) - np.eye(2)).max()
