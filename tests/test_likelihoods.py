from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import sparse, special, stats

from skhebae.data import Table
from skhebae.likelihoods import (
    LARGEST_COUNT,
    LIKELIHOODS,
    NOISE_VARIANCE_FLOOR,
    BernoulliLikelihood,
    GaussianLikelihood,
)

N_FEATURES = 4


def gaussian(seed=0):
    """Likelihood in float64 with unequal units, variances and noise."""
    rng = np.random.default_rng(seed)
    location, scale, variance = (
        torch.from_numpy(values)
        for values in (
            rng.normal(0.0, 100.0, N_FEATURES),
            rng.uniform(0.01, 50.0, N_FEATURES),
            rng.uniform(0.2, 1.0, N_FEATURES),
        )
    )
    likelihood = GaussianLikelihood(location, scale, variance)
    with torch.no_grad():
        likelihood.log_noise.copy_(torch.from_numpy(rng.normal(-1.0, 0.7, N_FEATURES)))
    return likelihood


def bernoulli():
    location = torch.tensor([0.1, 0.5, 0.8, 0.3], dtype=torch.float64)
    return BernoulliLikelihood(location, (location * (1.0 - location)).sqrt())


def rows(n_rows, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn((n_rows, N_FEATURES), generator=generator, dtype=torch.float64)


def original(likelihood, standardised):
    return (standardised * likelihood.scale + likelihood.location).numpy()


def test_gaussian_log_prob_is_that_of_the_original_rows():
    likelihood, x, output = gaussian(), rows(6), rows(6, seed=2)
    deviation = (likelihood.noise_variance().sqrt() * likelihood.scale).detach().numpy()
    expected = stats.norm.logpdf(
        original(likelihood, x), original(likelihood, output), deviation
    ).sum(axis=1)
    assert_allclose(likelihood.log_prob(x, output).detach(), expected, rtol=1e-10)


def test_gaussian_noise_starts_common_and_above_the_floor():
    variance = torch.tensor([0.5, 1.0, 0.1, 1.0])
    likelihood = GaussianLikelihood(torch.zeros(4), torch.ones(4), variance)
    learned = (likelihood.noise_variance() - NOISE_VARIANCE_FLOOR * variance).detach()
    assert_allclose(learned, float(variance.mean()), rtol=1e-6)


def test_gaussian_log_prob_is_finite_where_reconstruction_is_perfect():
    likelihood, x = gaussian(), rows(5)
    likelihood.set_noise_variance(torch.zeros(N_FEATURES, dtype=torch.float64))
    values = likelihood.log_prob(x, x).detach()
    assert torch.isfinite(values).all()
    deviation = (likelihood.floor.sqrt() * likelihood.scale).numpy()
    # The density at its peak, with the variance at its floor (within 0.1 %).
    assert_allclose(values, stats.norm.logpdf(0.0, 0.0, deviation).sum(), atol=1e-3 * N_FEATURES)
    with torch.no_grad():
        likelihood.log_noise.fill_(-200.0)
    assert torch.isfinite(likelihood.log_prob(x, x)).all()


def test_gaussian_log_prob_is_finite_for_a_constant_feature():
    # FeatureScaling gives constant features the scale 1 and the variance 1.
    likelihood = GaussianLikelihood(torch.full((3,), 1e9), torch.ones(3), torch.ones(3))
    x = torch.zeros(2, 3)
    likelihood.set_noise_variance(x.square().mean(dim=0))
    assert torch.isfinite(likelihood.log_prob(x, x)).all()
    assert (likelihood.noise_variance() >= NOISE_VARIANCE_FLOOR).all()


def test_set_noise_variance_is_the_residual_or_the_floor():
    likelihood = gaussian()
    residual = likelihood.floor * torch.tensor([0.0, 0.5, 1.5, 40.0], dtype=torch.float64)
    likelihood.set_noise_variance(residual)
    variance = likelihood.noise_variance().detach()
    assert_allclose(variance[2:], residual[2:], rtol=1e-10)
    assert (variance[:2] > likelihood.floor[:2]).all()
    assert_allclose(variance[:2], likelihood.floor[:2], rtol=2e-3)


def test_set_noise_variance_maximises_the_log_density():
    likelihood = gaussian()
    x, output = rows(50), rows(50, seed=2)
    with torch.no_grad():
        output[:, 0] = x[:, 0]  # under the floor
    likelihood.set_noise_variance((x - output).square().mean(dim=0))
    with torch.no_grad():
        best = float(likelihood.log_prob(x, output).mean())
        at_best = likelihood.log_noise.clone()
        for feature in range(N_FEATURES):
            for step in (-0.5, -0.05, 0.05, 0.5):
                likelihood.log_noise.copy_(at_best)
                likelihood.log_noise[feature] += step
                # A floored variance may fall by the 0.1 % it stands above the floor.
                slack = 1e-3 if feature == 0 and step < 0 else 0.0
                assert float(likelihood.log_prob(x, output).mean()) < best + slack


def test_bernoulli_log_prob_of_binary_rows():
    likelihood, output = bernoulli(), rows(6)
    binary = np.random.default_rng(0).integers(0, 2, (6, N_FEATURES))
    x = (torch.from_numpy(binary) - likelihood.location) / likelihood.scale
    expected = stats.bernoulli.logpmf(binary, output.sigmoid().numpy()).sum(axis=1)
    assert_allclose(likelihood.log_prob(x, output), expected, rtol=1e-10)


def test_bernoulli_log_prob_of_shades_is_the_cross_entropy():
    likelihood, output = bernoulli(), rows(6)
    shades = np.random.default_rng(0).uniform(0.0, 1.0, (6, N_FEATURES))
    x = (torch.from_numpy(shades) - likelihood.location) / likelihood.scale
    b = output.sigmoid().numpy()
    expected = (shades * np.log(b) + (1.0 - shades) * np.log(1.0 - b)).sum(axis=1)
    assert_allclose(likelihood.log_prob(x, output), expected, rtol=1e-10)


def test_bernoulli_log_prob_is_finite_for_extreme_logits():
    likelihood = bernoulli()
    output = torch.tensor([[1e4, -1e4, 1e4, -1e4]], dtype=torch.float64)
    x = (torch.tensor([[0.0, 1.0, 0.0, 1.0]]) - likelihood.location) / likelihood.scale
    assert_allclose(likelihood.log_prob(x, output), -4e4)


@pytest.mark.parametrize("make", [gaussian, bernoulli])
def test_sample_has_the_moments_of_the_density(make):
    likelihood, n_samples = make(), 40_000
    output = rows(1)
    many = output.expand(n_samples, -1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        draws = likelihood.sample(many, generator).numpy()
        again = likelihood.sample(many, generator.manual_seed(0)).numpy()
        mean = likelihood.mean(output)[0].numpy()
        if make is gaussian:
            variance, kurtosis = likelihood.noise_variance().numpy(), 3.0
        else:
            b = output.sigmoid()[0].numpy()
            variance = b * (1.0 - b) / likelihood.scale.numpy() ** 2
            kurtosis = 1.0 / (b * (1.0 - b)) - 3.0
            values = np.unique(original(likelihood, torch.from_numpy(draws)).round(9))
            assert_allclose(values, [0.0, 1.0], atol=1e-9)
    assert np.array_equal(draws, again)
    # Four standard errors of a mean and of a variance, for this kurtosis.
    assert (np.abs(draws.mean(axis=0) - mean) < 4.0 * np.sqrt(variance / n_samples)).all()
    error = variance * np.sqrt((kurtosis - 1.0) / n_samples) + 4.0 * variance / n_samples
    assert (np.abs(draws.var(axis=0, ddof=1) - variance) < 4.0 * error).all()


@pytest.mark.parametrize("make", [gaussian, bernoulli])
def test_sample_depends_on_its_generator_alone(make):
    likelihood, output = make(), rows(3)
    state = torch.get_rng_state()
    first = likelihood.sample(output, torch.Generator().manual_seed(0))
    other = likelihood.sample(output, torch.Generator().manual_seed(1))
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("make", [gaussian, bernoulli])
def test_fisher_information_is_the_curvature_of_the_density(make):
    likelihood = make()
    x, output = rows(3), rows(3, seed=2)
    information = likelihood.fisher_information(output).detach()
    assert (information > 0.0).all()
    for i in range(3):
        # Neither curvature depends on x, so each is its own expectation.
        hessian = torch.autograd.functional.hessian(
            lambda parameter, i=i: -likelihood.log_prob(x[i : i + 1], parameter).sum(),
            output[i : i + 1],
        )[0, :, 0, :]
        assert_allclose(hessian, torch.diag(information[i]), rtol=1e-8, atol=1e-10)


def test_fisher_information_is_the_variance_of_the_score():
    likelihood = gaussian()
    output = rows(1).expand(40_000, -1).clone().requires_grad_()
    draws = likelihood.sample(output.detach(), torch.Generator().manual_seed(0)).detach()
    (score,) = torch.autograd.grad(likelihood.log_prob(draws, output).sum(), output)
    expected = likelihood.fisher_information(output)[0].detach()
    assert_allclose(score.square().mean(dim=0), expected, rtol=4.0 * (2.0 / 40_000) ** 0.5)


@pytest.mark.parametrize("make", [gaussian, bernoulli])
def test_initial_bias_predicts_the_feature_means(make):
    likelihood = make()
    predicted = likelihood.mean(likelihood.initial_bias()[None])[0]
    assert_allclose(original(likelihood, predicted), likelihood.location, rtol=1e-8)


def test_bernoulli_initial_bias_of_features_always_off_or_on():
    likelihood = BernoulliLikelihood(torch.tensor([0.0, 1.0]), torch.ones(2))
    assert_allclose(likelihood.initial_bias().sigmoid(), [0.01, 0.99], rtol=1e-5)


# All families alike.

COUNTS = [name for name in LIKELIHOODS if name not in ("gaussian", "bernoulli")]


def observed(name, n_rows, n_features, seed):
    """A table that the family accepts, in its original units."""
    rng = np.random.default_rng(seed)
    shape = n_rows, n_features
    if name == "gaussian":
        return rng.normal(3.0, rng.uniform(0.1, 20.0, n_features), shape)
    if name == "bernoulli":
        return rng.integers(0, 2, shape).astype(float)
    table = rng.poisson(5.0 * rng.gamma(0.5, 2.0, shape)).astype(float)
    table[0, 0] = 3.0  # somewhere
    return table


def family(name, n_rows=6, n_features=N_FEATURES, seed=0):
    """A likelihood in evaluation mode, rows of the table it was measured on, and parameters."""
    cls = LIKELIHOODS[name]
    X = observed(name, n_rows, n_features, seed)
    scaling = cls.scaling_class.measure(Table(X))
    likelihood = cls.from_scaling(scaling).eval()
    generator = torch.Generator().manual_seed(seed % 2**31)
    with torch.no_grad():
        for own in likelihood.parameters():
            own.add_(torch.randn(own.shape, generator=generator))
    output = torch.randn((n_rows, n_features), generator=generator)
    log_size = 3.0 + torch.rand(n_rows, generator=generator)
    x = torch.from_numpy(scaling.standardise(X))
    return likelihood, scaling, X, x, likelihood.parameter(output, log_size).detach()


def scipy_entries(name, likelihood, X, x, parameter):
    """Log-densities of the entries of X in their original units, for a likelihood in double."""
    parameter = parameter.numpy()
    if name == "gaussian":
        X = original(likelihood, x)  # rounded as `x` is
        scale, location = likelihood.scale.numpy(), likelihood.location.numpy()
        deviation = likelihood.noise_variance().detach().sqrt().numpy() * scale
        return stats.norm.logpdf(X, parameter * scale + location, deviation)
    if name == "bernoulli":
        return stats.bernoulli.logpmf(X, special.expit(parameter))
    if name == "poisson":
        return stats.poisson.logpmf(X, np.exp(parameter))
    theta = likelihood.theta().detach().numpy()
    log_prob = stats.nbinom.logpmf(X, theta, theta / (theta + np.exp(parameter)))
    if name == "negative_binomial":
        return log_prob
    logits = likelihood.zi_logits.detach().numpy()
    zeros = np.logaddexp(special.log_expit(logits), special.log_expit(-logits) + log_prob)
    return np.where(X == 0, zeros, special.log_expit(-logits) + log_prob)


@pytest.mark.parametrize("name", LIKELIHOODS)
@settings(deadline=None, max_examples=30)
@given(n_rows=st.integers(2, 9), n_features=st.integers(1, 8), seed=st.integers(0, 2**32 - 1))
def test_log_prob_sums_the_entries_and_a_mask_leaves_some_out(name, n_rows, n_features, seed):
    likelihood, _, X, x, parameter = family(name, n_rows, n_features, seed)
    mask = torch.from_numpy(np.random.default_rng(seed).random(x.shape) < 0.6)
    close = {"rtol": 1e-5, "atol": 1e-5}
    with torch.no_grad():
        entries = likelihood.entry_log_prob(x, parameter)
        assert entries.shape == x.shape
        assert_allclose(entries.sum(dim=1), likelihood.log_prob(x, parameter), **close)
        actual = likelihood.log_prob(x, parameter, mask)
        assert_allclose(actual, entries.where(mask, 0.0).sum(dim=1), **close)
        every = likelihood.log_prob(x, parameter, torch.ones_like(mask))
        assert_allclose(every, entries.sum(dim=1), rtol=1e-6)
        assert not likelihood.log_prob(x, parameter, torch.zeros_like(mask)).any()
        # Whatever stands in an entry that is left out, it says nothing.
        other = torch.where(mask, x, observed_elsewhere(name, x))
        assert torch.equal(likelihood.log_prob(other, parameter, mask), actual)
    with torch.no_grad():
        likelihood, x, parameter = likelihood.double(), x.double(), parameter.double()
        expected = scipy_entries(name, likelihood, X, x, parameter)
        close = {"rtol": 1e-6, "atol": 1e-6}
        assert_allclose(likelihood.entry_log_prob(x, parameter), expected, **close)
        some = np.where(mask, expected, 0.0).sum(axis=1)
        assert_allclose(likelihood.log_prob(x, parameter, mask), some, **close)
        assert_allclose(likelihood.log_prob(x, parameter), expected.sum(axis=1), **close)
    leaf = parameter.clone().requires_grad_()
    (slope,) = torch.autograd.grad(likelihood.log_prob(x, leaf, mask).sum(), leaf)
    assert not slope[~mask].any()


def observed_elsewhere(name, x):
    """Other values than those of `x`, of the same family."""
    return 1.0 + 2.0 * x if name == "gaussian" else x.flip(0) + (name in COUNTS)


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_a_mask_keeps_the_slope_of_what_it_leaves_in(name):
    likelihood, _, _, x, parameter = family(name)
    mask = torch.from_numpy(np.random.default_rng(1).random(x.shape) < 0.6)
    leaf = parameter.clone().requires_grad_()
    (of_all,) = torch.autograd.grad(likelihood.log_prob(x, leaf).sum(), leaf)
    (of_some,) = torch.autograd.grad(likelihood.log_prob(x, leaf, mask).sum(), leaf)
    assert of_all.all()
    assert_allclose(of_some, of_all.where(mask, 0.0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_check_accepts_the_tables_of_its_family(name, as_type):
    X = as_type(observed(name, 20, N_FEATURES, 0))
    assert LIKELIHOODS[name].check(X, name) is None
    assert LIKELIHOODS[name].check(as_type(np.zeros((2, N_FEATURES))), name) is None
    if name != "gaussian":
        for dtype in (np.bool_, np.uint8, np.int64, np.float32):
            assert LIKELIHOODS[name].check(as_type(np.eye(3, dtype=dtype)), name) is None


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize(
    ("value", "shown"), [(-1e-6, "from -1e-06 to 1"), (1.001, "from 0 to 1.001")]
)
def test_bernoulli_refuses_what_is_no_probability(value, shown, as_type):
    X = np.array([[0.0, 1.0], [0.5, 0.25]])
    assert BernoulliLikelihood.check(as_type(X), "bernoulli") is None
    X[1, 0] = value
    with pytest.raises(ValueError, match=rf"likelihood='bernoulli' needs X within .*{shown}"):
        BernoulliLikelihood.check(as_type(X), "bernoulli")


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-1.0, "Negative values"),
        (0.5, "25% of the entries .* such as 0.5"),
        (2.0 * LARGEST_COUNT, r"counts up to 1e\+09, but X has 2e\+09"),
    ],
)
def test_counts_refuse_what_is_no_count(name, value, message, as_type):
    X = np.array([[1.0, 2.0], [3.0, LARGEST_COUNT]])
    assert LIKELIHOODS[name].check(as_type(X), name) is None
    X[1, 0] = value
    with pytest.raises(ValueError, match=message) as caught:
        LIKELIHOODS[name].check(as_type(X), name)
    assert f"likelihood={name!r}" in str(caught.value)


def test_gaussian_accepts_any_numbers():
    assert GaussianLikelihood.check(np.array([[-1e30, 0.5], [1e30, 0.0]]), "gaussian") is None


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_learned_parameters_are_named_and_in_the_units_of_the_rows(name):
    likelihood, scaling, *_ = family(name, n_rows=40)
    expected = {}
    if name == "gaussian":
        likelihood.set_noise_variance(torch.full((N_FEATURES,), 0.25))
        expected = {"noise_variance_": 0.25 * scaling.scale**2}
    elif name.endswith("negative_binomial"):
        expected = {"theta_": np.arange(1.0, N_FEATURES + 1.0)}
        values = likelihood._values()
        values[:, 0] = torch.arange(1.0, N_FEATURES + 1.0).log()
        likelihood._set_values(values)
    learned = likelihood.learned(scaling)
    assert list(learned) == list(expected)
    for key, value in learned.items():
        assert value.dtype == np.float64
        assert value.shape == (N_FEATURES,)
        assert_allclose(value, expected[key], rtol=1e-5)
