"""The fused aggregate against the operations that it stands for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from skhebae.objectives.aggregate import aggregate
from skhebae.objectives.fused import fused_aggregate


def draws(n_rows, n_components, seed=0):
    rng = np.random.default_rng(seed)
    mu = 0.3 + rng.normal(size=(n_rows, n_components)) @ rng.normal(size=2 * (n_components,))
    eps = rng.normal(size=(n_rows, n_components))
    return torch.from_numpy(mu).requires_grad_(), torch.from_numpy(eps)


@given(
    n_rows=st.integers(1, 30),
    n_components=st.integers(1, 12),
    pseudo_rows=st.floats(0.1, 50.0),
    diagonal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_and_gradient(n_rows, n_components, pseudo_rows, diagonal, seed):
    mu, eps = draws(n_rows, n_components, seed)
    slope = torch.from_numpy(np.random.default_rng(seed + 1).normal(size=eps.shape))
    results = []
    for function in (fused_aggregate, aggregate):
        noise, divergence, factor = function(mu, eps, pseudo_rows, diagonal)
        loss = (slope * noise).sum() + 0.7 * divergence
        (gradient,) = torch.autograd.grad(loss, mu)
        results.append([t.detach() for t in (noise, divergence, factor, gradient)])
    for actual, expected in zip(*results, strict=True):
        assert_allclose(actual, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("diagonal", [False, True])
@pytest.mark.parametrize("function", [fused_aggregate, aggregate])
def test_gradient_by_finite_differences(function, diagonal):
    mu, eps = draws(7, 3)

    def differentiable(mu):
        return function(mu, eps, 1.0, diagonal)[:2]

    assert torch.autograd.gradcheck(differentiable, mu)


def test_one_result_alone_has_a_gradient():
    mu, eps = draws(9, 4)
    for number in (0, 1):
        outputs = [f(mu, eps, 1.0, False)[number].sum() for f in (fused_aggregate, aggregate)]
        actual, expected = (torch.autograd.grad(output, mu)[0] for output in outputs)
        assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("function", [fused_aggregate, aggregate])
def test_float32_in_and_out(function):
    mu, eps = draws(20, 5)
    narrow = mu.detach().float().requires_grad_()
    results = function(narrow, eps.float(), 1.0, False)
    assert {t.dtype for t in results} == {torch.float32}
    # Only the readable form passes a gradient through the factor.
    assert results.factor.requires_grad == (function is aggregate)
    (results.noise.sum() + results.divergence).backward()
    assert narrow.grad.dtype == torch.float32
    for actual, expected in zip(results, function(mu, eps, 1.0, False), strict=True):
        assert_allclose(actual.detach(), expected.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function", [fused_aggregate, aggregate])
def test_codes_that_are_not_finite_give_nan_and_no_error(function):
    mu, eps = draws(6, 3)
    for bad in (np.nan, np.inf):
        codes = mu.detach().clone()
        codes[2, 1] = bad
        codes.requires_grad_()
        with np.errstate(invalid="ignore"):
            results = function(codes, eps, 1.0, False)
        assert torch.isnan(results.divergence)
        assert torch.isnan(results.noise).any()
        results.divergence.backward()
        assert torch.isnan(codes.grad).any()
