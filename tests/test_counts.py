"""Likelihoods of counts, against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import special, stats

from skhebae.likelihoods import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from skhebae.likelihoods.count_densities import (
    digamma,
    negative_binomial_entries,
    negative_binomial_log_prob,
    poisson_entries,
    poisson_log_prob,
    stirling_error,
    zero_inflated_entries,
    zero_inflated_log_prob,
)

CLASSES = [
    PoissonLikelihood,
    NegativeBinomialLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
]
N_FEATURES = 5


def double(values):
    return torch.from_numpy(np.asarray(values, dtype=np.float64))


def scipy_log_prob(x, log_mean, log_theta=None, zi_logits=None):
    """The same by scipy: (n,) sums over features."""
    mean = np.exp(log_mean)
    if log_theta is None:
        return stats.poisson.logpmf(x, mean).sum(axis=1)
    theta = np.exp(log_theta)
    log_prob = stats.nbinom.logpmf(x, theta, theta / (theta + mean))
    if zi_logits is not None:
        log_pi, log_rest = special.log_expit(zi_logits), special.log_expit(-zi_logits)
        inflated = np.logaddexp(np.broadcast_to(log_pi, x.shape), log_rest + log_prob)
        log_prob = np.where(x == 0, inflated, log_rest + log_prob)
    return log_prob.sum(axis=1)


def ours(x, log_mean, log_theta=None, zi_logits=None):
    if log_theta is None:
        return poisson_log_prob(x, log_mean)
    if zi_logits is None:
        return negative_binomial_log_prob(x, log_mean, log_theta)
    return zero_inflated_log_prob(x, log_mean, log_theta, zi_logits)


@st.composite
def cases(draw):
    """Counts, log-means and per-feature parameters of all three families."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 7))
    depth = draw(st.sampled_from([0.1, 1.0, 30.0, 1000.0]))
    x = rng.poisson(depth * rng.gamma(0.5, 2.0, shape)).astype(float)
    log_mean = rng.uniform(-6.0, 7.0, shape)
    log_theta = rng.uniform(-4.0, 6.0, shape[1])
    zi_logits = rng.uniform(-4.0, 4.0, shape[1])
    return [(x, log_mean), (x, log_mean, log_theta), (x, log_mean, log_theta, zi_logits)]


@given(cases())
def test_log_prob_is_scipys(parts):
    for arguments in parts:
        result = ours(*map(double, arguments))
        assert_allclose(result, scipy_log_prob(*arguments), rtol=1e-6, atol=1e-9)


@given(cases())
def test_float32_loses_rounding_alone(parts):
    for arguments in parts:
        single = ours(*(double(part).float() for part in arguments)).double().numpy()
        x, log_mean = arguments[:2]
        theta = np.exp(arguments[2]) if len(arguments) > 2 else np.zeros_like(x)
        # The size of the terms that cancel.
        terms = special.gammaln(x + theta + 2.0) + x * (np.abs(log_mean) + 7.0) + np.exp(log_mean)
        assert (
            np.abs(single - scipy_log_prob(*arguments)) <= 1e-6 * (1.0 + terms.sum(axis=1))
        ).all()


def test_gradients_agree_with_finite_differences():
    rng = np.random.default_rng(0)
    x = double(rng.poisson(1.5, (4, 3)))
    parameters = [
        double(values).requires_grad_()
        for values in (rng.normal(size=(4, 3)), rng.normal(size=3), rng.normal(size=3))
    ]
    for k in (1, 2, 3):
        assert torch.autograd.gradcheck(lambda *given: ours(x, *given), parameters[:k])


@pytest.mark.parametrize("n_parameters", [1, 2, 3])
def test_extreme_counts_and_means_are_finite(n_parameters):
    x = torch.tensor([[0.0, 1e6, 0.0, 1e6, 1.0]])
    log_mean = torch.tensor([[-80.0, -20.0, 14.0, 14.0, 0.0]], requires_grad=True)
    log_theta = torch.tensor([-10.0, 10.0, 10.0, -10.0, 0.0], requires_grad=True)
    zi_logits = torch.tensor([-80.0, 80.0, -80.0, 0.0, 0.0], requires_grad=True)
    parameters = [log_mean, log_theta, zi_logits][:n_parameters]
    value = ours(x, *parameters)
    value.sum().backward()
    assert torch.isfinite(value).all()
    for parameter in parameters:
        assert torch.isfinite(parameter.grad).all()


@given(st.integers(0, 10_000))
def test_a_large_theta_is_a_poisson_and_no_inflation_a_negative_binomial(seed):
    rng = np.random.default_rng(seed)
    x, log_mean = double(rng.poisson(2.0, (3, 4))), double(rng.normal(size=(3, 4)))
    wide = double(np.full(4, 18.0))
    assert_allclose(ours(x, log_mean, wide), ours(x, log_mean), atol=1e-4)
    log_theta = double(rng.normal(size=4))
    none = double(np.full(4, -40.0))
    assert_allclose(ours(x, log_mean, log_theta, none), ours(x, log_mean, log_theta), atol=1e-9)


def test_probabilities_sum_to_one():
    x = double(np.arange(3000.0)[:, None])
    log_mean, log_theta, logit = double([[1.2]]), double([-0.5]), double([0.3])
    for parameters in ((), (log_theta,), (log_theta, logit)):
        total = ours(x, log_mean.expand(3000, 1), *parameters).exp().sum()
        assert_allclose(total, 1.0, rtol=1e-8)


def likelihood(cls, seed=0):
    """In double, with unequal parameters."""
    rng = np.random.default_rng(seed)
    proportions = rng.dirichlet(np.ones(N_FEATURES))
    result = cls(
        double(rng.uniform(0.1, 1.0, N_FEATURES)),
        double(rng.uniform(0.5, 2.0, N_FEATURES)),
        double(proportions),
        double(40.0),
    ).double()
    with torch.no_grad():
        for parameter in result.parameters():
            parameter.copy_(double(rng.normal(size=N_FEATURES)))
    return result


@pytest.mark.parametrize("cls", CLASSES)
def test_parameter_is_share_times_size(cls):
    model = likelihood(cls)
    output = torch.randn(6, N_FEATURES, dtype=torch.float64)
    size = double([1.0, 10.0, 20.0, 1e5, 3.0, 7.0])
    mean = model.parameter(output, size.log()).exp()
    assert_allclose(mean.sum(dim=1), size, rtol=1e-10)
    assert_allclose(mean / size[:, None], torch.softmax(output, dim=1), rtol=1e-10)
    # A constant in the output says nothing.
    assert_allclose(model.parameter(output + 3.0, size.log()).exp(), mean, rtol=1e-10)
    assert_allclose(model.parameter(output, None).exp().sum(dim=1), 40.0, rtol=1e-10)


@pytest.mark.parametrize("cls", CLASSES)
def test_initial_bias_predicts_the_shares(cls):
    model = likelihood(cls)
    shares = torch.softmax(model.initial_bias(), dim=0)
    assert_allclose(shares, model.proportions, rtol=1e-10)


@pytest.mark.parametrize("cls", CLASSES)
def test_encoder_input_does_not_know_depth(cls):
    model = likelihood(cls)
    x = double(np.random.default_rng(1).poisson(3.0, (4, N_FEATURES)) + 1.0)
    seen = model.encoder_input(x)
    assert_allclose(model.encoder_input(7.0 * x), seen, rtol=1e-10)
    x = x.numpy()
    expected = np.log1p(40.0 * x / x.sum(axis=1, keepdims=True))
    assert_allclose(seen, (expected - model.location.numpy()) / model.scale.numpy(), rtol=1e-10)
    assert torch.isfinite(model.encoder_input(torch.zeros(2, N_FEATURES))).all()


@pytest.mark.parametrize("cls", CLASSES)
def test_fisher_information_is_the_mean_square_score(cls):
    """By summing over counts: ``sum_x p(x) (d log p / d log mean)^2``."""
    model = likelihood(cls)
    log_mean = double([[-2.0, 0.0, 1.0, 2.0, 0.5]])
    counts = double(np.arange(4000.0))
    expected = []
    for j in range(N_FEATURES):
        eta = torch.zeros(4000, N_FEATURES, dtype=torch.float64) + log_mean
        eta.requires_grad_()
        x = torch.zeros(4000, N_FEATURES, dtype=torch.float64)
        x[:, j] = counts
        value = model.log_prob(x, eta)
        (score,) = torch.autograd.grad(value.sum(), eta)
        # The other features' zeros are in every row alike.
        log_p = (value - value[0]).detach()
        p = log_p.softmax(dim=0)
        expected.append(float((p * score[:, j] ** 2).sum()))
    assert_allclose(model.fisher_information(log_mean).detach()[0], expected, rtol=1e-6)


@pytest.mark.parametrize("cls", CLASSES)
def test_draws_have_the_stated_moments(cls):
    model = likelihood(cls)
    log_mean = double([-1.0, 0.0, 1.0, 2.0, 0.5]).expand(40_000, -1)
    generator = torch.Generator().manual_seed(0)
    draws = model.sample(log_mean, generator).double().numpy()
    assert (draws == np.rint(draws)).all()
    assert (draws >= 0).all()
    mean = model.mean(log_mean)[0].detach().numpy()
    error = draws.std(axis=0) / len(draws) ** 0.5
    assert (np.abs(draws.mean(axis=0) - mean) < 5.0 * error).all()
    raw, zeros = log_mean[0].exp().numpy(), np.exp(-log_mean[0].exp().numpy())
    if isinstance(model, NegativeBinomialLikelihood):
        theta = model.theta().detach().numpy()
        zeros = (theta / (theta + raw)) ** theta
    if isinstance(model, ZeroInflatedNegativeBinomialLikelihood):
        pi = torch.sigmoid(model.zi_logits).detach().numpy()
        zeros = pi + (1.0 - pi) * zeros
    assert_allclose((draws == 0).mean(axis=0), zeros, atol=0.02)
    again = model.sample(log_mean, torch.Generator().manual_seed(0))
    assert_allclose(again, draws)


# Large counts in single precision


LARGE = [1.0, 1e3, 1e5, 1e7, 1e9]


def derivatives(dtype, x, log_mean, *features):
    """Value and gradients of entries one by one, (n,) each."""
    x = torch.tensor(x, dtype=dtype)[:, None]
    leaves = [
        torch.tensor(np.broadcast_to(of, (len(x),)).copy(), dtype=dtype)[:, None].requires_grad_()
        for of in (log_mean, *features)
    ]
    parts = []
    for i in range(len(x)):
        row = [leaves[0][i : i + 1], *(leaf[i] for leaf in leaves[1:])]
        value = ours(x[i : i + 1], *row)
        grads = torch.autograd.grad(value.sum(), row)
        parts.append(torch.stack([value.detach()[0], *(grad.reshape(()) for grad in grads)]))
    return torch.stack(parts).double().numpy()


@pytest.mark.parametrize("log_theta", [-3.0, 0.0, 5.0, 15.0, 25.0])
@pytest.mark.parametrize("away", [0.5, 0.999, 1.0, 1.001, 2.0])
@pytest.mark.parametrize("n_parameters", [1, 2, 3])
def test_no_large_terms_cancel(n_parameters, away, log_theta):
    """float32 agrees with double up to the digits that the log-mean itself has.

    Before, the gradient of a count of 1e7 was 0.
    """
    # The same numbers in both: a mean that float32 holds exactly.
    log_mean = np.log(np.array(LARGE) * away).astype(np.float32).astype(float)
    features = [np.float32(log_theta), np.float32(-1.0)][: n_parameters - 1]
    single = derivatives(torch.float32, LARGE, log_mean, *features)
    double_ = derivatives(torch.float64, LARGE, log_mean, *features)
    mean, theta = np.exp(log_mean), np.exp(log_theta) if n_parameters > 1 else np.inf
    # What a rounding of log_mean moves the result by: eps |log_mean| times the derivative's size.
    weight = 1.0 if np.isinf(theta) else theta / (theta + mean)
    rounding = 4e-7 * (1.0 + np.abs(log_mean)) * (1.0 + np.maximum(mean, LARGE) * weight)
    for k in range(n_parameters + 1):
        error = np.abs(single[:, k] - double_[:, k])
        assert (error <= 3.0 * rounding + 1e-5 * np.abs(double_[:, k])).all(), k
    slope = np.array(LARGE) - mean if np.isinf(theta) else (np.array(LARGE) - mean) * weight
    assert_allclose(double_[:, 1], slope, rtol=1e-6, atol=1e-6)


def test_entries_are_the_terms_of_the_sums():
    """Those of a GPU, with gradients by autograd, are those of the CPU."""
    rng = np.random.default_rng(0)
    x = double(rng.poisson(rng.gamma(0.3, 50.0, (6, 4))))
    parameters = [
        double(of).requires_grad_() for of in (rng.normal(size=(6, 4)), rng.normal(size=4) * 8)
    ]
    zi_logits = double(rng.normal(size=4)).requires_grad_()
    pairs = [
        (poisson_entries, poisson_log_prob, parameters[:1]),
        (negative_binomial_entries, negative_binomial_log_prob, parameters),
        (zero_inflated_entries, zero_inflated_log_prob, [*parameters, zi_logits]),
    ]
    for entries, total, own in pairs:
        first, second = entries(x, *own).sum(dim=1), total(x, *own)
        assert_allclose(first.detach(), second.detach(), rtol=1e-10)
        for a, b in zip(
            torch.autograd.grad(first.sum(), own),
            torch.autograd.grad(second.sum(), own),
            strict=True,
        ):
            assert_allclose(a, b, rtol=1e-8, atol=1e-10)


@given(st.floats(1.0, 1e9))
def test_stirlings_error_and_digamma_are_scipys(value):
    x = torch.tensor([value], dtype=torch.float64)
    log_gamma = special.gammaln(value + 1.0)
    exact = log_gamma - ((value + 0.5) * np.log(value) - value + 0.5 * np.log(2.0 * np.pi))
    if value < 1e4:  # beyond, the formula itself cancels
        assert_allclose(stirling_error(x), exact, atol=1e-9)
    assert_allclose(stirling_error(x.float()), stirling_error(x.float().double()), atol=1e-6)
    wide = x.float().double()
    assert_allclose(digamma(x.float()), special.digamma(wide), rtol=1e-6, atol=2e-6)
