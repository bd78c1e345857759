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
    group_kl_to_standard,
    in_double,
    minibatch_moments,
    multiquadratic_mmd,
    regularised_covariance,
    scaled_kl_to_standard,
)

SEEDS = st.integers(0, 2**32 - 1)
# Large tables are drawn, but not every time.
ROWS = st.integers(2, 12) | st.integers(13, 512)
ROWS_OR_ONE = st.just(1) | ROWS
DIMENSIONS = st.integers(1, 6) | st.integers(7, 64)
PSEUDO_ROWS = st.floats(-3.0, 3.0).map(lambda power: 10.0**power)
KINDS = ("free", "duplicated", "collinear", "constant", "rank-deficient")
# As many examples as the profile says, 100 by default.
EXAMPLES = settings(deadline=None)


def codes_of_kind(kind, n_rows, d, rng):
    """Codes of unit size, float64, whose sample covariance is singular but for "free"."""
    codes = rng.standard_normal((n_rows, d))
    if kind == "duplicated":
        return codes[rng.integers(0, max(1, n_rows // 2), n_rows)]
    if kind == "collinear":
        return np.outer(codes[:, 0], rng.standard_normal(d)) + codes[0]
    if kind == "constant":
        return np.tile(codes[:1], (n_rows, 1))
    if kind == "rank-deficient":
        rank = 1 + d // 2
        return codes[:, :rank] @ rng.standard_normal((rank, d))
    return codes


@st.composite
def awkward_codes(draw, rows=ROWS_OR_ONE):
    """Codes whose sample covariance is often singular, at any scale."""
    n_rows, d, kind = draw(rows), draw(DIMENSIONS), draw(st.sampled_from(KINDS))
    rng = np.random.default_rng(draw(SEEDS))
    codes = codes_of_kind(kind, n_rows, d, rng) * 10.0 ** draw(st.floats(-6.0, 6.0))
    return torch.from_numpy(codes).to(draw(st.sampled_from([torch.float32, torch.float64])))


def rotation(d, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))[0]


def roundings(codes):
    """Relative error of a sum over rows followed by one over components.

    ``n u / (1 - n u)`` for n additions in any order, u half of eps (Higham,
    Accuracy and Stability of Numerical Algorithms, section 3.1).
    """
    return (sum(codes.shape) + 8) * torch.finfo(codes.dtype).eps


def moment_errors(codes, size):
    """Bounds on what rounding does to the moments of codes no longer than `size`.

    A code is known to ``e = roundings * size``, so is the mean, and a
    covariance changes by ``2 e spread + e^2``; twice that for two computations.
    """
    error = roundings(codes) * size
    spread = float(codes.double().var(dim=0).sum().sqrt()) if len(codes) > 1 else 0.0
    return 2.0 * error, 4.0 * error * (spread + error)


def length(codes):
    return float(codes.double().norm(dim=1).max())


def numpy_moments(codes):
    codes = codes.double().numpy()
    d = codes.shape[1]
    return codes.mean(axis=0), np.cov(codes, rowvar=False, ddof=1).reshape(d, d)


def random_gaussians(n, d, seed=0):
    """Means (n, d) and lower Cholesky factors (n, d, d), float64."""
    generator = torch.Generator().manual_seed(seed)
    root = torch.randn((n, d, d), generator=generator, dtype=torch.float64)
    covariance = root @ root.mT + 0.1 * torch.eye(d, dtype=torch.float64)
    mean = torch.randn((n, d), generator=generator, dtype=torch.float64)
    return mean, torch.linalg.cholesky(covariance)


def conditioned_covariance(d, condition, seed=0):
    """Covariance with eigenvalues from ``condition^-1/2`` to ``condition^1/2``."""
    axes = rotation(d, seed)
    return (axes * np.geomspace(condition**-0.5, condition**0.5, d)) @ axes.T


def standard_normal(d):
    return MultivariateNormal(torch.zeros(d).double(), torch.eye(d).double())


def hebae_penalty(mu, pseudo_rows=1.0):
    mean, covariance = minibatch_moments(mu)
    covariance = regularised_covariance(covariance, len(mu), pseudo_rows)
    return gaussian_kl_to_standard(mean, cholesky_factor(covariance))


# Minibatch moments.


@EXAMPLES
@given(codes=awkward_codes(rows=ROWS))
def test_minibatch_moments_are_numpys(codes):
    mean, covariance = minibatch_moments(codes)
    assert mean.dtype == covariance.dtype == codes.dtype
    expected_mean, expected_covariance = numpy_moments(codes)
    of_mean, of_covariance = moment_errors(codes, length(codes))
    assert_allclose(mean, expected_mean, rtol=0.0, atol=of_mean)
    assert_allclose(covariance, expected_covariance, rtol=0.0, atol=of_covariance)


@EXAMPLES
@given(codes=awkward_codes(rows=ROWS), seed=SEEDS)
def test_minibatch_moments_do_not_depend_on_the_order_of_rows(codes, seed):
    mean, covariance = minibatch_moments(codes)
    order = np.random.default_rng(seed).permutation(len(codes))
    shuffled_mean, shuffled_covariance = minibatch_moments(codes[order])
    of_mean, of_covariance = moment_errors(codes, length(codes))
    assert_allclose(shuffled_mean, mean, rtol=0.0, atol=of_mean)
    assert_allclose(shuffled_covariance, covariance, rtol=0.0, atol=of_covariance)


@EXAMPLES
@given(codes=awkward_codes(rows=ROWS), seed=SEEDS, log_factor=st.floats(-3.0, 3.0))
def test_minibatch_moments_follow_rotation_shift_and_scaling(codes, seed, log_factor):
    d, factor = codes.shape[1], 10.0**log_factor
    axes = rotation(d, seed)
    shift = length(codes) * np.random.default_rng(seed).standard_normal(d)
    moved = factor * (codes @ torch.from_numpy(axes).to(codes) + torch.from_numpy(shift).to(codes))
    mean, covariance = minibatch_moments(moved)
    old_mean, old_covariance = numpy_moments(codes)
    size = factor * (length(codes) + np.linalg.norm(shift))
    of_mean, of_covariance = moment_errors(moved, size)
    assert_allclose(mean, factor * (old_mean @ axes + shift), rtol=0.0, atol=of_mean)
    expected = factor**2 * axes.T @ old_covariance @ axes
    assert_allclose(covariance, expected, rtol=0.0, atol=of_covariance)


def test_one_row_has_covariance_zero():
    mu = torch.tensor([[3.0, -1.0]])
    mean, covariance = minibatch_moments(mu)
    assert torch.equal(mean, mu[0])
    assert torch.equal(covariance, torch.zeros(2, 2))


# Regularised covariance.


@EXAMPLES
@given(codes=awkward_codes(), pseudo_rows=PSEUDO_ROWS)
def test_regularised_covariance_is_positive_definite(codes, pseudo_rows):
    codes = in_double(codes)
    mean, sample = minibatch_moments(codes)
    covariance = regularised_covariance(sample, len(codes), pseudo_rows)
    # Forming a matrix and factoring it are both exact for a matrix this near in
    # norm (Higham, theorems 3.5 and 10.3). So if the smallest eigenvalue, which
    # is at least the prior's share, is above it, the matrix is definite as it is.
    error = 2.0 * roundings(codes) * float(covariance.trace())
    share = pseudo_rows / (pseudo_rows + len(codes) - 1)
    assert_allclose(covariance, covariance.T, rtol=0.0, atol=error)
    if share > error:
        assert float(torch.linalg.eigvalsh(covariance)[0]) > 0.0
    # The factor exists even where rounding has made it indefinite.
    factor = cholesky_factor(covariance)
    assert float(factor.diagonal().min()) > 0.0
    given_back = len(covariance) * np.finfo(float).eps * float(covariance.trace())
    assert_allclose(factor @ factor.T, covariance, rtol=0.0, atol=error + 2.0 * given_back)
    assert np.isfinite(float(gaussian_kl_to_standard(mean, factor)))


@EXAMPLES
@given(codes=awkward_codes(), pseudo_rows=PSEUDO_ROWS)
def test_eigenvalues_stay_between_those_of_the_sample_and_the_prior(codes, pseudo_rows):
    codes = in_double(codes)
    _, sample = minibatch_moments(codes)
    actual = torch.linalg.eigvalsh(regularised_covariance(sample, len(codes), pseudo_rows))
    of_sample = torch.linalg.eigvalsh(sample)
    error = roundings(codes) * float(sample.trace() + codes.shape[1])
    assert float(actual[0]) >= min(1.0, float(of_sample[0])) - error
    assert float(actual[-1]) <= max(1.0, float(of_sample[-1])) + error


@EXAMPLES
@given(codes=awkward_codes(rows=ROWS), pseudo_rows=PSEUDO_ROWS)
def test_regularised_covariance_is_the_weighted_mean_of_sample_and_prior(codes, pseudo_rows):
    _, sample = numpy_moments(codes)
    share = pseudo_rows / (pseudo_rows + len(codes) - 1)
    actual = regularised_covariance(torch.from_numpy(sample), len(codes), pseudo_rows)
    expected = share * np.eye(len(sample)) + (1.0 - share) * sample
    # 1 - share loses what the difference cancels; the sample's part has no other error.
    atol = 8.0 * np.finfo(float).eps * max(1.0, np.abs(sample).max())
    assert_allclose(actual, expected, rtol=1e-12, atol=atol)


@EXAMPLES
@given(codes=awkward_codes(), nus=st.tuples(PSEUDO_ROWS, PSEUDO_ROWS).map(sorted))
def test_more_pseudo_rows_move_every_eigenvalue_towards_the_prior(codes, nus):
    codes = in_double(codes)
    _, sample = minibatch_moments(codes)
    fewer, more = (
        torch.linalg.eigvalsh(regularised_covariance(sample, len(codes), nu)) - 1.0 for nu in nus
    )
    error = roundings(codes) * float(sample.trace() + codes.shape[1])
    assert (more.abs() <= fewer.abs() + error).all()
    # None steps over the prior.
    assert (fewer * more >= -error * fewer.abs().clamp_min(error)).all()


@EXAMPLES
@given(codes=awkward_codes(), pseudo_rows=PSEUDO_ROWS, seed=SEEDS)
def test_regularised_covariance_rotates_with_the_codes(codes, pseudo_rows, seed):
    codes = in_double(codes)
    axes = torch.from_numpy(rotation(codes.shape[1], seed))
    covariance = regularised_covariance(minibatch_moments(codes)[1], len(codes), pseudo_rows)
    _, rotated_sample = minibatch_moments(codes @ axes)
    rotated = regularised_covariance(rotated_sample, len(codes), pseudo_rows)
    _, of_sample = moment_errors(codes, length(codes))
    # Two products with `axes`: relative errors of the identity's part too.
    error = of_sample + roundings(codes) * float(covariance.trace())
    assert_allclose(rotated, axes.T @ covariance @ axes, rtol=0.0, atol=error)


@EXAMPLES
@given(d=DIMENSIONS, extra=st.integers(1, 64), seed=SEEDS, log_nu=st.floats(-12.0, -3.0))
def test_few_pseudo_rows_leave_the_sample_covariance(d, extra, seed, log_nu):
    n_rows, nu = d + extra, 10.0**log_nu
    codes = torch.from_numpy(np.random.default_rng(seed).standard_normal((n_rows, d)))
    _, sample = minibatch_moments(codes)
    difference = regularised_covariance(sample, n_rows, nu) - sample
    # Exactly nu / (nu + B - 1) of the way to the prior.
    far = float((sample - torch.eye(d)).abs().max())
    assert float(difference.abs().max()) <= nu / (n_rows - 1) * far + 1e-14 * (1.0 + far)


@EXAMPLES
@given(codes=awkward_codes(rows=st.just(1)), pseudo_rows=PSEUDO_ROWS)
def test_one_row_leaves_the_prior_whatever_its_weight(codes, pseudo_rows):
    _, nothing = minibatch_moments(codes)
    covariance = regularised_covariance(nothing, 1, pseudo_rows)
    assert torch.equal(covariance, torch.eye(codes.shape[1], dtype=codes.dtype))


def test_many_pseudo_rows_leave_the_prior():
    _, sample = minibatch_moments(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)))
    assert_allclose(regularised_covariance(sample.double(), 50, 1e14), np.eye(4), atol=1e-11)


def test_cholesky_factor_of_a_nonfinite_covariance_does_not_raise():
    covariance = torch.full((3, 3), float("nan"), dtype=torch.float64)
    mean = torch.zeros(3, dtype=torch.float64)
    assert torch.isnan(gaussian_kl_to_standard(mean, cholesky_factor(covariance)))


def test_factor_of_an_indefinite_matrix_is_nan():
    covariance = torch.ones(4, 4, dtype=torch.float64)
    covariance[2, 2] -= 1e-3
    assert cholesky_factor(covariance).isnan().any()


# Gradients of the penalty.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_rows", "d"), [(8, 3), (3, 4), (1, 2)])
def test_gradient_through_moments_shrinkage_factor_and_kl(n_rows, d, kind):
    codes = codes_of_kind(kind, n_rows, d, np.random.default_rng(0))
    assert torch.autograd.gradcheck(hebae_penalty, (torch.from_numpy(codes).requires_grad_(),))


@EXAMPLES
@given(codes=awkward_codes(), pseudo_rows=PSEUDO_ROWS)
def test_gradient_of_the_penalty_is_the_analytic_one(codes, pseudo_rows):
    # d KL / d mu_i = m / B + (I - S^-1) (mu_i - m) / (nu + B - 1), S the regularised one
    mu = in_double(codes).requires_grad_()
    n_rows, d = mu.shape
    penalty = hebae_penalty(mu, pseudo_rows)
    penalty.backward()
    rows = mu.detach().numpy()
    mean = rows.mean(axis=0)
    centred = rows - mean
    covariance = (pseudo_rows * np.eye(d) + centred.T @ centred) / (pseudo_rows + n_rows - 1)
    condition = np.linalg.cond(covariance)
    # Beyond this, rounding decides the smallest eigenvalue; see the test of definiteness.
    if condition * roundings(mu) * d < 1e-2:
        assert penalty.isfinite()
        assert mu.grad.isfinite().all()
        inverse = np.linalg.inv(covariance)
        expected = mean / n_rows + centred @ (np.eye(d) - inverse) / (pseudo_rows + n_rows - 1)
        # An inverse is known to roundings * condition * its norm.
        error = condition * roundings(mu) * np.linalg.norm(inverse, 2) * np.abs(centred).max() * d
        # A deviation from the mean is known to roundings * |mu|, all of it where rows are alike.
        error += roundings(mu) * np.abs(rows).max() * np.linalg.norm(np.eye(d) - inverse, 2)
        atol = 4.0 * (error / (pseudo_rows + n_rows - 1) + roundings(mu) * np.abs(rows).max())
        assert_allclose(mu.grad, expected, rtol=1e-9, atol=atol)


# Gaussian divergences.


@EXAMPLES
@given(d=DIMENSIONS, seed=SEEDS)
def test_gaussian_kl_is_that_of_torch_distributions(d, seed):
    mean, factor = random_gaussians(3, d, seed)
    expected = kl_divergence(MultivariateNormal(mean, scale_tril=factor), standard_normal(d))
    batched = gaussian_kl_to_standard(mean, factor)
    # Its largest term, a trace of d (d + 0.1), is 4000 at d = 64: 1e-10 in nats.
    assert_allclose(batched, expected, rtol=0.0, atol=1e-10)
    one_by_one = [float(gaussian_kl_to_standard(m, f)) for m, f in zip(mean, factor, strict=True)]
    assert_allclose(batched, one_by_one, rtol=1e-12)


def test_divergences_vanish_at_the_prior():
    for d in (1, 5, 64):
        for dtype in (torch.float32, torch.float64):
            zero, identity = torch.zeros(d, dtype=dtype), torch.eye(d, dtype=dtype)
            assert float(gaussian_kl_to_standard(zero, identity)) == 0.0
            assert float(diagonal_kl_to_standard(zero, zero)) == 0.0
            row = zero[None]
            assert float(scaled_kl_to_standard(row, torch.ones_like(row), identity)) == 0.0


@EXAMPLES
@given(seed=SEEDS, d=DIMENSIONS, log_size=st.floats(-4.0, 4.0), log_step=st.floats(-3.0, 0.0))
def test_kls_are_positive_away_from_the_prior(seed, d, log_size, log_step):
    mean, factor = random_gaussians(3, d, seed)
    size, step = float(np.exp(log_size)), 10.0**log_step
    # KL >= |m|^2 / 2, by the inequality x - 1 >= log x of each eigenvalue.
    shift = 0.5 * mean.square().sum(dim=1)
    scaled = size * factor
    error = 1e-15 * d * (d + scaled.square().sum(dim=(1, 2)))
    assert (gaussian_kl_to_standard(mean, scaled) >= shift - error).all()
    log_var = 2.0 * scaled.diagonal(dim1=1, dim2=2).log()
    error = 1e-15 * d * (d + log_var.exp().sum(dim=1))
    assert (diagonal_kl_to_standard(mean, log_var) >= shift - error).all()
    row_error = 1e-14 * d * (d + scaled[0].square().sum())
    row_kl = scaled_kl_to_standard(mean, torch.ones_like(mean), scaled[0])
    assert (row_kl >= shift - row_error).all()
    # One component's mean, or its deviation, a little off: not zero any more.
    zero, identity = torch.zeros(d, dtype=torch.float64), torch.eye(d, dtype=torch.float64)
    off = zero.clone()
    off[0] = step
    assert_allclose(gaussian_kl_to_standard(off, identity), 0.5 * step**2, rtol=1e-8)
    wider = torch.diag(1.0 + off)
    expected = 0.5 * ((1.0 + step) ** 2 - 1.0) - np.log1p(step)
    assert expected > 0.0
    assert_allclose(gaussian_kl_to_standard(zero, wider), expected, rtol=1e-6)


@EXAMPLES
@given(seed=SEEDS, d=DIMENSIONS, log_condition=st.floats(0.0, 6.0))
def test_gaussian_kl_does_not_change_under_rotation(seed, d, log_condition):
    covariance = torch.from_numpy(conditioned_covariance(d, 10.0**log_condition, seed))
    mean, axes = torch.from_numpy(rotation(d, seed)[0]), torch.from_numpy(rotation(d, seed + 1))
    actual = gaussian_kl_to_standard(axes @ mean, cholesky_factor(axes @ covariance @ axes.T))
    expected = gaussian_kl_to_standard(mean, cholesky_factor(covariance))
    # log det moves by d roundings of the largest eigenvalue over the smallest.
    assert_allclose(actual, expected, rtol=1e-12, atol=1e-15 * d**2 * 10.0**log_condition)


@EXAMPLES
@given(seed=SEEDS, d=DIMENSIONS, log_condition=st.floats(0.0, 6.0))
def test_gaussian_kl_in_single_precision_keeps_four_digits(seed, d, log_condition):
    # The largest eigenvalue is 1, lest the trace hide what happens to log det.
    covariance = conditioned_covariance(d, 10.0**log_condition, seed)
    covariance = torch.from_numpy(covariance / np.linalg.norm(covariance, 2))
    mean, factor = torch.from_numpy(rotation(d, seed)[0]), cholesky_factor(covariance)
    expected = float(gaussian_kl_to_standard(mean, factor))
    actual = gaussian_kl_to_standard(mean.float(), factor.float())
    assert actual.dtype == torch.float32
    assert_allclose(float(actual), expected, rtol=1e-4)


@EXAMPLES
@given(seed=SEEDS, d=st.integers(1, 12), log_scale=st.floats(-3.0, 3.0))
def test_theorem_1_the_noise_scale_cancels(seed, d, log_scale):
    # KL(N(mu, D S D) || N(mu, D^2)) = (tr S - d - log det S) / 2, whatever D.
    mean, factor = (tensor[0] for tensor in random_gaussians(1, d, seed))
    rng = np.random.default_rng(seed)
    spread = torch.from_numpy(10.0**log_scale * np.exp(rng.standard_normal(d)))
    posterior = MultivariateNormal(mean, scale_tril=spread[:, None] * factor)
    prior = MultivariateNormal(mean, scale_tril=spread.diag())
    actual = gaussian_kl_to_standard(torch.zeros_like(mean), factor)
    assert_allclose(actual, kl_divergence(posterior, prior), rtol=1e-10, atol=1e-10)
    covariance = (factor @ factor.T).numpy()
    by_hand = 0.5 * (np.trace(covariance) - d - np.linalg.slogdet(covariance)[1])
    # S was at least 0.1 I, and its trace is about d^2.
    assert_allclose(actual, by_hand, rtol=1e-10, atol=1e-10)


@EXAMPLES
@given(seed=SEEDS, d=DIMENSIONS, size=st.floats(0.01, 10.0))
def test_diagonal_kl_is_that_of_torch_distributions(seed, d, size):
    rng = np.random.default_rng(seed)
    mean, log_var = torch.from_numpy(size * rng.standard_normal((2, 5, d)))
    posterior = Normal(mean, (0.5 * log_var).exp())
    expected = kl_divergence(posterior, Normal(torch.zeros_like(mean), torch.ones_like(mean)))
    actual = diagonal_kl_to_standard(mean, log_var)
    assert_allclose(actual, expected.sum(dim=1), rtol=1e-12, atol=1e-10)


@EXAMPLES
@given(seed=SEEDS, d=DIMENSIONS)
def test_diagonal_kl_is_the_full_one_of_a_diagonal_covariance(seed, d):
    mean, log_var = torch.from_numpy(np.random.default_rng(seed).standard_normal((2, 6, d)))
    full = gaussian_kl_to_standard(mean, torch.diag_embed((0.5 * log_var).exp()))
    assert_allclose(diagonal_kl_to_standard(mean, log_var), full, atol=1e-12 * d)


@EXAMPLES
@given(seed=SEEDS, d=st.integers(1, 16), log_scale=st.floats(-6.0, 2.0))
def test_scaled_kl_is_that_of_torch_distributions(seed, d, log_scale):
    means, factors = random_gaussians(4, d, seed)
    factor, rng = factors[0], np.random.default_rng(seed)
    spread = torch.from_numpy(10.0**log_scale * np.exp(rng.standard_normal((4, d))))
    posterior = MultivariateNormal(means, scale_tril=spread[:, :, None] * factor)
    expected = kl_divergence(posterior, standard_normal(d))
    actual = scaled_kl_to_standard(means, spread, factor)
    assert_allclose(actual, expected, rtol=1e-12, atol=1e-10)
    # Noise of the prior's shape is the VAE's case, a spread of 1 that of a Gaussian.
    alone = scaled_kl_to_standard(means, spread, torch.eye(d, dtype=torch.float64))
    of_vae = diagonal_kl_to_standard(means, 2.0 * spread.log())
    assert_allclose(alone, of_vae, rtol=1e-12, atol=1e-11)
    plain = scaled_kl_to_standard(means, torch.ones_like(means), factor)
    assert_allclose(plain, gaussian_kl_to_standard(means, factor), rtol=1e-12, atol=1e-10)


@pytest.mark.parametrize("d", [1, 4])
def test_gradients_of_the_row_divergences(d):
    means, factors = (tensor.requires_grad_() for tensor in random_gaussians(5, d))
    log_var = torch.randn((5, d), generator=torch.Generator().manual_seed(1)).double()
    spread = log_var.exp().requires_grad_()
    assert torch.autograd.gradcheck(diagonal_kl_to_standard, (means, log_var.requires_grad_()))
    assert torch.autograd.gradcheck(gaussian_kl_to_standard, (means, factors))
    factor = factors[0].detach().requires_grad_()
    assert torch.autograd.gradcheck(scaled_kl_to_standard, (means, spread, factor))


# Maximum mean discrepancy.


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


@EXAMPLES
@given(n_rows=st.integers(2, 12), d=st.integers(1, 64), seed=SEEDS, kind=st.sampled_from(KINDS))
def test_mmd_is_the_double_sum(n_rows, d, seed, kind):
    rng = np.random.default_rng(seed)
    codes, draws = codes_of_kind(kind, n_rows, d, rng), rng.standard_normal((n_rows, d))
    actual = multiquadratic_mmd(torch.from_numpy(codes), torch.from_numpy(draws))
    # A kernel is a sum of 7 terms of at most 1, its distances have |a|^2 + |b|^2 of
    # about 4 d rounded against bandwidths of at least 0.2 d.
    assert_allclose(actual, brute_force_mmd(codes, draws), rtol=0.0, atol=1e-12)


def mmd_of_draws(shift, size, n_values=600):
    """Mean of the estimate over pairs of small samples, and its standard error."""
    generator = torch.Generator().manual_seed(0)
    values = []
    for _ in range(n_values):
        codes, draws = torch.randn((2, 16, 3), generator=generator)
        values.append(float(multiquadratic_mmd(shift + size * codes, draws)))
    return np.mean(values), np.std(values, ddof=1) / n_values**0.5, values


def test_mmd_of_the_prior_with_itself_is_unbiased():
    mean, standard_error, values = mmd_of_draws(0.0, 1.0)
    assert min(values) < 0.0 < max(values)
    assert abs(mean) < 4.0 * standard_error


@pytest.mark.parametrize(("shift", "size"), [(0.3, 1.0), (1.0, 1.0), (0.0, 0.5), (0.0, 2.0)])
def test_mmd_of_shifted_and_rescaled_codes_is_positive_in_expectation(shift, size):
    mean, standard_error, _ = mmd_of_draws(shift, size)
    assert mean > 5.0 * standard_error


def test_gradient_of_mmd():
    generator = torch.Generator().manual_seed(0)
    codes, draws = torch.randn((2, 6, 2), generator=generator, dtype=torch.float64)
    inputs = (codes.requires_grad_(), draws.requires_grad_())
    assert torch.autograd.gradcheck(multiquadratic_mmd, inputs)


def test_gradient_of_mmd_at_coincident_codes_is_finite():
    codes = torch.zeros((4, 2), requires_grad=True)
    draws = torch.randn((4, 2), generator=torch.Generator().manual_seed(0))
    multiquadratic_mmd(codes, draws).backward()
    assert torch.isfinite(codes.grad).all()


def test_mmd_keeps_its_digits_far_out():
    rng = torch.Generator().manual_seed(0)
    codes, draws = (torch.randn(64, 3, generator=rng) for _ in range(2))
    near = multiquadratic_mmd(codes.double(), draws.double())
    far = multiquadratic_mmd(codes + 1e4, draws + 1e4)
    assert float(far) == pytest.approx(float(near), abs=5e-2)


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(1, 5))
def test_group_divergence_is_that_of_each_group(seed, n_groups, d):
    rng = np.random.default_rng(seed)
    group = rng.integers(n_groups, size=25)
    mu = torch.from_numpy(rng.normal(size=(25, d)) * rng.uniform(0.1, 3.0, d) + group[:, None])
    labels = torch.from_numpy(np.eye(n_groups + 1)[group])  # one group is empty
    expected = 0.0
    for g in np.unique(group):
        part = mu[group == g]
        mean, sample = minibatch_moments(part)
        covariance = regularised_covariance(sample, len(part), 0.5)
        divergence = gaussian_kl_to_standard(mean, torch.linalg.cholesky(covariance))
        expected += len(part) / 25 * (divergence - 0.5 * covariance.trace() / len(part))
    assert_allclose(group_kl_to_standard(mu, labels, 0.5), expected, rtol=1e-9, atol=1e-12)


def test_group_divergence_of_small_groups_does_not_draw_codes_to_zero():
    """The mean part is unbiased: 0 for draws from N(0, I), whatever the size of groups."""
    n_groups, n_rows = 400, 4
    labels = torch.eye(n_groups, dtype=torch.float64).repeat_interleave(n_rows, dim=0)
    values = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        mu = torch.randn((n_groups * n_rows, 2), generator=generator, dtype=torch.float64)
        # With so many pseudo-rows of N(0, I) the covariance costs nothing.
        values.append(float(group_kl_to_standard(mu, labels, 1e9)))
    assert abs(np.mean(values)) < 4.0 * np.std(values) / len(values) ** 0.5
    assert np.std(values) < 0.1 * 0.5 * 2 / n_rows  # of what the noise would have added


def test_gradient_of_the_group_divergence_by_finite_differences():
    mu = torch.randn((7, 3), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.eye(3, dtype=torch.float64)[[0, 1, 1, 0, 2, 1, 0]]
    assert torch.autograd.gradcheck(
        lambda codes: group_kl_to_standard(codes, labels, 1.0), mu.requires_grad_()
    )


@given(st.integers(1, 4), st.floats(0.0, 1e5), st.floats(1e-3, 1e4), st.integers(0, 2**32 - 1))
def test_group_divergence_is_bounded_below(n_rows, scale, pseudo_rows, seed):
    """Before, two far codes around 0 had -9,800 nats with 50 pseudo-rows."""
    mu = torch.from_numpy(scale * np.random.default_rng(seed).normal(size=(n_rows, 2)))
    mu = torch.cat([mu, -mu])  # of mean 0
    labels = torch.ones(2 * n_rows, 1, dtype=torch.float64)
    bound = np.log1p(-1.0 / (2 * n_rows))  # d / 2 log(1 - 1 / n), d = 2
    assert float(group_kl_to_standard(mu, labels, pseudo_rows)) >= bound - 1e-6
