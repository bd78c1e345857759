"""Rules, best Gaussians and the gap against closed forms, integrals and scipy."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.integrate import trapezoid
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from test_model import D, GaussianPrior, linear_parts, log_marginal, make_model, prior_moments, rows
from torch.distributions import MultivariateNormal, kl_divergence

from skhebae.code_map import CodeNoise
from skhebae.data import Minibatch
from skhebae.posterior import bound, laplace
from skhebae.quadrature import Proposal, Rule
from skhebae.variational import (
    FullFamily,
    GapParts,
    Gaussian,
    ScaledFamily,
    best_gaussian,
    block_bounds,
    gap_parts,
    independence_loss,
    off_diagonal_size,
)


def rules(n_components, seed=0):
    rng = np.random.RandomState(seed)
    return Rule.rotated(n_components, 2, 3, rng), Rule.rotated(n_components, 3, 6, rng)


def random_noise(n_components, seed):
    """C and A of a family of covariances ``A D C D A^T``."""
    rng = np.random.default_rng(seed)
    factor = np.tril(rng.normal(size=(n_components, n_components)))
    np.fill_diagonal(factor, np.abs(factor.diagonal()) + 0.5)
    matrix = np.eye(n_components) + 0.4 * rng.normal(size=(n_components, n_components))
    return CodeNoise(torch.from_numpy(factor).float(), torch.from_numpy(matrix).float())


def posterior_precision(model):
    """``P = diag(1 / v) + W^T N^-1 W`` of a linear decoder."""
    W, _, noise = linear_parts(model)
    return np.diag(1.0 / prior_moments(model)[1]) + W.T / noise @ W


def all_parts(model, minibatch, encoder, family=None, n_draws=400):
    with torch.no_grad():
        proposal = Proposal.draw(n_draws, model.n_components, np.random.RandomState(1))
        parts = gap_parts(model, minibatch, encoder, family, rules(model.n_components), proposal)
        return GapParts.unpack(parts.pack(), model.n_components)


# Rules and draws


@pytest.mark.parametrize("n_components", [1, 2, 5])
def test_each_block_integrates_polynomials(n_components):
    rule = Rule.rotated(n_components, 3, 4, np.random.RandomState(0))
    assert rule.weights.sum() == pytest.approx(1.0, rel=1e-6)
    for block in rule.points.astype(np.float64):
        moments = np.einsum("k,ki,kj->ij", rule.weights, block, block)
        assert_allclose(moments, np.eye(n_components), atol=1e-5)
        assert_allclose(rule.weights @ block, 0.0, atol=1e-6)
        squares = np.square(block).sum(axis=1)
        d = n_components
        for power, exact in {2: d * (d + 2), 4: d * (d + 2) * (d + 4) * (d + 6)}.items():
            assert rule.weights @ squares**power == pytest.approx(exact, rel=1e-5)


def test_directions_of_blocks_are_uniform():
    rule = Rule.rotated(3, 2, 4000, np.random.RandomState(0))
    fourth = np.einsum("k,bki->bi", rule.weights, rule.points**4).mean(axis=0)
    assert_allclose(fourth, 3.0, atol=0.1)  # E e_i^4
    mixed = (rule.points[:, :, 0] * rule.points[:, :, 1] ** 3) @ rule.weights
    assert abs(mixed.mean()) < 4.0 * mixed.std() / 4000**0.5


@pytest.mark.parametrize("n_components", [1, 4])
def test_the_density_of_draws_is_that_of_the_mixture(n_components):
    proposal = Proposal.draw(40_000, n_components, np.random.RandomState(0))
    normal = multivariate_normal(np.zeros(n_components)).logpdf(proposal.draws)
    assert_allclose(np.log(proposal.share), normal - proposal.log_density, atol=1e-4)
    # E_m [f / m] = 1 for N(0, I) and for a wider density.
    wide = multivariate_normal(np.zeros(n_components), 2.0 * np.eye(n_components))
    for weights in (proposal.share, np.exp(wide.logpdf(proposal.draws) - proposal.log_density)):
        assert abs(weights.mean() - 1.0) < 4.0 * weights.std() / 200.0
    assert proposal.share.max() <= 1.0 / 0.75 + 1e-9  # the mixture is at least its part


# Off-diagonals


@given(st.integers(0, 10_000), st.integers(1, 6))
@settings(max_examples=25)
def test_independence_loss_is_the_least_divergence_of_diagonal_gaussians(seed, n_components):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(n_components, n_components + 2))
    precision = torch.from_numpy(np.eye(n_components) + root @ root.T)
    loss = float(independence_loss(precision))
    target = MultivariateNormal(torch.zeros(n_components).double(), precision_matrix=precision)

    def divergence(variances):
        q = MultivariateNormal(target.loc, torch.diag(torch.from_numpy(variances)))
        return float(kl_divergence(q, target))

    best = 1.0 / precision.diagonal().numpy()
    assert loss == pytest.approx(divergence(best), abs=1e-8)
    for _ in range(5):
        assert divergence(best * np.exp(0.3 * rng.normal(size=n_components))) >= loss - 1e-9
    size = float(off_diagonal_size(precision))
    assert 0.0 <= size < 1.0
    if n_components == 2:
        assert loss == pytest.approx(-0.5 * math.log1p(-(size**2)))
    assert float(off_diagonal_size(torch.diag(precision.diagonal()))) == 0.0


# Linear decoders, where each part is known


@pytest.mark.parametrize("prior", [None, GaussianPrior], ids=["standard", "gaussian"])
@pytest.mark.parametrize("n_components", [1, 3, 5])
def test_parts_of_a_linear_model(n_components, prior):
    model, x = make_model(n_components=n_components, prior=prior), rows()
    noise = random_noise(n_components, seed=2)
    family = ScaledFamily(noise)
    mean = torch.randn((8, n_components), generator=torch.Generator().manual_seed(3))
    spread = 0.2 + torch.rand((8, n_components), generator=torch.Generator().manual_seed(4))
    encoder = Gaussian(mean, noise.factors(spread))
    parts = all_parts(model, Minibatch(x), encoder, family)
    precision = posterior_precision(model)
    exact = log_marginal(model, x)
    assert_allclose(parts.log_likelihood, exact, rtol=1e-4, atol=1e-3)
    assert (parts.log_likelihood_error < 1e-3).all()
    assert_allclose(parts.precision, np.broadcast_to(precision, parts.precision.shape), rtol=1e-4)
    # Every block is exact, as is the diagonal loss.
    assert_allclose(parts.full, exact[:, None] + np.zeros((8, 6)), rtol=1e-4, atol=2e-3)
    loss = float(independence_loss(torch.from_numpy(precision)))
    assert_allclose(parts.full - parts.diagonal, loss, atol=3e-3)
    # The best scales, by scipy: 1/2 s^T (C * A^T P A) s - sum log s.
    factor, matrix = noise.factor.double().numpy(), noise.matrix.double().numpy()
    coupling = (factor @ factor.T) * (matrix.T @ precision @ matrix)
    found = minimize(
        lambda t: 0.5 * np.exp(t) @ coupling @ np.exp(t) - t.sum(), np.zeros(n_components), tol=1e-9
    )
    volume = np.linalg.slogdet(factor)[1] + np.linalg.slogdet(matrix)[1]
    miss = found.fun - 0.5 * n_components - volume - 0.5 * np.linalg.slogdet(precision)[1]
    assert_allclose(parts.full - parts.family, miss, atol=3e-3)
    # The encoder's own, by the closed bound.
    own = bound(model, Minibatch(x), *encoder)
    assert_allclose(parts.encoder.mean(dim=1), own.detach(), rtol=1e-4, atol=2e-3)


@given(st.integers(0, 10_000), st.integers(1, 4))
@settings(max_examples=5)
def test_parts_of_random_linear_models_are_positive_and_known(seed, n_components):
    model, x = make_model(n_components=n_components, seed=seed), rows(4)
    encoder = Gaussian(*laplace(model, Minibatch(x)))
    encoder = Gaussian(encoder.mean.detach(), 0.7 * encoder.factor.detach())
    parts = all_parts(model, Minibatch(x), encoder, n_draws=100)
    full, diagonal, own = (of.mean(dim=1) for of in (parts.full, parts.diagonal, parts.encoder))
    precision = torch.from_numpy(posterior_precision(model))
    assert_allclose(full, log_marginal(model, x), rtol=1e-4, atol=3e-3)
    assert_allclose(full - diagonal, float(independence_loss(precision)), rtol=1e-3, atol=3e-3)
    # KL of the posterior narrowed by 0.7
    narrowed = n_components * (0.5 * (0.49 - 1.0) - math.log(0.7))
    assert_allclose(full - own, narrowed, rtol=1e-3, atol=3e-3)


def test_a_common_scale_is_the_best_one():
    model, x = make_model(), rows()
    noise = random_noise(D, seed=5)
    family = ScaledFamily(noise, is_scalar=True)
    encoder = Gaussian(torch.zeros(8, D), noise.factors(torch.ones(8, D)))
    parts = all_parts(model, Minibatch(x), encoder, family)
    factor = (noise.matrix @ noise.factor).double().numpy()
    precision = posterior_precision(model)
    trace = np.trace(factor.T @ precision @ factor)
    scale = math.sqrt(D / trace)
    covariance = scale**2 * factor @ factor.T
    miss = -0.5 * np.linalg.slogdet(precision @ covariance)[1]
    assert_allclose(parts.full - parts.family, miss, atol=3e-3)


def test_rows_with_missing_entries_have_the_marginal_of_the_others():
    model, x = make_model(), rows()
    mask = torch.ones_like(x, dtype=torch.bool)
    mask[:, 1], mask[:4, 3] = False, False
    minibatch = Minibatch(x, mask=mask)
    parts = all_parts(model, minibatch, Gaussian(*laplace(model, minibatch)))
    W, bias, noise = linear_parts(model)
    units = np.log(model.likelihood.scale.double().numpy())
    for i in range(8):
        seen = mask[i].numpy()
        covariance = (W @ W.T + np.diag(noise))[np.ix_(seen, seen)]
        exact = multivariate_normal.logpdf(x[i].double().numpy()[seen], bias[seen], covariance)
        exact -= units[seen].sum()
        assert float(parts.log_likelihood[i]) == pytest.approx(exact, abs=2e-3)
        precision = torch.from_numpy(np.eye(D) + W[seen].T / noise[seen] @ W[seen])
        loss = float(independence_loss(precision))
        assert float((parts.full - parts.diagonal)[i].mean()) == pytest.approx(loss, abs=3e-3)
    # Their posterior follows from the decoder and may be any Gaussian.
    assert_allclose(parts.full - parts.family, 0.0)
    assert_allclose(parts.full, parts.encoder, atol=3e-3)


# Curved decoders


def numerical_posteriors(model, minibatch):
    """log p(x, z) on a grid of one dimension, (n, m)."""
    z = np.linspace(-9.0, 9.0, 1201)
    columns = []
    with torch.no_grad():
        for value in torch.from_numpy(z).float():
            code = value.expand(len(minibatch), 1)
            joint = model.log_prob(minibatch, code) + model.prior.log_prob(code)
            columns.append(joint.double().numpy())
    return z, np.stack(columns, axis=1)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_a_curved_decoder_of_one_dimension_against_integrals(likelihood):
    model = make_model(likelihood, hidden=(8,), n_components=1, seed=3)
    x = rows() if likelihood == "gaussian" else (rows() > 0.0).float()
    minibatch = Minibatch(x)
    encoder = Gaussian(torch.zeros(8, 1), 0.3 * torch.ones(8, 1, 1))
    search = Rule.rotated(1, 8, 1, np.random.RandomState(0))
    judge = Rule.rotated(1, 16, 1, np.random.RandomState(0))
    with torch.no_grad():
        proposal = Proposal.draw(2000, 1, np.random.RandomState(1))
        parts = gap_parts(model, minibatch, encoder, None, (search, judge), proposal)
        q, _ = best_gaussian(
            model, minibatch, FullFamily(), Gaussian(*laplace(model, minibatch)), search
        )
    z, joint = numerical_posteriors(model, minibatch)
    top = joint.max(axis=1, keepdims=True)
    exact = top[:, 0] + np.log(trapezoid(np.exp(joint - top), z, axis=1))
    error = parts.log_likelihood_error.numpy()
    reliable = parts.effective_draws.numpy() > 100.0
    assert reliable.mean() >= 0.5
    assert (
        np.abs(parts.log_likelihood.numpy() - exact)[reliable] < 5.0 * error[reliable] + 0.02
    ).all()

    def integral(mean, deviation, row):
        weight = np.exp(-0.5 * ((z - mean) / deviation) ** 2) / deviation / math.sqrt(2.0 * math.pi)
        entropy = math.log(deviation) + 0.5 * math.log(2.0 * math.pi * math.e)
        return trapezoid(weight * joint[row], z) + entropy

    for row in range(0, 8, 2):
        found = integral(float(q.mean[row]), float(q.factor[row]), row)
        assert float(parts.full[row]) == pytest.approx(found, abs=0.02)
        assert float(parts.encoder[row]) == pytest.approx(integral(0.0, 0.3, row), abs=0.02)
        # No Gaussian near it is better.
        place, width = float(q.mean[row]), float(q.factor[row])
        for shift, factor in product((-0.1, 0.0, 0.1), (0.9, 1.0, 1.1)):
            assert integral(place + shift * width, factor * width, row) < found + 0.01
    # One dimension is diagonal.
    assert_allclose(parts.full, parts.diagonal, atol=2e-3)
    assert (parts.log_likelihood.numpy() >= parts.full[:, 0].numpy() - 5.0 * error - 0.01).all()


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_best_gaussians_beat_their_neighbours(likelihood):
    model = make_model(likelihood, hidden=(8,), seed=4)
    x = rows() if likelihood == "gaussian" else (rows() > 0.0).float()
    minibatch, rng = Minibatch(x), np.random.RandomState(0)
    fine = Rule.rotated(D, 3, 4, rng)
    with torch.no_grad():
        start = Gaussian(*laplace(model, minibatch))
        full, at = best_gaussian(model, minibatch, FullFamily(), start, fine)
        independent = ScaledFamily(CodeNoise(torch.eye(D)))
        first = independent.start(full.mean, at.precision)
        diagonal, _ = best_gaussian(model, minibatch, independent, first, fine)
        best = {q: block_bounds(model, minibatch, q, fine).mean(dim=1) for q in (full, diagonal)}
        assert (block_bounds(model, minibatch, start, fine).mean(dim=1) <= best[full] + 1e-3).all()
        assert (best[diagonal] <= best[full] + 2e-3).all()
        for seed in range(4):
            generator = torch.Generator().manual_seed(seed)
            shift = 0.1 * torch.randn(8, D, 1, generator=generator)
            twist = 0.1 * torch.randn(8, D, D, generator=generator)
            moved = full.factor @ (torch.eye(D) + twist)
            near = Gaussian(full.mean + (full.factor @ shift)[:, :, 0], moved)
            assert (
                block_bounds(model, minibatch, near, fine).mean(dim=1) < best[full] + 1e-3
            ).all()
            scales = diagonal.factor * (twist.diagonal(dim1=1, dim2=2)).exp()[:, :, None]
            near = Gaussian(diagonal.mean + (diagonal.factor @ shift)[:, :, 0], scales)
            changed = block_bounds(model, minibatch, near, fine).mean(dim=1)
            assert (changed < best[diagonal] + 1e-3).all()


def test_points_have_a_bound_of_minus_infinity():
    model, minibatch = make_model(), Minibatch(rows())
    parts = all_parts(model, minibatch, Gaussian(torch.zeros(8, D), torch.zeros(8, D, D)))
    assert (parts.encoder == -np.inf).all()
    assert torch.isfinite(parts.full).all()
