"""Priors against scipy, torch.distributions and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, stats
from torch.distributions import MultivariateNormal, kl_divergence

from skhebae.prior import Prior, StandardNormalPrior


class PlainPrior(Prior):
    """N(0, I), by nothing but the methods that a prior must have."""

    def log_prob(self, z):
        return standard(self.n_components).log_prob(z)

    def sample(self, n_samples, rng):
        return rng.standard_normal((n_samples, self.n_components))

    def precision(self, z):
        return torch.eye(self.n_components, dtype=torch.float64).expand(len(z), -1, -1)

    def gaussian_kl(self, mean, factor):
        posterior = MultivariateNormal(mean, scale_tril=factor)
        return kl_divergence(posterior, standard(self.n_components))


PRIORS = pytest.mark.parametrize("cls", [StandardNormalPrior, PlainPrior])
SIZES = st.integers(1, 6)
SEEDS = st.integers(0, 2**32 - 1)


def standard(n_components):
    zero = torch.zeros(n_components, dtype=torch.float64)
    return MultivariateNormal(zero, torch.eye(n_components, dtype=torch.float64))


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def lower(n_components, seed=0, n_rows=()):
    """Lower factors with a positive diagonal, of unequal widths."""
    root = 0.5 * normal(*n_rows, n_components, n_components, seed=seed)
    return root.tril(-1) + root.diagonal(dim1=-2, dim2=-1).exp().diag_embed()


@PRIORS
@settings(deadline=None)
@given(d=SIZES, seed=SEEDS)
def test_log_prob_is_scipys(cls, d, seed):
    prior, z = cls(d), 2.0 * normal(3, 4, d, seed=seed)
    expected = stats.multivariate_normal(np.zeros(d), np.eye(d)).logpdf(z.numpy())
    assert_allclose(prior.log_prob(z), expected, rtol=1e-12)
    assert prior.log_prob(z).shape == (3, 4)
    kernel = prior.log_kernel(z)
    assert_allclose(kernel - prior.log_normaliser, prior.log_prob(z), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("d", [1, 2])
def test_density_integrates_to_one(d):
    prior = StandardNormalPrior(d)

    def density(*z):
        return float(prior.log_prob(torch.tensor(z, dtype=torch.float64)).exp())

    total, _ = integrate.nquad(density, [(-9.0, 9.0)] * d, opts={"epsabs": 1e-7})
    assert total == pytest.approx(1.0, abs=1e-6)


@PRIORS
@settings(deadline=None)
@given(d=SIZES, seed=SEEDS)
def test_gradient_is_that_of_the_density_by_finite_differences(cls, d, seed):
    prior, z, step = cls(d), 2.0 * normal(5, d, seed=seed), 1e-5
    with torch.no_grad():  # as callers do
        gradient = prior.gradient(z)
    assert not gradient.requires_grad
    for j, direction in enumerate(step * torch.eye(d, dtype=torch.float64)):
        difference = prior.log_prob(z + direction) - prior.log_prob(z - direction)
        assert_allclose(gradient[:, j], difference / (2.0 * step), atol=1e-7)


@PRIORS
def test_precision_is_the_negative_hessian(cls):
    prior, z = cls(3), normal(4, 3)
    precision = prior.precision(z.float())
    assert precision.dtype == torch.float64
    assert precision.shape == (4, 3, 3)
    for i in range(4):
        hessian = torch.autograd.functional.hessian(prior.log_prob, z[i])
        assert_allclose(precision[i], -hessian, atol=1e-12)


@PRIORS
@settings(deadline=None)
@given(d=SIZES, seed=SEEDS)
def test_divergence_of_a_gaussian_is_torchs(cls, d, seed):
    mean, factor = normal(5, d, seed=seed), lower(d, seed, (5,))
    expected = kl_divergence(MultivariateNormal(mean, scale_tril=factor), standard(d))
    prior = cls(d)
    assert_allclose(prior.gaussian_kl(mean, factor), expected, rtol=1e-9, atol=1e-12)
    # One Gaussian alone, as the moments of codes are.
    assert_allclose(prior.gaussian_kl(mean[0], factor[0]), expected[0], rtol=1e-9, atol=1e-12)
    assert prior.gaussian_kl(mean[0], factor[0]).shape == ()


@PRIORS
@settings(deadline=None)
@given(d=SIZES, seed=SEEDS)
def test_other_divergences_are_those_of_their_gaussians(cls, d, seed):
    prior, mean = cls(d), normal(5, d, seed=seed)
    log_var, factor = normal(5, d, seed=seed + 1), lower(d, seed)
    spread = normal(5, d, seed=seed + 2).exp()
    close = {"rtol": 1e-9, "atol": 1e-12}
    diagonal = MultivariateNormal(mean, torch.diag_embed(log_var.exp()))
    actual = prior.diagonal_kl(mean, log_var)
    assert_allclose(actual, kl_divergence(diagonal, standard(d)), **close)
    factors = (0.5 * log_var).exp().diag_embed()
    assert_allclose(actual, prior.gaussian_kl(mean, factors), **close)
    factors = spread.diag_embed() @ factor
    actual = prior.scaled_kl(mean, spread, factor)
    scaled = MultivariateNormal(mean, scale_tril=factors)
    assert_allclose(actual, kl_divergence(scaled, standard(d)), **close)
    assert_allclose(actual, prior.gaussian_kl(mean, factors), **close)
    # The two agree where both apply.
    common = torch.eye(d, dtype=torch.float64)
    of_diagonal = prior.diagonal_kl(mean, 2.0 * spread.log())
    assert_allclose(prior.scaled_kl(mean, spread, common), of_diagonal, **close)


def test_a_point_is_infinitely_far_from_the_prior():
    prior = StandardNormalPrior(2)
    assert prior.gaussian_kl(torch.zeros(3, 2), torch.zeros(3, 2, 2)).tolist() == [torch.inf] * 3


@settings(deadline=None)
@given(d=SIZES, seed=SEEDS)
def test_what_follows_from_the_abstract_methods_is_what_overrides_it(d, seed):
    plain, quick = PlainPrior(d), StandardNormalPrior(d)
    z, log_var = normal(5, d, seed=seed), normal(5, d, seed=seed + 1)
    for name in ("log_kernel", "gradient", "diagonal_kl", "scaled_kl", "from_normal"):
        assert name not in vars(PlainPrior)
        assert name in vars(StandardNormalPrior)
    close = {"rtol": 1e-9, "atol": 1e-12}
    assert plain.log_normaliser == 0.0
    difference = plain.log_kernel(z) - quick.log_kernel(z)
    assert_allclose(difference, plain.log_normaliser - quick.log_normaliser, **close)
    assert_allclose(plain.gradient(z), quick.gradient(z), **close)
    assert_allclose(plain.diagonal_kl(z, log_var), quick.diagonal_kl(z, log_var), **close)
    spread, factor = log_var.exp(), lower(d, seed)
    scaled = quick.scaled_kl(z, spread, factor)
    assert_allclose(plain.scaled_kl(z, spread, factor), scaled, **close)


def test_divergences_have_gradients_by_finite_differences():
    mean, log_var, factor = normal(4, 3), normal(4, 3, seed=1), lower(3, 2)
    for prior in (StandardNormalPrior(3), PlainPrior(3)):
        inputs = [part.clone().requires_grad_() for part in (mean, log_var)]
        assert torch.autograd.gradcheck(prior.diagonal_kl, inputs)
        inputs = [part.clone().requires_grad_() for part in (mean, log_var.exp())]
        assert torch.autograd.gradcheck(lambda *a, p=prior: p.scaled_kl(*a, factor), inputs)


def test_samples_have_the_moments_of_the_prior():
    n_samples, d = 40_000, 3
    draws = StandardNormalPrior(d).sample(n_samples, np.random.RandomState(0))
    assert draws.shape == (n_samples, d)
    assert draws.dtype == np.float64
    # Five standard errors.
    assert (np.abs(draws.mean(axis=0)) < 5.0 / n_samples**0.5).all()
    error = np.sqrt((1.0 + np.eye(d)) / n_samples)
    assert (np.abs(np.cov(draws, rowvar=False) - np.eye(d)) < 5.0 * error).all()
    assert stats.kstest(draws.ravel(), "norm").pvalue > 1e-3
    again = StandardNormalPrior(d).sample(n_samples, np.random.RandomState(0))
    assert np.array_equal(draws, again)


def test_normal_draws_are_draws_from_the_standard_normal_prior():
    noise = normal(5, 3)
    assert torch.equal(StandardNormalPrior(3).from_normal(noise), noise)


def test_a_prior_without_from_normal_says_so():
    with pytest.raises(TypeError, match="PlainPrior does not define from_normal"):
        PlainPrior(3).from_normal(normal(5, 3))


def test_a_prior_must_have_the_abstract_methods():
    with pytest.raises(TypeError, match="abstract"):
        Prior(3)
