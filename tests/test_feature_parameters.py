"""Feature-wise parameters of likelihoods follow from the data, not from the training budget."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import optimize, special, stats

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import Table
from skhebae.likelihoods import (
    CountScaling,
    Decoded,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from skhebae.likelihoods import dispersion as module
from skhebae.likelihoods.calibration import most_likely_gains, regress, shrink_gain
from skhebae.likelihoods.dispersion import (
    LOG_THETA_BOUNDS,
    PRIOR_DEVIATION,
    bounded_log_theta,
    common_log_theta,
    raw_log_theta,
)

CLASSES = [HEBAETransformer, VAETransformer, WAETransformer]
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


class Given:
    """Evidence of rows that are decoded already."""

    def __init__(self, x, parameter, mask=None, lacks_noise=False, variance=0.0):
        self.rows = [Decoded(x, parameter, mask)]
        self.lacks_noise, self.n_rows, self.is_part = lacks_noise, len(x), False
        self._variance = variance

    def decode_some(self, n_numbers):
        return self.rows

    def sum(self, values):
        return values

    def sum_over_rows(self, function):
        return function(self.rows[0]).double()

    def code_variance(self):
        return torch.full((self.rows[0].x.shape[1],), self._variance)


def likelihood_of(cls, X):
    own = cls.from_scaling(CountScaling.measure(Table(X)))
    return own.eval()


def counts_of(rng, mean, theta):
    """Negative binomial counts; Poisson ones for an infinite theta."""
    if np.isinf(theta):
        return rng.poisson(mean)
    return rng.poisson(rng.gamma(theta, mean / theta))


# The parametrisation


@given(st.floats(LOG_THETA_BOUNDS[0] + 0.2, LOG_THETA_BOUNDS[1] - 0.2))
def test_raw_log_theta_inverts_its_bound(value):
    log_theta = torch.tensor([value], dtype=torch.float64)
    assert_allclose(bounded_log_theta(raw_log_theta(log_theta)), log_theta, atol=1e-9)


def test_any_raw_number_is_within_the_bounds():
    raw = torch.tensor([-1e9, -30.0, 0.0, 30.0, 1e9], dtype=torch.float64)
    log_theta = bounded_log_theta(raw)
    assert ((log_theta >= LOG_THETA_BOUNDS[0]) & (log_theta <= LOG_THETA_BOUNDS[1])).all()
    assert (log_theta.diff() >= 0.0).all()


# The start


@pytest.mark.parametrize("mean", [2.0, 50.0, 1e4])
@pytest.mark.parametrize("theta", [0.5, 5.0, np.inf])
def test_training_starts_at_the_second_moment(mean, theta):
    rng = np.random.default_rng(0)
    sizes = rng.uniform(0.5, 2.0, (4000, 1))
    X = counts_of(rng, mean * sizes * np.ones((1, 4)), theta).astype(np.float64)
    scaling = CountScaling.measure(Table(X, size_factor=sizes.ravel()))
    if np.isinf(theta):
        # A dispersion that is nothing next to the Poisson's own variance.
        assert (scaling.dispersion * mean < 0.1).all()
    else:
        assert_allclose(1.0 / scaling.dispersion, theta, rtol=0.25)
    start = NegativeBinomialLikelihood.from_scaling(scaling)
    assert_allclose(start.theta().detach(), 1.0 / scaling.dispersion, rtol=1e-4)


def test_moments_of_sparse_and_dense_rows_are_numpys():
    from scipy import sparse

    rng = np.random.default_rng(1)
    X = rng.poisson(rng.gamma(1.0, 2.0, (300, 5)))
    dense, csr = (CountScaling.measure(Table(of)) for of in (X, sparse.csr_matrix(X)))
    for name in ("dispersion", "zero_share", "log_size_quantiles", "location"):
        assert_allclose(getattr(dense, name), getattr(csr, name), rtol=1e-10)
    assert_allclose(dense.zero_share, (X == 0).mean(axis=0))
    totals = X.sum(axis=1)
    expected = np.quantile(np.log(totals[totals > 0]), np.linspace(0.0, 1.0, 41))
    assert_allclose(dense.log_size_quantiles, expected[None], rtol=1e-12)


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_extra_zeros_start_at_their_moments(share):
    rng = np.random.default_rng(0)
    X = counts_of(rng, np.full((20_000, 5), 20.0), 4.0) * (rng.random((20_000, 5)) > share)
    # Exposures that do not depend on the zeros.
    scaling = CountScaling.measure(Table(X, size_factor=np.ones(len(X))))
    log_theta, logit = scaling.zero_inflated_moments()
    assert_allclose(special.expit(logit), share, atol=0.05)
    assert_allclose(np.exp(log_theta), 4.0, rtol=0.35)


# The end


def test_the_most_likely_theta_is_scipys():
    """The mode of likelihood and prior, feature by feature, by a one-dimensional search."""
    rng = np.random.default_rng(0)
    theta = np.array([0.3, 2.0, 20.0, np.inf])
    mean = rng.gamma(2.0, 3.0, (600, 4))
    X = np.stack([counts_of(rng, m, t) for m, t in zip(mean.T, theta, strict=True)], axis=1)
    likelihood = likelihood_of(NegativeBinomialLikelihood, X)
    evidence = Given(torch.from_numpy(X).float(), torch.from_numpy(np.log(mean)).float())
    centre = common_log_theta(evidence.rows, torch.zeros(4), evidence)
    # Without a gain, which would have its own optimum.
    original = module.most_likely
    rows = evidence.rows
    values = original(
        lambda part, own: likelihood._total_log_prob(part, own[:, 0]),
        torch.zeros(4, 1),
        torch.full((4, 1), centre),
        rows,
        evidence,
        lambda own: None,
    )
    for j in range(4):

        def loss(t, j=j):
            own = np.exp(t)
            fit = stats.nbinom.logpmf(X[:, j], own, own / (own + mean[:, j])).sum()
            return 0.5 * ((t - centre) / PRIOR_DEVIATION) ** 2 - fit

        best = optimize.minimize_scalar(loss, bounds=(-8.0, 15.0), method="bounded").x
        assert_allclose(values[j, 0], best, atol=0.03)


def test_the_common_theta_is_that_of_all_entries():
    rng = np.random.default_rng(0)
    mean = rng.gamma(2.0, 10.0, (2000, 6))
    log_mean = torch.from_numpy(np.log(mean)).float()
    for theta in (0.5, 3.0, 50.0):
        X = torch.from_numpy(counts_of(rng, mean, theta)).float()
        evidence = Given(X, log_mean)
        assert_allclose(
            common_log_theta(evidence.rows, torch.zeros(6), evidence), np.log(theta), atol=0.15
        )
    # Of Poisson counts, the largest that is not ruled out.
    X = torch.from_numpy(rng.poisson(mean)).float()
    assert common_log_theta(Given(X, log_mean).rows, torch.zeros(6), Given(X, log_mean)) > 5.0


@pytest.mark.parametrize(("share", "theta"), [(0.4, 3.0), (0.05, 1.0)])
def test_extra_zeros_are_told_from_dispersion(share, theta):
    rng = np.random.default_rng(0)
    mean = rng.gamma(3.0, 5.0, (4000, 5))
    X = counts_of(rng, mean, theta) * (rng.random(mean.shape) > share)
    likelihood = likelihood_of(ZeroInflatedNegativeBinomialLikelihood, X.astype(float))
    likelihood.finish(Given(torch.from_numpy(X).float(), torch.from_numpy(np.log(mean)).float()))
    assert_allclose(special.expit(likelihood.zi_logits.detach().numpy()), share, atol=0.04)
    assert_allclose(likelihood.theta().detach(), theta, rtol=0.25)


def test_missing_entries_do_not_count():
    rng = np.random.default_rng(0)
    mean = rng.gamma(3.0, 5.0, (1000, 3))
    X = counts_of(rng, mean, 3.0).astype(float)
    mask = torch.from_numpy(rng.random(X.shape) < 0.7)
    spoilt = torch.from_numpy(np.where(mask, X, 1e6)).float()
    clean = torch.from_numpy(np.where(mask, X, 0.0)).float()
    log_mean = torch.from_numpy(np.log(mean)).float()
    results = []
    for x in (spoilt, clean):
        likelihood = likelihood_of(NegativeBinomialLikelihood, X)
        likelihood.finish(Given(x, log_mean, mask))
        results.append(likelihood.theta().detach())
    assert_allclose(results[0], results[1], rtol=1e-3)
    assert_allclose(results[0], 3.0, rtol=0.4)


@pytest.mark.slow
def test_a_gene_of_three_counts_stays_sane():
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(2.0, 2.0, (1000, 6))).astype(float)
    X[:, 4:] = 0.0
    X[[3, 500, 800], 4] = 1.0
    X[100, 5] = 3.0
    model = HEBAETransformer(2, likelihood="negative_binomial", random_state=0).fit(X)
    assert np.isfinite(model.theta_).all()
    usual = np.median(model.theta_[:4])
    assert 0.1 * usual < model.theta_[4] < 10.0 * usual
    assert 1e-4 < model.theta_[5] < 10.0 * usual


# Fits


def poisson_table(n, mean=100.0, scale=0.0, seed=0):
    rng = np.random.default_rng(seed)
    depth = np.exp(scale * rng.normal(size=(n, 1)))
    return rng.poisson(mean * depth * np.ones((1, 8))).astype(float)


@pytest.mark.slow
@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("max_iter", [5, "auto"])
def test_poisson_counts_are_found_to_be_poisson(cls, max_iter):
    """Before, theta was 2.95 and the variance of samples 3,487 where 100 is right."""
    X = poisson_table(200)
    model = cls(1, likelihood="negative_binomial", random_state=0, max_iter=max_iter).fit(X)
    assert np.median(model.theta_) > 500.0
    drawn = model.sample(4000, random_state=0, noise=True, size_factor=800.0)
    assert_allclose(drawn.var(axis=0).mean(), 100.0, rtol=0.15)
    assert model.score(X) > -31.0


@pytest.mark.parametrize("likelihood", ["negative_binomial", "zero_inflated_negative_binomial"])
@pytest.mark.parametrize("max_iter", [10, pytest.param("auto", marks=pytest.mark.slow)])
def test_theta_does_not_depend_on_the_budget(likelihood, max_iter):
    rng = np.random.default_rng(0)
    theta = np.repeat([0.5, 5.0], 6)
    X = rng.poisson(rng.gamma(theta, 40.0 / theta, (1500, 12))).astype(float)
    model = HEBAETransformer(2, likelihood=likelihood, random_state=0, max_iter=max_iter)
    found = model.fit(X, size_factor=np.ones(len(X))).theta_
    # Networks take a part of the spread for signal.
    assert_allclose(np.log(found), np.log(theta), atol=0.8)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["negative_binomial", "gaussian"])
def test_streams_end_near_what_a_fit_finds(likelihood):
    X = poisson_table(800)
    X = X if likelihood != "gaussian" else X - 100.0
    model = HEBAETransformer(1, likelihood=likelihood, random_state=0)
    for _ in range(4):
        model.partial_fit(part for part in np.array_split(X, 8))
    if likelihood == "gaussian":
        assert_allclose(np.median(model.noise_variance_ / X.var(axis=0)), 1.0, rtol=0.1)
    else:
        assert np.median(model.theta_) > 300.0


# Gains


def test_regression_is_numpys_and_noise_is_what_is_left():
    rng = np.random.default_rng(0)
    output = rng.normal(size=(5000, 3)) + 1.0
    x = 0.5 + output * [1.2, 1.0, 0.7] + rng.normal(size=(5000, 3))
    products = [x, output, x**2, x * output, output**2]
    sums = torch.from_numpy(np.stack([of.mean(axis=0) for of in products], axis=1))
    calibration, residual = regress(sums, torch.ones(3), torch.zeros(3), 5000)
    for j in range(3):
        slope, intercept = np.polyfit(output[:, j], x[:, j], 1)
        assert_allclose(calibration[j], [intercept, slope], atol=2e-3)
        left = np.mean((x[:, j] - intercept - slope * output[:, j]) ** 2)
        assert_allclose(residual[j], left, rtol=1e-3)


def test_gains_of_a_gaussian_by_scoring_are_those_of_the_regression():
    rng = np.random.default_rng(0)
    output = torch.from_numpy(rng.normal(size=(3000, 3))).float()
    x = (
        output * torch.tensor([1.3, 1.0, 0.8])
        + 0.3 * torch.from_numpy(rng.normal(size=(3000, 3))).float()
    )
    own = GaussianLikelihood(torch.zeros(3), torch.ones(3), torch.ones(3)).eval()
    own.set_noise_variance(torch.full((3,), 0.09))
    evidence = Given(x, output)
    found = most_likely_gains(own, own.entry_log_prob, evidence.rows, evidence)
    assert_allclose(found[:, 1], [1.3, 1.0, 0.8], atol=0.02)
    assert_allclose(found[:, 0], 0.0, atol=0.02)


@given(st.floats(0.1, 4.0), st.floats(1e-3, 1e3), st.floats(0.0, 1e3))
def test_uncertain_codes_take_a_gain_towards_1_and_not_beyond(plain, spread, hidden):
    gain = float(
        shrink_gain(
            *(torch.tensor([value], dtype=torch.float64) for value in (plain, spread, hidden))
        )
    )
    assert min(plain, 1.0) - 1e-9 <= gain <= max(plain, 1.0) + 1e-9
    if hidden == 0.0:
        assert_allclose(gain, plain)


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "poisson"])
def test_decoded_means_have_the_contrast_of_the_rows(likelihood):
    """The regression of rows on what their codes decode to has slope 1; before, about 1.2."""
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(800, 2)) @ rng.normal(size=(2, 10))
    X = {
        "gaussian": signal + 0.1 * rng.normal(size=signal.shape),
        "bernoulli": (rng.random(signal.shape) < special.expit(2.0 * signal)).astype(float),
        "poisson": rng.poisson(20.0 * np.exp(0.3 * signal)).astype(float),
    }[likelihood]
    model = VAETransformer(2, beta=0.1, likelihood=likelihood, random_state=0).fit(X)
    how = {"size_factor": X.sum(axis=1)} if likelihood == "poisson" else {}
    decoded = model.inverse_transform(model.transform(X), **how).astype(float)
    slopes = [np.polyfit(decoded[:, j], X[:, j], 1)[0] for j in range(10)]
    assert_allclose(np.mean(slopes), 1.0, atol=0.12)


def test_calibration_is_not_part_of_training():
    """A continued fit starts from the networks, and an epoch sees them without gains."""
    own = GaussianLikelihood(torch.zeros(2), torch.ones(2), torch.ones(2))
    own.calibration.copy_(torch.tensor([[0.5, 2.0], [0.0, 1.0]]))
    output = torch.ones(1, 2)
    assert torch.equal(own.train().parameter(output, None), output)
    assert_allclose(own.eval().parameter(output, None), [[2.5, 1.0]])
