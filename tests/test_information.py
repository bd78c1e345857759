from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import integrate, stats

from skhebae import HEBAETransformer, VAETransformer
from skhebae.divergences import gaussian_kl_to_standard, multiquadratic_mmd
from skhebae.information import (
    aggregated_log_density,
    decompose_divergence,
    mmd_test,
    normal_log_density,
)
from skhebae.prior import StandardNormalPrior


def posteriors(n_rows, n_components, seed=0, width=0.5):
    """Means (n, d) and lower factors (n, d, d) of Gaussians, float64."""
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn((n_rows, n_components), generator=generator, dtype=torch.float64)
    root = torch.randn(
        (n_rows, n_components, n_components), generator=generator, dtype=torch.float64
    )
    identity = torch.eye(n_components, dtype=torch.float64)
    return mean, torch.linalg.cholesky(width * (root @ root.mT + 0.2 * identity))


def draws(shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def decompose(mean, factor, noise):
    """`decompose_divergence` from N(0, I)."""
    return decompose_divergence(mean, factor, noise, StandardNormalPrior(mean.shape[1]))


@pytest.mark.parametrize("n_components", [1, 4])
def test_log_density_is_scipys(n_components):
    mean, factor = posteriors(6, n_components)
    z = draws((5, n_components))
    expected = np.array(
        [
            [
                stats.multivariate_normal.logpdf(point, m, f @ f.T)
                for m, f in zip(mean, factor, strict=True)
            ]
            for point in z
        ]
    )
    assert_allclose(normal_log_density(z, mean, factor), expected, rtol=1e-9)
    mixture = np.log(np.exp(expected).mean(axis=1))
    assert_allclose(aggregated_log_density(z, mean, factor), mixture, rtol=1e-9)


def test_blocks_of_the_mixture_do_not_change_it(monkeypatch):
    mean, factor = posteriors(50, 3)
    z = draws((7, 3))
    whole = aggregated_log_density(z, mean, factor)
    monkeypatch.setattr("skhebae.information.BLOCK_NUMBERS", 1)
    assert_allclose(aggregated_log_density(z, mean, factor), whole, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), n_rows=st.integers(1, 40), width=st.floats(1e-6, 10.0))
def test_mutual_information_lies_between_zero_and_log_n(seed, n_rows, width):
    mean, factor = posteriors(n_rows, 3, seed, width)
    information = decompose(mean, factor, draws((n_rows, 3))).mutual_information
    # log q(z_i | i) - log q(z_i) <= log n holds for every single draw.
    assert float(information.max()) <= np.log(n_rows) + 1e-9
    error = float(information.std()) / n_rows**0.5 if n_rows > 1 else 0.0
    assert float(information.mean()) >= -4.0 * error - 1e-9


def test_equal_posteriors_carry_no_information_and_distant_ones_all():
    mean, factor = posteriors(1, 2)
    same = decompose(mean.expand(20, 2), factor.expand(20, 2, 2), draws((20, 2)))
    assert_allclose(same.mutual_information, 0.0, atol=1e-12)
    far = 1e3 * torch.arange(20, dtype=torch.float64)[:, None] * torch.ones(2)
    apart = decompose(far, factor.expand(20, 2, 2), draws((20, 2)))
    assert_allclose(apart.mutual_information, np.log(20.0), rtol=1e-12)


@pytest.mark.slow
def test_mutual_information_is_the_integral():
    # Two rows, one dimension: I = sum_i 1/2 int q_i log(q_i / q) by quadrature.
    mean = torch.tensor([[-0.7], [0.9]], dtype=torch.float64)
    factor = torch.tensor([[[0.8]], [[0.5]]], dtype=torch.float64)
    components = [stats.norm(float(m), float(f)) for m, f in zip(mean, factor, strict=True)]

    def aggregate(z):
        return 0.5 * (components[0].pdf(z) + components[1].pdf(z))

    def integral(function):
        return integrate.quad(function, -12.0, 12.0, limit=200)[0]

    information = 0.5 * sum(
        integral(lambda z, c=c: c.pdf(z) * np.log(max(c.pdf(z), 1e-300) / aggregate(z)))
        for c in components
    )
    divergence = integral(lambda z: aggregate(z) * np.log(aggregate(z) / stats.norm.pdf(z)))
    # Every draw of the two rows is a draw of both terms.
    parts = [decompose(mean, factor, noise) for noise in draws((10_000, 2, 1), seed=5)]
    for values, expected in (
        (torch.cat([part.mutual_information for part in parts]), information),
        (torch.cat([part.aggregate for part in parts]), divergence),
    ):
        assert abs(float(values.mean()) - expected) < 4.0 * float(values.std()) / len(values) ** 0.5


def test_parts_add_up_to_the_divergence_of_the_rows_draw_by_draw():
    mean, factor = posteriors(30, 3)
    noise = draws((30, 3))
    parts = decompose(mean, factor, noise)
    z = mean + (factor @ noise[:, :, None])[:, :, 0]
    of_row = [
        stats.multivariate_normal.logpdf(p, m, f @ f.T)
        for p, m, f in zip(z, mean, factor, strict=True)
    ]
    of_prior = stats.multivariate_normal.logpdf(z.numpy(), np.zeros(3))
    assert_allclose(parts.mutual_information + parts.aggregate, of_row - of_prior, rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "estimator",
    [
        VAETransformer(2, beta=1.0),
        HEBAETransformer(2, row_share=1.0),
        HEBAETransformer(2, row_share=0.1),
    ],
    ids=["vae", "full-covariance", "mixed"],
)
def test_equation_10_on_a_trained_model(estimator, table):
    # ELBO = E log p(x | z) - KL(q(z) || p(z)) - I(i; z), each with its standard error.
    estimator.set_params(hidden_layer_sizes=(16,), random_state=0).fit(table)
    own = estimator.fitted_.with_encoder_codes()  # which its networks see
    mean, factor = (torch.from_numpy(part).double() for part in own.posterior(table))
    closed_form = float(gaussian_kl_to_standard(mean, factor).mean())
    n_draws = 200
    reconstruction, information, aggregate = np.empty((3, n_draws))
    rows = torch.from_numpy(estimator.fitted_.scaling.standardise(table))
    model = estimator.fitted_.model
    for k in range(n_draws):
        noise = draws(mean.shape, seed=k)
        parts = decompose(mean, factor, noise)
        information[k] = parts.mutual_information.mean()
        aggregate[k] = parts.aggregate.mean()
        z = (mean + (factor @ noise[:, :, None])[:, :, 0]).float()
        with torch.no_grad():
            reconstruction[k] = model.likelihood.log_prob(rows, model.decode(z)).mean()

    def estimate(values):
        return values.mean(), values.std(ddof=1) / n_draws**0.5

    total, error = estimate(information + aggregate)
    assert abs(total - closed_form) < 4.0 * error
    assert 0.0 < estimate(information)[0] <= np.log(len(table))
    assert estimate(aggregate)[0] > 0.0
    bound, error = estimate(reconstruction - information - aggregate)
    # The cubature of `elbo` is exact to degree 3; its error is far below a tenth of a nat.
    assert abs(bound - estimator.elbo(table).mean()) < 4.0 * error + 0.1


def permutations(n, size, seed=0):
    return torch.from_numpy(np.argsort(np.random.RandomState(seed).random_sample((n, size))))


def test_mmd_of_the_test_is_the_mmd():
    codes, prior = draws((2, 40, 3))
    mmd, _ = mmd_test(1.3 * codes + 0.2, prior, permutations(5, 80))
    assert mmd == pytest.approx(float(multiquadratic_mmd(1.3 * codes + 0.2, prior)), rel=1e-10)


def test_permuted_statistics_are_those_of_the_permuted_samples():
    codes, prior = draws((2, 12, 2))
    order = permutations(30, 24)
    pooled = torch.cat([codes, prior])
    actual = float(multiquadratic_mmd(codes, prior))
    others = [float(multiquadratic_mmd(pooled[o[:12]], pooled[o[12:]])) for o in order]
    expected = (1 + sum(other >= actual for other in others)) / 31
    assert mmd_test(codes, prior, order)[1] == pytest.approx(expected)


def test_p_value_is_uniform_under_the_prior_and_small_beyond_moments():
    p_values = [
        mmd_test(*draws((2, 60, 2), seed=seed), permutations(99, 120, seed))[1]
        for seed in range(100)
    ]
    assert stats.kstest(p_values, "uniform").pvalue > 0.01
    # Mean 0 and covariance I, but nothing near the origin: moments do not see it.
    angle = 2.0 * np.pi * draws((400,)).sigmoid()
    ring = torch.stack([angle.cos(), angle.sin()], dim=1)
    ring = (ring - ring.mean(dim=0)) @ torch.linalg.inv(torch.linalg.cholesky(ring.T.cov())).T
    assert_allclose(ring.T.cov(), np.eye(2), atol=1e-10)
    assert mmd_test(ring, draws((400, 2), seed=2), permutations(99, 800))[1] == 0.01
