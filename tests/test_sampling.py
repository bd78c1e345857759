"""Rows that a fitted model draws, and the units that it returns rows in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special
from scipy.spatial.distance import cdist

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.likelihoods import BernoulliLikelihood, GaussianLikelihood, PoissonLikelihood

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def rows(n=400, p=8, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(9).normal(size=(2, p))
    return rng.normal(size=(n, 2)) @ loadings + noise * rng.normal(size=(n, p))


def energy_distance(a, b):
    return 2.0 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()


# The mixture


@pytest.mark.slow
@pytest.mark.parametrize("noise", [3.0, 0.2], ids=["low signal", "high signal"])
def test_mixture_is_as_faithful_as_any(noise):
    """Before, that of a noisy VAE covered codes without their noise."""
    X, new = rows(1000, noise=noise), rows(4000, noise=noise, seed=1)
    unit = X.std(axis=0)
    model = VAETransformer(4, random_state=0).fit(X)

    def distance(latent):
        draws = [model.sample(2000, latent, seed, noise=True) for seed in range(3)]
        return np.mean([energy_distance(drawn / unit, new / unit) for drawn in draws])

    others = min(distance("gaussian"), distance("prior"))
    assert distance("mixture") < others + 0.004  # the chance of 4,000 rows
    drawn = model.sample(20_000, "mixture", 0, noise=True)
    assert_allclose((drawn.var(axis=0) / X.var(axis=0)).mean(), 1.0, atol=0.12)


@pytest.mark.slow
def test_mixture_is_better_where_codes_are_clustered():
    rng = np.random.default_rng(0)
    centres = 3.0 * rng.normal(size=(5, 8))

    def draw(n):
        return centres[rng.integers(5, size=n)] + rng.normal(size=(n, 8))

    X, new = draw(1000), draw(4000)
    model = HEBAETransformer(4, random_state=0).fit(X)
    distances = {
        latent: energy_distance(model.sample(2000, latent, 0, noise=True), new)
        for latent in ("mixture", "gaussian")
    }
    assert distances["mixture"] < 0.5 * distances["gaussian"]


def test_mixture_has_the_covariance_of_the_aggregated_posterior():
    model = VAETransformer(3, random_state=0).fit(rows(noise=2.0))
    mixture = model.fitted_.mixture.now()
    mean = mixture.weights @ mixture.means
    centred = mixture.means - mean
    covariance = np.einsum("k,kij->ij", mixture.weights, mixture.covariances)
    covariance += (mixture.weights * centred.T) @ centred
    turn = model.fitted_.axes.outward
    covariance = turn.T @ covariance @ turn
    assert_allclose(np.diag(covariance), np.diag(model.latent_covariance_), rtol=0.02)
    codes = np.cov(model.transform(rows(noise=2.0)), rowvar=False)
    assert np.trace(model.latent_covariance_) > 1.2 * np.trace(codes)  # there is noise


# The average of batches


def shifted(n=400):
    """Rows whose four batches differ by a shift of one feature."""
    batch = np.arange(n) % 4
    X = rows(n)
    X[:, 0] += 3.0 * batch
    return X, batch


@pytest.mark.slow
def test_noise_around_the_average_batch_is_that_of_one_row():
    X, batch = shifted()
    model = HEBAETransformer(2, random_state=0, max_iter=40).fit(X, batch=batch)
    how = {"random_state": 0, "batch": "average"}
    mean, drawn = (model.sample(20_000, noise=noise, **how) for noise in (False, True))
    assert_allclose((drawn - mean).var(axis=0), model.noise_variance_, rtol=0.05)
    each = [model.sample(20_000, random_state=0, batch=b) for b in range(4)]
    assert_allclose(mean, np.mean(each, axis=0), atol=1e-4)


@pytest.mark.slow
def test_average_counts_are_counts_and_average_bits_are_bits():
    rng = np.random.default_rng(0)
    batch = np.arange(400) % 4
    counts = rng.poisson(5.0 + 10.0 * batch[:, None] * np.ones((1, 6)))
    model = HEBAETransformer(2, likelihood="poisson", random_state=0).fit(counts, batch=batch)
    drawn = model.sample(4000, random_state=0, noise=True, batch="average", size_factor=120.0)
    assert_array_equal(drawn, np.rint(drawn))
    assert_allclose(drawn.var(axis=0) / drawn.mean(axis=0), 1.0, rtol=0.15)
    share = 0.1 + 0.2 * batch[:, None]
    bits = (rng.random((400, 6)) < share).astype(float)
    model = HEBAETransformer(2, likelihood="bernoulli", random_state=0).fit(bits, batch=batch)
    drawn = model.sample(8000, random_state=0, noise=True, batch="average")
    assert set(np.unique(drawn)) == {0.0, 1.0}
    mean = model.sample(8000, random_state=0, batch="average")
    assert_allclose(drawn.mean(axis=0), mean.mean(axis=0), atol=0.03)  # by majority it was 0
    assert_allclose(mean.mean(axis=0), bits.mean(axis=0), atol=0.08)


@pytest.mark.parametrize("cls", [GaussianLikelihood, BernoulliLikelihood, PoissonLikelihood])
def test_mean_of_the_average_parameter_is_the_average_mean(cls):
    parts = {
        GaussianLikelihood: (torch.zeros(3), torch.ones(3), torch.ones(3)),
        BernoulliLikelihood: (torch.zeros(3), torch.ones(3)),
        PoissonLikelihood: (torch.zeros(3), torch.ones(3), torch.ones(3) / 3, torch.tensor(9.0)),
    }
    likelihood = cls(*parts[cls])
    parameters = 3.0 * torch.randn(4, 50, 3, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([likelihood.mean(parameter) for parameter in parameters]).mean(dim=0)
    assert_allclose(likelihood.mean(likelihood.average(parameters)), expected, rtol=1e-5, atol=1e-6)


# Totals


@pytest.mark.parametrize("given", [False, True], ids=["totals", "size factors"])
def test_totals_of_sampled_counts_are_those_of_their_batch(given):
    """Before, a batch with totals of 39 to 61 got 112 to 9,212."""
    rng = np.random.default_rng(0)
    batch = np.repeat(["a", "b"], [200, 600])
    size = np.where(batch == "a", rng.uniform(39.0, 61.0, 800), rng.uniform(800.0, 1200.0, 800))
    X = rng.poisson(size[:, None] / 20.0 * np.ones((1, 20)))
    how = {"size_factor": size / 7.0} if given else {}
    model = HEBAETransformer(2, likelihood="poisson", random_state=0, max_iter=20)
    model.fit(X, batch=batch, **how)
    for name, own in (("a", X[batch == "a"]), ("b", X[batch == "b"]), ("average", X)):
        drawn = model.sample(4000, random_state=0, noise=True, batch=name).sum(axis=1)
        levels = [5, 15, 50, 75, 95]  # a quarter of all rows is in the first batch
        assert_allclose(
            np.percentile(drawn, levels), np.percentile(own.sum(axis=1), levels), rtol=0.15
        )
    each = np.array(["a", "b"] * 500)
    drawn = model.sample(1000, random_state=0, noise=True, batch=each).sum(axis=1)
    assert drawn[each == "a"].max() < 150.0 < 500.0 < drawn[each == "b"].min()


def test_totals_of_two_kinds_are_drawn_of_two_kinds():
    """A log-normal distribution of the same spread would lie in between."""
    rng = np.random.default_rng(0)
    size = np.where(np.arange(600) % 2, 100.0, 10_000.0)
    X = rng.poisson(size[:, None] / 10.0 * np.ones((1, 10)))
    model = HEBAETransformer(2, likelihood="poisson", random_state=0, max_iter=10).fit(X)
    drawn = model.sample(4000, random_state=0, noise=True).sum(axis=1)
    assert np.mean((drawn > 200.0) & (drawn < 5000.0)) < 0.05


# Units


@pytest.mark.slow
@pytest.mark.parametrize(
    ("offset", "unit", "dtype"),
    [
        (0.0, 1.0, np.float32),
        (1e3, 1.0, np.float32),
        (1e8, 1.0, np.float64),
        (-1e8, 1.0, np.float64),
        (1.7e9, 60.0, np.float64),  # a time stamp
        (1e15, 100.0, np.float64),
        (0.0, 1e-42, np.float64),
        (0.0, 1e38, np.float64),
        (1e-30, 1e-30, np.float32),
    ],
)
@pytest.mark.parametrize("cls", [HEBAETransformer, WAETransformer])
def test_rows_come_back_in_a_dtype_that_holds_their_spread(cls, offset, unit, dtype):
    X = offset + unit * rows(200)
    model = cls(2, random_state=0).fit(X)
    decoded = model.inverse_transform(model.transform(X))
    assert decoded.dtype == dtype
    error = np.sqrt(np.mean(((decoded - X) / unit) ** 2, axis=0)) / X.std(axis=0) * unit
    assert error.max() < 0.5
    drawn = model.sample(500, random_state=0, noise=True)
    assert drawn.dtype == dtype
    # In double: the squares of single precision may underflow.
    assert_allclose(drawn.astype(float).std(axis=0) / X.std(axis=0), 1.0, atol=0.35)


@pytest.mark.slow
def test_one_feature_with_an_offset_and_a_constant():
    X = np.concatenate([rows(200), np.full((200, 1), 1e8)], axis=1)
    model = HEBAETransformer(2, random_state=0).fit(X)
    decoded = model.inverse_transform(model.transform(X))
    assert decoded.dtype == np.float32  # a constant has no spread to lose
    X[:, 0] += 1e9
    decoded = HEBAETransformer(2, random_state=0).fit(X)
    decoded = decoded.inverse_transform(decoded.transform(X))
    assert decoded.dtype == np.float64
    assert_allclose(decoded[:, 8], 1e8)
    assert np.abs(decoded[:, 0] - X[:, 0]).max() < 2.0


# What the scores of counts are


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["poisson", "negative_binomial"])
def test_likelihood_at_a_size_factor_sums_to_one(likelihood):
    rng = np.random.default_rng(0)
    X = rng.poisson(np.exp(0.5 + 0.5 * rng.normal(size=(300, 2))))
    model = HEBAETransformer(1, likelihood=likelihood, random_state=0, max_iter=30).fit(X)
    grid = np.stack(np.meshgrid(np.arange(26), np.arange(26)), axis=-1).reshape(-1, 2)
    size = np.full(len(grid), 4.0)
    log_prob = model.log_likelihood(grid, n_draws=300, size_factor=size)
    assert_allclose(special.logsumexp(log_prob), 0.0, atol=0.05)
    # At the row's own total it is the density given the total, which does not.
    assert special.logsumexp(model.log_likelihood(grid, n_draws=100)) > 1.0
