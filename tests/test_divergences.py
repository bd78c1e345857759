from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from skhebae.divergences import (
    MULTIQUADRATIC_SCALES,
    cholesky_factor,
    diagonal_kl_to_standard,
    gaussian_kl_to_standard,
    in_double,
    minibatch_moments,
    multiquadratic_mmd,
    regularised_covariance,
)

SEEDS = st.integers(0, 2**32 - 1)


@st.composite
def awkward_codes(draw):
    """Codes whose sample covariance is often singular, at any scale."""
    n_rows, n_components = draw(st.integers(1, 12)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(SEEDS))
    codes = rng.standard_normal((n_rows, n_components))
    kind = draw(st.sampled_from(["free", "duplicated", "collinear", "constant"]))
    if kind == "duplicated":
        codes = codes[rng.integers(0, max(1, n_rows // 2), n_rows)]
    elif kind == "collinear":
        codes = np.outer(codes[:, 0], rng.standard_normal(n_components)) + codes[0]
    elif kind == "constant":
        codes = np.tile(codes[:1], (n_rows, 1))
    codes = codes * 10.0 ** draw(st.floats(-6.0, 6.0))
    return torch.from_numpy(codes).to(draw(st.sampled_from([torch.float32, torch.float64])))


def random_gaussians(n, d, seed=0):
    """Means (n, d) and lower Cholesky factors (n, d, d), float64."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn((n, d, d), generator=generator, dtype=torch.float64)
    covariance = root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    mean = torch.randn((n, d), generator=generator, dtype=torch.float64)
    return mean, torch.linalg.cholesky(covariance)


def hebae_penalty(mu, pseudo_rows=1.0):
    mean, covariance = minibatch_moments(mu)
    covariance = regularised_covariance(covariance, len(mu), pseudo_rows)
    return gaussian_kl_to_standard(mean, cholesky_factor(covariance))


@pytest.mark.parametrize(("n_rows", "n_components"), [(2, 1), (5, 3), (3, 7), (200, 4)])
def test_minibatch_moments_are_numpys(n_rows, n_components):
    mu = np.random.default_rng(0).normal(3.0, 2.0, (n_rows, n_components))
    mean, covariance = minibatch_moments(torch.from_numpy(mu))
    assert_allclose(mean, mu.mean(axis=0), rtol=1e-12)
    expected = np.cov(mu, rowvar=False, ddof=1).reshape(n_components, n_components)
    assert_allclose(covariance, expected, rtol=1e-10, atol=1e-12)


def test_one_row_has_covariance_zero():
    mu = torch.tensor([[3.0, -1.0]])
    mean, covariance = minibatch_moments(mu)
    assert torch.equal(mean, mu[0])
    assert torch.equal(covariance, torch.zeros(2, 2))


@settings(max_examples=50, deadline=None)
@given(codes=awkward_codes(), pseudo_rows=st.sampled_from([0.5, 1.0, 10.0]))
def test_regularised_covariance_is_positive_definite(codes, pseudo_rows):
    mean, sample_covariance = minibatch_moments(in_double(codes))
    covariance = regularised_covariance(sample_covariance, len(codes), pseudo_rows)
    size = float(covariance.abs().max())
    assert_allclose(covariance, covariance.T, rtol=0.0, atol=1e-12 * size)
    factor, info = torch.linalg.cholesky_ex(covariance)
    assert int(info) == 0
    assert float(factor.diagonal().min()) > 0.0
    assert_allclose(factor @ factor.T, covariance, rtol=0.0, atol=1e-12 * size)
    assert np.isfinite(float(gaussian_kl_to_standard(mean, factor)))


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, n_rows=st.integers(2, 40), d=st.integers(1, 5), nu=st.floats(1e-3, 1e3))
def test_regularised_covariance_is_the_weighted_mean_of_sample_and_prior(seed, n_rows, d, nu):
    codes = np.random.default_rng(seed).standard_normal((n_rows, d))
    sample = np.cov(codes, rowvar=False).reshape(d, d)
    share = nu / (nu + n_rows - 1)
    actual = regularised_covariance(torch.from_numpy(sample), n_rows, nu)
    assert_allclose(actual, share * np.eye(d) + (1.0 - share) * sample, rtol=1e-10, atol=1e-13)


def test_regularised_covariance_limits():
    codes = torch.from_numpy(np.random.default_rng(0).standard_normal((50, 4)))
    _, sample = minibatch_moments(codes)
    assert_allclose(regularised_covariance(sample, 50, 1e-12), sample, atol=1e-12)
    identity = torch.eye(4, dtype=torch.float64)
    assert_allclose(regularised_covariance(sample, 50, 1e14), identity, atol=1e-11)
    # One row carries no information on a covariance: the prior, whatever nu.
    _, nothing = minibatch_moments(codes[:1])
    for pseudo_rows in (1e-6, 1.0, 100.0):
        assert_allclose(regularised_covariance(nothing, 1, pseudo_rows), identity, atol=1e-9)


def test_cholesky_factor_of_a_nonfinite_covariance_does_not_raise():
    covariance = torch.full((3, 3), float("nan"), dtype=torch.float64)
    mean = torch.zeros(3, dtype=torch.float64)
    assert torch.isnan(gaussian_kl_to_standard(mean, cholesky_factor(covariance)))


@pytest.mark.parametrize("d", [1, 2, 7])
def test_gaussian_kl_is_that_of_torch_distributions(d):
    mean, factor = random_gaussians(11, d)
    standard = MultivariateNormal(mean.new_zeros(d), torch.eye(d, dtype=torch.float64))
    expected = kl_divergence(MultivariateNormal(mean, scale_tril=factor), standard)
    batched = gaussian_kl_to_standard(mean, factor)
    assert_allclose(batched, expected, rtol=0.0, atol=1e-10 * float(expected.max()))
    one_by_one = [float(gaussian_kl_to_standard(m, f)) for m, f in zip(mean, factor, strict=True)]
    assert_allclose(batched, one_by_one, rtol=1e-12)


def test_divergences_vanish_at_the_prior():
    zero, identity = torch.zeros(5, dtype=torch.float64), torch.eye(5, dtype=torch.float64)
    assert float(gaussian_kl_to_standard(zero, identity)) == 0.0
    assert float(diagonal_kl_to_standard(zero, zero)) == 0.0


@settings(max_examples=50, deadline=None)
@given(seed=SEEDS, d=st.integers(1, 6), log_size=st.floats(-4.0, 4.0))
def test_kls_are_not_negative(seed, d, log_size):
    mean, factor = random_gaussians(3, d, seed)
    size = float(np.exp(log_size))
    assert float(gaussian_kl_to_standard(mean, size * factor).min()) >= -1e-12
    log_var = 2.0 * (size * factor.diagonal(dim1=1, dim2=2)).log()
    assert float(diagonal_kl_to_standard(mean, log_var).min()) >= -1e-12


@pytest.mark.parametrize(("n_rows", "d"), [(8, 3), (3, 4), (1, 2)])
def test_gradient_through_moments_shrinkage_factor_and_kl(n_rows, d):
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn((n_rows, d), generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(hebae_penalty, (mu,))


def test_gradient_of_the_penalty_is_the_analytic_one():
    # d KL / d mu_i = m / B + (I - S^-1)(mu_i - m) / (B - 1), as nu -> 0
    generator = torch.Generator().manual_seed(0)
    mu = torch.randn((20, 3), generator=generator, dtype=torch.float64, requires_grad=True)
    hebae_penalty(mu, pseudo_rows=1e-10).backward()
    rows = mu.detach().numpy()
    mean, inverse = rows.mean(axis=0), np.linalg.inv(np.cov(rows, rowvar=False))
    expected = mean / 20 + (rows - mean) @ (np.eye(3) - inverse) / 19
    assert_allclose(mu.grad, expected, atol=1e-9)


def test_diagonal_kl_is_that_of_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, log_var = torch.randn((2, 9, 4), generator=generator, dtype=torch.float64)
    posterior = Normal(mean, (0.5 * log_var).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    assert_allclose(diagonal_kl_to_standard(mean, log_var), expected.sum(dim=1), atol=1e-10)
    assert torch.autograd.gradcheck(
        diagonal_kl_to_standard, (mean.requires_grad_(), log_var.requires_grad_())
    )


def test_diagonal_kl_is_the_full_one_of_a_diagonal_covariance():
    generator = torch.Generator().manual_seed(1)
    mean, log_var = torch.randn((2, 6, 3), generator=generator, dtype=torch.float64)
    full = gaussian_kl_to_standard(mean, torch.diag_embed((0.5 * log_var).exp()))
    assert_allclose(diagonal_kl_to_standard(mean, log_var), full, atol=1e-12)


def brute_force_mmd(codes, prior_draws):
    n, d = codes.shape

    def kernel(a, b):
        sizes = [2.0 * d * s for s in MULTIQUADRATIC_SCALES]
        return sum(size / (size + np.sum((a - b) ** 2)) for size in sizes)

    total = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                within = kernel(codes[i], codes[j]) + kernel(prior_draws[i], prior_draws[j])
                total += within / (n * (n - 1))
            total -= 2.0 * kernel(codes[i], prior_draws[j]) / n**2
    return total


@pytest.mark.parametrize(("n_rows", "d"), [(2, 1), (7, 3), (12, 8)])
def test_mmd_is_the_double_sum(n_rows, d):
    rng = np.random.default_rng(0)
    codes, draws = rng.normal(1.0, 0.5, (n_rows, d)), rng.standard_normal((n_rows, d))
    actual = multiquadratic_mmd(torch.from_numpy(codes), torch.from_numpy(draws))
    assert_allclose(actual, brute_force_mmd(codes, draws), rtol=1e-10)


def test_mmd_of_the_prior_with_itself_is_unbiased():
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(600):
        codes, draws = torch.randn((2, 16, 3), generator=generator)
        values.append(float(multiquadratic_mmd(codes, draws)))
    assert min(values) < 0.0 < max(values)
    standard_error = np.std(values, ddof=1) / len(values) ** 0.5
    assert abs(np.mean(values)) < 3.0 * standard_error


@pytest.mark.parametrize(("shift", "size"), [(1.0, 1.0), (0.0, 0.2), (0.0, 3.0)])
def test_mmd_sees_shifted_and_rescaled_codes(shift, size):
    generator = torch.Generator().manual_seed(0)
    codes, draws = torch.randn((2, 256, 3), generator=generator)
    at_prior = abs(float(multiquadratic_mmd(codes, draws)))
    assert float(multiquadratic_mmd(shift + size * codes, draws)) > max(10.0 * at_prior, 0.05)


def test_gradient_of_mmd():
    generator = torch.Generator().manual_seed(0)
    codes, draws = torch.randn((2, 6, 2), generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(multiquadratic_mmd, (codes.requires_grad_(), draws))


def test_gradient_of_mmd_at_coincident_codes_is_finite():
    codes = torch.zeros((4, 2), requires_grad=True)
    draws = torch.randn((4, 2), generator=torch.Generator().manual_seed(0))
    multiquadratic_mmd(codes, draws).backward()
    assert torch.isfinite(codes.grad).all()


def test_factor_of_an_indefinite_matrix_is_nan():
    covariance = torch.ones(4, 4, dtype=torch.float64)
    covariance[2, 2] -= 1e-3
    assert cholesky_factor(covariance).isnan().any()


def test_mmd_keeps_its_digits_far_out():
    rng = torch.Generator().manual_seed(0)
    codes, draws = (torch.randn(64, 3, generator=rng) for _ in range(2))
    near = multiquadratic_mmd(codes.double(), draws.double())
    far = multiquadratic_mmd(codes + 1e4, draws + 1e4)
    assert float(far) == pytest.approx(float(near), abs=5e-2)
