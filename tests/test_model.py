from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal
from torch.distributions import MultivariateNormal, kl_divergence

from skhebae.data import FeatureScaling, Minibatch, Table
from skhebae.fitted.build import Architecture, build_model
from skhebae.posterior import (
    bound,
    code_variance,
    linearise,
    linearised_posterior,
    log_likelihood,
    posterior_mode,
    score,
)
from skhebae.prior import Prior

P, D = 5, 3


class GaussianPrior(Prior):
    """``N(m, diag v)``, by nothing but the methods that a prior must have."""

    def __init__(self, n_components):
        super().__init__(n_components)
        self.m = torch.linspace(-1.0, 1.5, n_components)
        self.v = torch.linspace(0.3, 2.5, n_components)

    def log_prob(self, z):
        return torch.distributions.Normal(self.m, self.v.sqrt()).log_prob(z).sum(dim=-1)

    def sample(self, n_samples, rng):
        return self.m.numpy() + self.v.sqrt().numpy() * rng.standard_normal(
            (n_samples, len(self.m))
        )

    def precision(self, z):
        return self.v.double().reciprocal().diag().expand(len(z), -1, -1)

    def gaussian_kl(self, mean, factor):
        trace = (factor.square().sum(dim=-1) / self.v).sum(dim=-1)
        distance = ((mean - self.m).square() / self.v).sum(dim=-1)
        log_det = 2.0 * factor.diagonal(dim1=-2, dim2=-1).log().sum(dim=-1)
        return 0.5 * (trace + distance - len(self.m) + self.v.log().sum() - log_det)


PRIORS = pytest.mark.parametrize("prior", [None, GaussianPrior], ids=["standard", "gaussian"])


def make_model(likelihood="gaussian", hidden=(), n_components=D, seed=0, prior=None):
    """Autoencoder of random weights, with unequal units and noise variances."""
    generator = torch.Generator().manual_seed(seed)
    rng = np.random.default_rng(seed)
    X = rng.uniform(0.0, 1.0, (50, P))
    if likelihood == "gaussian":
        X = X * [0.1, 1.0, 20.0, 3.0, 0.5] + 7.0
    architecture = Architecture(P, n_components, hidden, "tanh", likelihood, 0, prior=prior)
    model = build_model(architecture, FeatureScaling.measure(Table(X)), generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.5)
    return model.eval()


def rows(n_rows=8):
    return torch.randn((n_rows, P), generator=torch.Generator().manual_seed(1))


def linear_parts(model):
    """W (p, d), bias (p,) and noise variance (p,) of a linear decoder, float64."""
    layer = model.decoder[0]
    parts = layer.weight, layer.bias, model.likelihood.noise_variance()
    return tuple(part.detach().double().numpy() for part in parts)


def prior_moments(model):
    """Mean (d,) and variances (d,) of the prior, float64."""
    if not isinstance(model.prior, GaussianPrior):
        return np.zeros(model.n_components), np.ones(model.n_components)
    return model.prior.m.double().numpy(), model.prior.v.double().numpy()


def log_marginal(model, x):
    """log p(x) of the original rows under a linear decoder, exactly."""
    W, bias, noise = linear_parts(model)
    m, v = prior_moments(model)
    log_units = np.log(model.likelihood.scale.double().numpy()).sum()
    covariance = v * W @ W.T + np.diag(noise)
    return multivariate_normal.logpdf(x.double().numpy(), W @ m + bias, covariance) - log_units


def exact_posterior(W, bias, noise, m, v):
    """Gain K (d, p) and offset (d,) of the posterior mean ``K x + offset``."""
    precision = np.diag(1.0 / v) + W.T / noise @ W
    gain = np.linalg.solve(precision, W.T / noise)
    return gain, np.linalg.solve(precision, m / v) - gain @ bias


def set_exact_posterior(model):
    gain, offset = exact_posterior(*linear_parts(model), *prior_moments(model))
    layer = model.encoder.layers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(gain))
        layer.bias.copy_(torch.from_numpy(offset))


@PRIORS
@pytest.mark.parametrize("n_components", [1, 3, 7])
def test_score_of_the_exact_posterior_is_the_marginal_likelihood(n_components, prior):
    model, x = make_model(n_components=n_components, prior=prior), rows()
    set_exact_posterior(model)
    with torch.no_grad():
        assert_allclose(score(model, Minibatch(x)), log_marginal(model, x), rtol=1e-4)


@PRIORS
@pytest.mark.parametrize("n_draws", [1, 20])
def test_importance_weights_of_a_linear_decoder_have_no_variance(n_draws, prior):
    # Whatever the encoder: one Gauss-Newton step finds the exact posterior.
    model, x = make_model(prior=prior), rows()
    noise = torch.randn((n_draws, D), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        actual = log_likelihood(model, Minibatch(x), noise)
        assert_allclose(actual, log_marginal(model, x), rtol=1e-4)


@PRIORS
def test_posterior_mode_of_a_linear_decoder_is_the_exact_mean(prior):
    model, x = make_model(prior=prior), rows()
    gain, offset = exact_posterior(*linear_parts(model), *prior_moments(model))
    start = 3.0 * torch.randn((8, D), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        mode = posterior_mode(model, Minibatch(x), start)
    assert_allclose(mode, x.double().numpy() @ gain.T + offset, rtol=1e-4, atol=1e-4)


#: Rows that lack nothing, one entry, most of them, and all of them.
MASK = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 1, 1, 1], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]).bool()


@PRIORS
def test_a_masked_row_has_the_posterior_and_marginal_of_what_was_observed(prior):
    model, x = make_model(prior=prior), rows(4).where(MASK, 0.0)
    minibatch = Minibatch(x, mask=MASK)
    noise = torch.randn((20, D), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        mode = posterior_mode(model, minibatch, model.encode(minibatch)[0])
        factor = linearised_posterior(model, mode, minibatch).double().numpy()
        # The bound at the exact posterior, which no encoder of whole rows has.
        at_posterior = bound(model, minibatch, mode, linearised_posterior(model, mode, minibatch))
        likelihood = log_likelihood(model, minibatch, noise)
    (W, bias, spread), (m, v) = linear_parts(model), prior_moments(model)
    scale = model.likelihood.scale.double().numpy()
    for i, seen in enumerate(MASK.numpy()):
        observed = x[i].double().numpy()[seen]
        parts = W[seen], bias[seen], spread[seen]
        gain, offset = exact_posterior(*parts, m, v)
        assert_allclose(mode[i], gain @ observed + offset, rtol=1e-4, atol=1e-4)
        precision = np.diag(1.0 / v) + W[seen].T / spread[seen] @ W[seen]
        assert_allclose(factor[i] @ factor[i].T, np.linalg.inv(precision), rtol=1e-4, atol=1e-5)
        exact = 0.0
        if seen.any():
            covariance = v * W[seen] @ W[seen].T + np.diag(spread[seen])
            law = multivariate_normal(W[seen] @ m + bias[seen], covariance)
            exact = law.logpdf(observed) - np.log(scale[seen]).sum()
        assert_allclose(at_posterior[i], exact, rtol=1e-4, atol=1e-4)
        assert_allclose(likelihood[i], exact, rtol=1e-4, atol=1e-4)


def test_score_of_masked_rows_is_the_bound_of_what_was_observed():
    # At the mode of what was observed; everything else is of a model without the columns.
    model, x = make_model(hidden=(6,)), rows(4)
    minibatch = Minibatch(x, mask=MASK)
    with torch.no_grad():
        mu = model.encode(minibatch)[0]
        mode = posterior_mode(model, minibatch, mu)
        mu = torch.where(MASK.all(dim=1, keepdim=True), mu, mode)
        actual = score(model, minibatch)
        assert_allclose(
            score(model, Minibatch(x, mask=torch.ones(4, P) > 0)),
            score(model, Minibatch(x)),
            rtol=1e-5,
        )
        for i, seen in enumerate(MASK):
            J = torch.autograd.functional.jacobian(model.decode, mu[i : i + 1])[0, :, 0][seen]
            weight = 1.0 / model.likelihood.noise_variance()[seen, None]
            factor = torch.linalg.cholesky(torch.linalg.inv(torch.eye(D) + J.T @ (weight * J)))
            total = 0.0
            for sign, j in product((-1.0, 1.0), range(D)):
                z = mu[i : i + 1] + sign * D**0.5 * factor[:, j]
                entries = model.likelihood.entry_log_prob(x[i : i + 1], model.decode(z))
                total += float(entries[0, seen].sum()) / (2 * D)
            standard = MultivariateNormal(torch.zeros(D), torch.eye(D))
            kl = kl_divergence(MultivariateNormal(mu[i], scale_tril=factor), standard)
            assert_allclose(float(actual[i]), total - float(kl), rtol=1e-4, atol=1e-4)


@PRIORS
def test_code_variance_is_what_the_noise_of_training_lacks(prior):
    # Independent of the code for a linear decoder: (P + G)^-1 - (P + G / w)^-1.
    model = make_model(prior=prior)
    W, _, noise = linear_parts(model)
    gain, precision = W.T / noise @ W, np.diag(1.0 / prior_moments(model)[1])
    z = torch.randn((6, D), generator=torch.Generator().manual_seed(2))
    at = linearise(model, z, Minibatch(rows(6)))
    with torch.no_grad():
        for row_weight in (0.0, 1e-40, 0.01, 0.5, 0.999):
            expected = np.linalg.inv(precision + gain)
            if row_weight > 1e-30:
                expected = expected - np.linalg.inv(precision + gain / row_weight)
            actual = code_variance(model, at, row_weight)
            assert_allclose(actual, np.diag(W @ expected @ W.T), rtol=1e-3, atol=1e-5)
            assert (actual >= 0.0).all()


def test_best_noise_of_a_weighted_row_divergence_is_the_one_assumed():
    # 1/2 tr(G Q) + w/2 (tr Q - log det Q) has its minimum at Q = (I + G / w)^-1.
    rng = np.random.default_rng(0)
    root = rng.normal(size=(D, D))
    gain, weight = root @ root.T, 0.3

    def loss(Q):
        return 0.5 * np.trace(gain @ Q) + 0.5 * weight * (np.trace(Q) - np.linalg.slogdet(Q)[1])

    best = np.linalg.inv(np.eye(D) + gain / weight)
    factor = np.linalg.cholesky(best)
    for _ in range(50):
        change = np.eye(D) + 0.05 * rng.normal(size=(D, D))
        assert loss(factor @ change @ change.T @ factor.T) > loss(best)


def test_score_is_that_of_the_original_rows():
    model, x = make_model(), rows()
    set_exact_posterior(model)
    W, bias, noise = linear_parts(model)
    scale = model.likelihood.scale.double().numpy()
    location = model.likelihood.location.double().numpy()
    original = x.double().numpy() * scale + location
    covariance = np.outer(scale, scale) * (W @ W.T + np.diag(noise))
    expected = multivariate_normal.logpdf(original, location + scale * bias, covariance)
    with torch.no_grad():
        assert_allclose(score(model, Minibatch(x)), expected, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**31), error=st.floats(0.01, 3.0))
def test_score_of_any_other_encoder_is_a_lower_bound(seed, error):
    model, x = make_model(seed=seed), rows()
    set_exact_posterior(model)
    with torch.no_grad():
        weight = model.encoder.layers[0].weight
        generator = torch.Generator().manual_seed(seed)
        weight.add_(torch.randn(weight.shape, generator=generator), alpha=error)
        actual = score(model, Minibatch(x)).double().numpy()
    exact = log_marginal(model, x)
    assert (actual <= exact + 1e-4 * np.abs(exact)).all()


def test_gap_of_the_score_is_the_divergence_from_the_posterior():
    # Only the mean is wrong: KL = 1/2 e^T P e with the precision P of the posterior.
    model, x = make_model(), rows()
    set_exact_posterior(model)
    shift = torch.tensor([0.5, -1.0, 0.25])
    with torch.no_grad():
        model.encoder.layers[0].bias.add_(shift)
        gap = log_marginal(model, x) - score(model, Minibatch(x)).double().numpy()
    W, _, noise = linear_parts(model)
    error = shift.double().numpy()
    assert_allclose(gap, 0.5 * error @ (np.eye(D) + W.T / noise @ W) @ error, rtol=1e-3)


@pytest.mark.parametrize(
    ("likelihood", "hidden"), list(product(["gaussian", "bernoulli"], [(), (6,), (6, 4)]))
)
def test_posterior_factor_inverts_the_precision(likelihood, hidden):
    model = make_model(likelihood, hidden)
    mu = torch.randn((4, D), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        factor = linearised_posterior(model, mu, Minibatch(rows(4)))
        weight = model.likelihood.fisher_information(model.decode(mu)).double().numpy()
    assert torch.equal(factor, factor.tril())
    assert (factor.diagonal(dim1=1, dim2=2) > 0.0).all()
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(model.decode, mu[i : i + 1])[0, :, 0, :]
        J = jacobian.double().numpy()
        expected = np.linalg.inv(np.eye(D) + J.T @ (weight[i][:, None] * J))
        F = factor[i].double().numpy()
        assert_allclose(F @ F.T, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_score_of_a_nonlinear_decoder_is_the_cubature(likelihood):
    model, x = make_model(likelihood, (6,)), rows(3)
    if likelihood == "bernoulli":
        x = (x.sigmoid() - model.likelihood.location) / model.likelihood.scale
    with torch.no_grad():
        mu, _ = model.encode(Minibatch(x))
        factor = linearised_posterior(model, mu, Minibatch(x))
        total = np.zeros(3)
        for sign, j in product((-1.0, 1.0), range(D)):
            z = mu + sign * D**0.5 * factor[:, :, j]
            total += model.likelihood.log_prob(x, model.decode(z)).double().numpy() / (2 * D)
        actual = score(model, Minibatch(x))
    F, m = factor.double().numpy(), mu.double().numpy()
    covariance = F @ F.transpose(0, 2, 1)
    trace = np.trace(covariance, axis1=1, axis2=2)
    kl = 0.5 * (trace + (m**2).sum(axis=1) - D - np.linalg.slogdet(covariance)[1])
    assert_allclose(actual, total - kl, rtol=1e-4)


@pytest.mark.parametrize("steepness", [1.0, 3.0, 10.0])
def test_score_of_a_wide_decoder_of_low_rank(steepness):
    # A noiseless table of rank 2: the precision J^T W J has 8 eigenvalues of 0, so
    # that of the posterior spans 1 to 1e7, more than float32 can factorise.
    n_features, n_components = 784, 10
    generator = torch.Generator().manual_seed(0)
    table = Table(np.random.default_rng(0).normal(size=(50, n_features)))
    scaling = FeatureScaling.measure(table)
    architecture = Architecture(n_features, n_components, (), "relu", "gaussian", 0)
    model = build_model(architecture, scaling, generator).eval()
    loadings = torch.randn((n_features, 2), generator=generator)
    loadings = steepness * loadings @ torch.randn((2, n_components), generator=generator)
    with torch.no_grad():
        model.decoder[0].weight.copy_(loadings)
    model.likelihood.set_noise_variance(torch.zeros(n_features))
    set_exact_posterior(model)
    x = torch.randn((4, n_components), generator=generator) @ loadings.T / steepness
    x += 0.1 * torch.randn((4, n_features), generator=generator)
    with torch.no_grad():
        assert_allclose(score(model, Minibatch(x)), log_marginal(model, x), rtol=1e-4)


def test_score_of_a_row_does_not_depend_on_the_others():
    model, x = make_model(hidden=(6,)), rows()
    with torch.no_grad():
        together = score(model, Minibatch(x))
        alone = torch.cat([score(model, Minibatch(row[None])) for row in x])
    assert_allclose(together, alone, rtol=1e-5)
