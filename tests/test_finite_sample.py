from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats
from scipy.special import polygamma

from skhebae.data import Minibatch
from skhebae.divergences import group_kl_to_standard
from skhebae.finite_sample import (
    WISHART_DRAWS,
    expected_group_kl,
    expected_prior_kl,
    log_det_bias,
)
from skhebae.objectives import HEBAEObjective, VAEObjective, WAEObjective
from skhebae.prior import StandardNormalPrior
from skhebae.training import Generators, Run
from skhebae.training.step import loss_terms


def constant_error(n_rows, d):
    """Bound on the standard error of `expected_prior_kl`, whatever the pseudo-rows.

    It averages half of what regression on log det W leaves of log det(nu I + W),
    which spreads no more than log det(nu I + W) itself, and that no more than
    log det W (nu + w is flatter in log w than w): the root of a sum of trigammas.
    """
    size, other = sorted((d, n_rows - 1))
    variance = polygamma(1, 0.5 * (other - np.arange(size))).sum()
    return 0.5 * (variance / WISHART_DRAWS) ** 0.5


def minibatches(n_rows, d, numbers=2_000_000, most=4000, seed=1):
    """Minibatches of draws from N(0, I), (n, n_rows, d)."""
    n = min(most, numbers // (n_rows * d))
    return np.random.default_rng(seed).standard_normal((n, n_rows, d))


def scatters(draws):
    centred = draws - draws.mean(axis=1, keepdims=True)
    return centred.transpose(0, 2, 1) @ centred


def mean_and_error(values):
    return np.mean(values), np.std(values, ddof=1) / len(values) ** 0.5


# The log-determinant of a sample covariance.


def test_bias_of_the_log_determinant_in_closed_form():
    # (B - 1) s^2 is chi-squared with B - 1 degrees; 2 of them are an exponential law.
    gamma, log2 = np.euler_gamma, np.log(2.0)
    assert_allclose(log_det_bias(2, 1), -gamma - log2, rtol=1e-12)
    assert_allclose(log_det_bias(3, 1), -gamma, rtol=1e-12)
    assert_allclose(log_det_bias(3, 2), -2.0 * gamma - 2.0 * log2, rtol=1e-12)


@pytest.mark.parametrize("n_rows", [2, 5, 16])
def test_bias_of_the_log_variance_is_the_integral(n_rows):
    law = stats.chi2(n_rows - 1)
    # log over the law's unit interval of probabilities: no singular density at 0.
    mean, _ = integrate.quad(lambda p: np.log(law.ppf(p)), 0.0, 1.0, limit=200)
    assert_allclose(log_det_bias(n_rows, 1), mean - np.log(n_rows - 1), atol=1e-6)


@pytest.mark.parametrize(
    ("n_rows", "d"), [(2, 1), (3, 2), (11, 10), (16, 10), (40, 30), (128, 10), (512, 10)]
)
def test_bias_of_the_log_determinant_is_that_of_a_simulation(n_rows, d):
    draws = minibatches(n_rows, d)
    # Any Gaussian will do: its own log-determinant is subtracted.
    shape = np.random.default_rng(0).standard_normal((d, d))
    covariances = scatters(draws @ shape.T + 3.0) / (n_rows - 1)
    values = np.linalg.slogdet(covariances)[1] - np.linalg.slogdet(shape @ shape.T)[1]
    mean, error = mean_and_error(values)
    assert abs(mean - log_det_bias(n_rows, d)) < 4.0 * error


@pytest.mark.parametrize("d", [1, 3, 10, 64])
def test_bias_of_the_log_determinant_vanishes_with_rows(d):
    sizes = np.array([d + 1, d + 2, 2 * d + 5, 10 * d + 50, 10_000, 1_000_000])
    values = np.array([log_det_bias(int(n), d) for n in sizes])
    assert (values < 0.0).all()
    assert (np.diff(values) > 0.0).all()
    # digamma(x) = log x - 1 / 2x + O(x^-2), so c = -d (d + 1) / 2B + O(d^3 / B^2).
    assert_allclose(values[-1], -0.5 * d * (d + 1) / 1e6, rtol=2.0 * d / 1e6 + 1e-5)


@pytest.mark.parametrize(("n_rows", "d"), [(3, 3), (8, 10), (1, 1)])
def test_fewer_rows_than_make_a_covariance_are_refused(n_rows, d):
    with pytest.raises(ValueError, match=f"n_rows={n_rows} must exceed n_components={d}"):
        log_det_bias(n_rows, d)


# The penalty of a minibatch that was drawn from the prior.


@pytest.mark.parametrize("pseudo_rows", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("d", [1, 2, 10, 64])
def test_expected_prior_kl_of_one_row_is_half_its_length(d, pseudo_rows):
    # The covariance is the prior's; E m^T m = d.
    assert_allclose(expected_prior_kl(1, d, pseudo_rows), 0.5 * d, rtol=1e-12)


@pytest.mark.parametrize("pseudo_rows", [0.1, 1.0, 10.0])
@pytest.mark.parametrize(("n_rows", "d"), [(2, 1), (2, 7), (2, 64), (5, 1), (100, 1)])
def test_expected_prior_kl_where_the_scatter_has_rank_one(n_rows, d, pseudo_rows):
    # Two rows, or one dimension: its only eigenvalue is chi-squared.
    law = stats.chi2(d if n_rows == 2 else n_rows - 1)
    log, _ = integrate.quad(lambda p: np.log(pseudo_rows + law.ppf(p)), 0.0, 1.0, limit=200)
    log_det = log + (d - 1) * np.log(pseudo_rows) - d * np.log(pseudo_rows + n_rows - 1)
    expected = 0.5 * (d / n_rows - log_det)
    actual = expected_prior_kl(n_rows, d, pseudo_rows)
    assert abs(actual - expected) < 4.0 * constant_error(n_rows, d)


@pytest.mark.parametrize("pseudo_rows", [1e-3, 0.5, 1.0, 20.0])
@pytest.mark.parametrize(("n_rows", "d"), [(8, 10), (11, 10), (16, 10), (64, 64), (512, 10)])
def test_expected_prior_kl_is_that_of_a_simulation(n_rows, d, pseudo_rows):
    draws = minibatches(n_rows, d)
    regularised = (pseudo_rows * np.eye(d) + scatters(draws)) / (pseudo_rows + n_rows - 1)
    means = draws.mean(axis=1)
    trace = np.trace(regularised, axis1=1, axis2=2)
    values = 0.5 * (trace + (means**2).sum(axis=1) - d - np.linalg.slogdet(regularised)[1])
    mean, error = mean_and_error(values)
    actual = expected_prior_kl(n_rows, d, pseudo_rows)
    assert abs(actual - mean) < 4.0 * np.hypot(error, constant_error(n_rows, d))


@pytest.mark.parametrize(("n_rows", "d"), [(5, 2), (16, 10), (512, 10), (100, 64)])
def test_few_pseudo_rows_leave_the_closed_form(n_rows, d):
    expected = 0.5 * (d / n_rows - log_det_bias(n_rows, d))
    # log det(nu I + W) - log det W is at most nu tr W^-1, of mean nu d / (B - d - 2).
    assert_allclose(expected_prior_kl(n_rows, d, 1e-12), expected, rtol=1e-7)


@pytest.mark.parametrize(("n_rows", "d"), [(2, 5), (8, 10), (16, 10), (512, 10)])
def test_expected_prior_kl_falls_with_pseudo_rows_to_that_of_the_mean(n_rows, d):
    values = [expected_prior_kl(n_rows, d, nu) for nu in (1e-3, 0.1, 1.0, 10.0, 100.0)]
    assert (np.diff(values) < 0.0).all()
    of_mean = 0.5 * d / n_rows
    assert abs(expected_prior_kl(n_rows, d, 1e9) - of_mean) < 4.0 * constant_error(n_rows, d)


def test_expected_prior_kl_is_a_constant_that_touches_no_generator():
    state = np.random.get_state()[1].copy()
    values = []
    for _ in range(2):
        expected_prior_kl.cache_clear()
        values.append(expected_prior_kl(16, 10, 1.0))
    assert values[0] == values[1]
    assert (np.random.get_state()[1] == state).all()


# What training reports.


class PriorCloud(torch.nn.Module):
    """A model whose codes are its rows, and whose rows cost nothing to reconstruct."""

    def __init__(self, d, head=0.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1, 1))
        self.n_components = d
        self.prior = StandardNormalPrior(d)
        self.head = head
        self.device = torch.device("cpu")

    def encode(self, minibatch):
        return minibatch.x, torch.full_like(minibatch.x, self.head)

    def log_prob(self, minibatch, z):
        return z.new_zeros(len(minibatch))


def reported_penalties(objective, n_rows, d, n_minibatches, head=0.0):
    """Penalty that training reports for minibatches of draws from N(0, I)."""
    generator = torch.Generator().manual_seed(0)
    run = Run(PriorCloud(d, head), objective, Generators(generator, generator))
    values = []
    with torch.no_grad():
        for _ in range(n_minibatches):
            x = torch.randn((n_rows, d), generator=generator)
            loss, reconstruction, penalty, _ = loss_terms(run, Minibatch(x, generator=generator))
            assert float(reconstruction) == 0.0
            assert_allclose(float(loss), objective.weight * float(penalty), rtol=1e-6)
            values.append(float(penalty))
    return values


@pytest.mark.parametrize("covariance", ["full", "diag"])
@pytest.mark.parametrize("pseudo_rows", [0.1, 1.0, 20.0])
@pytest.mark.parametrize("n_rows", [1, 8, 16, 512])
def test_codes_drawn_from_the_prior_report_a_penalty_of_zero(n_rows, pseudo_rows, covariance):
    objective = HEBAEObjective(0.7, covariance=covariance, covariance_prior=pseudo_rows)
    mean, error = mean_and_error(reported_penalties(objective, n_rows, 10, 300))
    assert abs(mean) < 4.0 * np.hypot(error, constant_error(n_rows, 10))
    # Without the constant it would not be.
    assert objective.prior_penalty(n_rows, 10) > 8.0 * error


@pytest.mark.parametrize("share", [0.3, 1.0])
@pytest.mark.parametrize("n_rows", [8, 16, 512])
def test_what_is_left_of_the_prior_at_a_row_share_is_the_divergence_of_the_rows(n_rows, share):
    # Noise of deviation s in codes from N(0, I): E KL = (d s^2 - E log det S) / 2 - d log s,
    # while the mean over rows of |mu_i|^2 is d.
    d, head = 10, -1.0
    objective = HEBAEObjective(1.0, row_share=share)
    mean, error = mean_and_error(reported_penalties(objective, n_rows, d, 300, head))
    deviation = np.log1p(np.exp(head))
    log_det = d / n_rows - 2.0 * expected_prior_kl(n_rows, d, 1.0)
    of_rows = 0.5 * (d * deviation**2 - log_det) - d * np.log(deviation)
    assert abs(mean - share * of_rows) < 4.0 * np.hypot(error, constant_error(n_rows, d))


def test_penalties_that_are_unbiased_are_reported_as_they_are():
    assert VAEObjective(1.0).prior_penalty(16, 10) == 0.0
    assert WAEObjective(10.0).prior_penalty(16, 10) == 0.0
    mean, error = mean_and_error(reported_penalties(WAEObjective(10.0), 16, 10, 300))
    assert abs(mean) < 4.0 * error
    # The prior itself as every row's posterior costs its mean's |mu|^2 / 2 = d / 2.
    mean, error = mean_and_error(reported_penalties(VAEObjective(1.0), 16, 10, 300))
    assert abs(mean - 5.0) < 4.0 * error


# Groups


@pytest.mark.parametrize("pseudo_rows", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 30, 64])
def test_expected_group_divergence_is_its_mean_over_draws(n_rows, pseudo_rows):
    d, n_groups = 3, 800
    generator = torch.Generator().manual_seed(n_rows)
    labels = torch.ones(n_rows, 1, dtype=torch.float64)
    draws = torch.randn((n_groups, n_rows, d), generator=generator, dtype=torch.float64)
    values = np.array([float(group_kl_to_standard(rows, labels, pseudo_rows)) for rows in draws])
    expected = expected_group_kl(64, d, pseudo_rows, torch.device("cpu"))[n_rows]
    error = values.std() / n_groups**0.5
    assert abs(values.mean() - float(expected)) < 4.0 * error + 0.01


def test_an_empty_group_costs_nothing():
    assert expected_group_kl(5, 2, 1.0, torch.device("cpu"))[0] == 0.0
