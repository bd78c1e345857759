from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.decomposition import PCA

from skhebae.code_map import CodeNoise
from skhebae.fitted import codes as module
from skhebae.fitted.codes import CodeMixture, CodeMoments, draw_codes
from skhebae.prior import StandardNormalPrior

CENTRES = np.array([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
COUNTS = (500, 300, 200)


def random_codes(n_rows, d, seed=0):
    """Codes and posterior standard deviations, float32."""
    rng = np.random.default_rng(seed)
    codes = rng.normal(rng.normal(0.0, 5.0, d), rng.uniform(0.1, 3.0, d), (n_rows, d))
    return codes.astype(np.float32), rng.uniform(0.01, 1.0, (n_rows, d)).astype(np.float32)


def clusters(seed=0):
    """Codes around `CENTRES`, with covariances of their own."""
    rng = np.random.default_rng(seed)
    parts = [
        rng.multivariate_normal(centre, covariance, size=count)
        for centre, covariance, count in zip(CENTRES, cluster_covariances(), COUNTS, strict=True)
    ]
    return np.concatenate(parts).astype(np.float32)


def cluster_covariances():
    return np.array(
        [[[1.0, 0.8], [0.8, 1.0]], [[0.1, 0.0], [0.0, 0.5]], [[0.3, -0.1], [-0.1, 0.2]]]
    )


def three_clusters():
    return CodeMixture(np.array(COUNTS) / 1000.0, CENTRES, cluster_covariances())


def mixture_moments(mixture):
    mean = mixture.weights @ mixture.means
    second = mixture.covariances + mixture.means[:, :, None] * mixture.means[:, None, :]
    return mean, np.einsum("k,kij->ij", mixture.weights, second) - np.outer(mean, mean)


def assert_moments(draws, mean, covariance, n_errors=5.0):
    """Sample mean and covariance within standard errors, the latter from the draws."""
    n_draws = len(draws)
    error = np.sqrt(np.diag(covariance) / n_draws)
    assert (np.abs(draws.mean(axis=0) - mean) <= n_errors * error).all()
    products = (draws - mean)[:, :, None] * (draws - mean)[:, None, :]
    error = products.std(axis=0) / n_draws**0.5
    assert (np.abs(products.mean(axis=0) - covariance) <= n_errors * error).all()


def test_measured_moments_are_numpys():
    codes, sigma = random_codes(40, 3)
    moments = CodeMoments.measure(codes, sigma)
    wide = codes.astype(np.float64)
    assert moments.n_rows == 40
    assert_allclose(moments.mean, wide.mean(axis=0), rtol=1e-12)
    assert_allclose(moments.covariance, np.cov(wide, rowvar=False), rtol=1e-10)
    expected = np.mean([np.outer(row, row) for row in sigma.astype(np.float64)], axis=0)
    assert_allclose(moments.spread, expected, rtol=1e-10)


@pytest.mark.slow
@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 60), min_size=2, max_size=5),
    d=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
)
def test_merged_moments_are_those_of_all_rows(sizes, d, seed):
    codes, sigma = random_codes(sum(sizes), d, seed)
    ends = np.cumsum(sizes)[:-1]
    parts = zip(np.split(codes, ends), np.split(sigma, ends), strict=True)
    first, *others = (CodeMoments.measure(*part) for part in parts)
    merged = first
    for other in others:
        merged = merged.merge(other)
    whole = CodeMoments.measure(codes, sigma)
    assert merged.n_rows == whole.n_rows
    assert_allclose(merged.mean, whole.mean, rtol=1e-10, atol=1e-12)
    assert_allclose(merged.covariance, whole.covariance, rtol=1e-8, atol=1e-10)
    assert_allclose(merged.spread, whole.spread, rtol=1e-10)


def test_aggregated_covariance_is_the_average_over_rows():
    codes, sigma = random_codes(30, 3)
    root = np.random.default_rng(1).standard_normal((3, 3))
    noise_covariance = root @ root.T
    own = CodeNoise.of(torch.from_numpy(noise_covariance), None)
    actual = CodeMoments.measure(codes, sigma).aggregated_covariance(own)
    noise = np.mean([np.diag(s) @ noise_covariance @ np.diag(s) for s in sigma], axis=0)
    assert_allclose(actual, np.cov(codes.astype(np.float64), rowvar=False) + noise, rtol=1e-6)


def test_aggregated_covariance_of_one_sigma_per_row():
    # Equation 9: (1 + mean sigma^2) Sigma
    codes, _ = random_codes(30, 3)
    sigma = np.repeat(np.linspace(0.1, 1.0, 30, dtype=np.float32)[:, None], 3, axis=1)
    moments = CodeMoments.measure(codes, sigma)
    actual = moments.aggregated_covariance(CodeNoise.of(torch.from_numpy(moments.covariance), None))
    expected = (1.0 + np.mean(sigma[:, 0].astype(np.float64) ** 2)) * moments.covariance
    assert_allclose(actual, expected, rtol=1e-10)


def test_mixture_recovers_separated_clusters(monkeypatch):
    monkeypatch.setattr(module, "MIXTURE_COMPONENTS", 3)
    mixture = CodeMixture.fit(clusters(), seed=0)
    nearest = ((mixture.means[:, None] - CENTRES) ** 2).sum(axis=2).argmin(axis=0)
    assert sorted(nearest) == [0, 1, 2]
    assert_allclose(mixture.weights[nearest], np.array(COUNTS) / 1000.0, atol=1e-3)
    ends = np.cumsum(COUNTS)[:-1]
    for k, members in zip(nearest, np.split(clusters().astype(np.float64), ends), strict=True):
        assert_allclose(mixture.means[k], members.mean(axis=0), atol=0.02)
        expected = np.cov(members, rowvar=False, ddof=0)
        assert_allclose(mixture.covariances[k], expected, atol=0.02)


def test_mixture_keeps_the_moments_of_the_codes():
    codes = clusters()
    mixture = CodeMixture.fit(codes, seed=0)
    assert len(mixture.weights) in (len(codes) // module.component_rows(2), 8)
    mean, covariance = mixture_moments(mixture)
    assert_allclose(mixture.weights.sum(), 1.0)
    # EM keeps both at every step, and the shrinkage the variances; what is between
    # components keeps most of the covariance, too.
    assert_allclose(mean, codes.mean(axis=0, dtype=np.float64), atol=1e-6)
    expected = np.cov(codes.astype(np.float64), rowvar=False, ddof=0)
    assert_allclose(np.diag(covariance), np.diag(expected), rtol=1e-4)
    assert_allclose(covariance, expected, rtol=0.02, atol=0.02)


def test_shrinkage_is_that_of_rows_without_correlation():
    rng = np.random.default_rng(0)
    counts, d = np.array([3, 20, 77]), 4
    parts = [rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) for n in counts]
    covariances = np.stack([np.cov(part.T, ddof=0) for part in parts])
    actual = module.shrunk_covariances(covariances, counts / 100, 100, 5.0)
    for before, after, n in zip(covariances, actual, counts, strict=True):
        expected = (n * before + 5.0 * np.diag(np.diag(before))) / (n + 5.0)
        assert_allclose(after, expected, rtol=1e-12)
        assert_allclose(np.diag(after), np.diag(before), rtol=1e-12)
    # Of three rows in four dimensions, the covariance was singular.
    assert np.linalg.eigvalsh(covariances[0])[0] < 1e-12
    assert np.linalg.eigvalsh(actual[0])[0] > 1e-3
    untouched = module.shrunk_covariances(covariances, counts / 100, 100, 0.0)
    assert np.array_equal(untouched, covariances)


def log_density(mixture, codes):
    parts = zip(mixture.weights, mixture.means, mixture.covariances, strict=True)
    logs = [np.log(w) + stats.multivariate_normal(m, s).logpdf(codes) for w, m, s in parts]
    return np.logaddexp.reduce(logs).mean()


def test_shrinkage_improves_the_density_of_new_codes(digits, monkeypatch):
    """And so do many components against the few of a stream."""
    train, test, _, _ = digits
    pca = PCA(10).fit(train)
    codes, new = (pca.transform(part).astype(np.float32) for part in (train, test))
    shrunk = CodeMixture.fit(codes, seed=0)
    assert len(shrunk.weights) == len(codes) // module.component_rows(10)
    few = CodeMixture.fit(codes, seed=0, brief=True)
    assert log_density(shrunk, new) > log_density(few, new) + 0.2
    monkeypatch.setattr(module, "SHRUNK_ROWS", 0.0)
    plain = CodeMixture.fit(codes, seed=0)
    assert log_density(shrunk, new) > log_density(plain, new) + 1.0


def test_a_mixture_of_fewer_rows_than_dimensions_is_a_density():
    codes = np.random.default_rng(0).standard_normal((40, 50)).astype(np.float32)
    mixture = CodeMixture.fit(codes[:30], seed=0)
    # The normal distribution they came from has -70.9 nats on average.
    assert log_density(mixture, codes[30:]) > -120.0


@pytest.mark.parametrize(("d", "most"), [(2, 50), (40, 50), (64, 31)])
@pytest.mark.slow
def test_components_have_room(d, most):
    codes, _ = random_codes(50 * module.component_rows(d), d)
    assert len(CodeMixture.fit(codes, seed=0).weights) == 1  # they are Gaussian
    mixture = CodeMixture.fit(clustered(codes), seed=0)
    assert len(mixture.weights) == most


def clustered(codes):
    """The same codes around sixty centres far apart."""
    centres = 100.0 * np.random.default_rng(1).standard_normal((60, codes.shape[1]))
    return (codes + centres[np.arange(len(codes)) % 60]).astype(np.float32)


def test_mixture_is_reproducible():
    first, again = (CodeMixture.fit(clusters(), seed=0) for _ in range(2))
    for name in ("weights", "means", "covariances"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    draws = [first.sample(20, np.random.RandomState(seed)) for seed in (0, 0, 1)]
    assert np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[0], draws[2])


def test_mixture_is_fitted_and_sampled_without_the_global_state():
    state = np.random.get_state()[1].copy()
    CodeMixture.fit(clusters(), seed=0).sample(5, np.random.RandomState(0))
    assert np.array_equal(np.random.get_state()[1], state)


def test_mixture_draws_have_its_moments_in_random_order():
    mixture, n_draws = three_clusters(), 20_000
    draws = mixture.sample(n_draws, np.random.RandomState(0))
    assert_moments(draws, *mixture_moments(mixture))
    labels = ((draws[:, None] - CENTRES) ** 2).sum(axis=2).argmin(axis=1)
    shares = np.bincount(labels) / n_draws
    error = np.sqrt(mixture.weights * (1.0 - mixture.weights) / n_draws)
    assert (np.abs(shares - mixture.weights) < 5.0 * error).all()
    # Neighbours share a component as often as by chance, not almost always.
    together = np.mean(labels[1:] == labels[:-1])
    assert abs(together - np.sum(mixture.weights**2)) < 5.0 * 0.5 / n_draws**0.5


@pytest.mark.parametrize("n_samples", [1, 2, 7])
def test_mixture_draws_few_codes(n_samples):
    draws = three_clusters().sample(n_samples, np.random.RandomState(0))
    assert draws.shape == (n_samples, 2)
    assert np.isfinite(draws).all()


@pytest.mark.parametrize("n_rows", [2, 3, 59, 61, 130])
def test_mixture_of_few_rows_has_few_components(n_rows):
    codes, _ = random_codes(n_rows, 2)
    codes[: n_rows // 2] += 100.0
    mixture = CodeMixture.fit(codes, seed=0)
    assert len(mixture.weights) == max(1, n_rows // 30)
    assert np.isfinite(mixture.sample(10, np.random.RandomState(0))).all()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_mixture_of_identical_codes_draws_them(value):
    codes = np.full((300, 3), value, dtype=np.float32)
    mixture = CodeMixture.fit(codes, seed=0)
    draws = mixture.sample(50, np.random.RandomState(0))
    # reg_covar gives every direction a standard deviation of 1e-3.
    assert_allclose(draws, np.float32(value), atol=0.01)


@pytest.mark.parametrize("size", [1e-6, 1.0, 1e3, 1e6])
def test_mixture_of_collinear_codes_has_their_size(size):
    line = np.random.default_rng(0).standard_normal(400).astype(np.float32) * np.float32(size)
    codes = np.stack([line, line, np.zeros_like(line)], axis=1)
    mixture = CodeMixture.fit(codes, seed=0)
    draws = mixture.sample(5000, np.random.RandomState(0))
    assert_allclose(draws[:, 0].std(), line.std(), rtol=0.1)
    # Correlations within components are shrunk, by a tenth at most.
    assert np.corrcoef(draws[:, 0], draws[:, 1])[0, 1] > 0.99
    assert_allclose(draws[:, 2], 0.0, atol=0.01)


def test_mixture_of_a_few_distinct_codes():
    codes = np.repeat(CENTRES.astype(np.float32), 40, axis=0)
    mixture = CodeMixture.fit(codes, seed=0)
    assert len(mixture.weights) == 3
    draws = mixture.sample(100, np.random.RandomState(0))
    distance = np.sqrt(((draws[:, None] - CENTRES) ** 2).sum(axis=2)).min(axis=1)
    # The mixture's own regularisation is a thousandth of the codes' deviation.
    assert distance.max() < 5e-3 * codes.std(axis=0).max()


@pytest.mark.parametrize("kind", ["mixture", "gaussian", "prior"])
def test_drawn_codes_have_the_moments_of_their_density(kind):
    mean, covariance = np.array([3.0, -1.0]), np.array([[2.0, -0.5], [-0.5, 0.3]])
    mixture = three_clusters()
    draws = draw_codes(
        kind,
        20_000,
        np.random.RandomState(0),
        mean=mean,
        covariance=covariance,
        mixture=mixture,
        prior=StandardNormalPrior(2),
    )
    expected = {
        "mixture": mixture_moments(mixture),
        "gaussian": (mean, covariance),
        "prior": (np.zeros(2), np.eye(2)),
    }[kind]
    assert draws.shape == (20_000, 2)
    assert_moments(draws, *expected)


def test_gaussian_draws_of_a_singular_covariance():
    covariance = np.ones((2, 2))
    draws = draw_codes(
        "gaussian",
        1000,
        np.random.RandomState(0),
        mean=np.zeros(2),
        covariance=covariance,
        mixture=three_clusters(),
        prior=StandardNormalPrior(2),
    )
    assert_allclose(draws[:, 0], draws[:, 1], atol=1e-6)
    assert_allclose(draws[:, 0].std(), 1.0, rtol=0.1)
