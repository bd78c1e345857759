"""Novelty scores against closed forms, scipy and Monte Carlo, and what holds for each of them."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import optimize, stats
from scipy.integrate import quad
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer
from skhebae.data import Minibatch
from skhebae.fitted.novelty import SCORES
from skhebae.novelty import (
    ROW_SCORES,
    RowPosterior,
    bhattacharyya_distances,
    divergence,
    drawn_error,
    encoder_stochastic,
    expected_reconstruction,
    fully_stochastic,
    likelihood_regret,
    loss,
    mixture_surprise,
    nearest_generated,
    negative_bound,
    reconstruction,
    reconstruction_error,
    squared_error,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::skhebae.exceptions.FewRowsWarning",
)

N_ROWS, N_COMPONENTS = 40, 2


def in_double(fitted):
    """The model of an estimator, with the precision of the references."""
    return copy.deepcopy(fitted.fitted_.model).double()


def minibatch_of(fitted, X):
    x = fitted.fitted_.scaling.standardise(np.asarray(X, dtype=np.float64))
    return Minibatch(torch.from_numpy(x).double())


def random_posterior(n_rows=N_ROWS, d=N_COMPONENTS, seed=0):
    rng = np.random.default_rng(seed)
    factor = np.tril(0.3 * rng.normal(size=(n_rows, d, d)))
    factor[:, np.arange(d), np.arange(d)] = rng.uniform(0.1, 0.5, (n_rows, d))
    return RowPosterior(*map(torch.from_numpy, (rng.normal(size=(n_rows, d)), factor)))


@pytest.fixture(scope="module")
def linear(table):
    """A linear model with Gaussian noise: matrix, intercept, noise, and a double copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = HEBAETransformer(N_COMPONENTS, max_iter=5, random_state=0).fit(table)
    model = in_double(fitted)
    model.stay_linear()
    minibatch = minibatch_of(fitted, table[:N_ROWS])
    zeros = torch.zeros((N_ROWS, N_COMPONENTS), dtype=torch.float64)
    with torch.no_grad():
        intercept = model.decode_rows(zeros, minibatch)[0].numpy()
        columns = [
            model.decode_rows(zeros + torch.eye(N_COMPONENTS)[j], minibatch)[0].numpy() - intercept
            for j in range(N_COMPONENTS)
        ]
        noise = model.likelihood.noise_variance().numpy()
        scale = model.likelihood.scale.numpy()
    return model, minibatch, np.stack(columns, axis=1), intercept, noise, scale


@pytest.fixture(scope="module")
def curved(table):
    """A curved model with Gaussian noise."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = VAETransformer(
            N_COMPONENTS, hidden_layer_sizes=(16,), linear_path=False, max_iter=150, random_state=0
        ).fit(table)
    return in_double(fitted), minibatch_of(fitted, table[:N_ROWS])


# Rows against what they decode to


def test_squared_and_drawn_error_of_a_linear_model(linear):
    model, minibatch, matrix, intercept, noise, _ = linear
    q = random_posterior()
    gap = minibatch.x.numpy() - (q.mean.numpy() @ matrix.T + intercept)
    squares = np.square(gap).sum(axis=1)
    with torch.no_grad():
        assert_allclose(squared_error(model, minibatch, q.mean), squares, rtol=1e-6)
        assert_allclose(reconstruction_error(model, minibatch, q), squares, rtol=1e-6)
        drawn = squares + noise.sum()
        assert_allclose(drawn_error(model, minibatch, q.mean), drawn, rtol=1e-6)


def test_expectations_over_codes_of_a_linear_model(linear):
    """``E |x - A z - b|^2 = |x - A mu - b|^2 + |A F|^2``: polynomials, so the cubature is exact."""
    model, minibatch, matrix, intercept, noise, scale = linear
    q = random_posterior()
    gap = np.square(minibatch.x.numpy() - (q.mean.numpy() @ matrix.T + intercept))
    spread = np.square(matrix @ q.factor.numpy()).sum(axis=2)
    errors = gap + spread
    nats = 0.5 * (errors / noise + np.log(2.0 * np.pi * noise * scale**2)).sum(axis=1)
    with torch.no_grad():
        found = encoder_stochastic(model, minibatch, q)
        assert_allclose(found, errors.sum(axis=1), rtol=1e-6)
        found = fully_stochastic(model, minibatch, q)
        assert_allclose(found, errors.sum(axis=1) + noise.sum(), rtol=1e-6)
        assert_allclose(expected_reconstruction(model, minibatch, q), nats, rtol=1e-6)


@pytest.mark.slow
def test_expectations_over_codes_of_a_curved_model(curved):
    """The cubature is exact to degree 3, so with little noise it is close to Monte Carlo."""
    model, minibatch = curved
    q = random_posterior()
    q = RowPosterior(q.mean, 0.3 * q.factor)
    rng = np.random.default_rng(1)
    parts = {encoder_stochastic: squared_error, fully_stochastic: drawn_error}
    with torch.no_grad():
        for score, inner in parts.items():
            draws = []
            for _ in range(2000):
                noise = torch.from_numpy(rng.normal(size=(N_ROWS, N_COMPONENTS, 1)))
                draws.append(inner(model, minibatch, q.mean + (q.factor @ noise)[:, :, 0]).numpy())
            error = np.std(draws, axis=0) / len(draws) ** 0.5
            gap = score(model, minibatch, q).numpy() - np.mean(draws, axis=0)
            assert (np.abs(gap) < 5.0 * error + 0.02 * np.mean(draws, axis=0)).all()


def test_missing_entries_do_not_count(linear):
    model, minibatch, *_ = linear
    q = random_posterior()
    rng = np.random.default_rng(0)
    mask = torch.from_numpy(rng.random(minibatch.x.shape) < 0.7)
    masked = minibatch.replace(mask=mask)
    other = masked.replace(x=minibatch.x.where(mask, 100.0))
    for score in (
        reconstruction,
        reconstruction_error,
        encoder_stochastic,
        fully_stochastic,
        expected_reconstruction,
    ):
        with torch.no_grad():
            found, elsewhere = score(model, masked, q), score(model, other, q)
            whole = score(model, minibatch, q)
        assert_array_equal(found, elsewhere)
        if score is not reconstruction and score is not expected_reconstruction:
            assert (found < whole).all()


# Variances of entries


def draw_entries(likelihood, parameter, n_draws=40_000):
    """Draw each entry of one row, (n_draws, p)."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        return likelihood.sample(parameter.expand(n_draws, -1), generator).double().numpy()


def counts_table(rng):
    mean = np.exp(1.0 + 0.5 * rng.normal(size=(200, 2)) @ rng.normal(size=(2, 5)))
    return rng.poisson(mean * rng.gamma(2.0, 0.5, size=mean.shape)).astype(float)


def likelihood_of(name):
    """A fitted likelihood in double, and parameters that its model decodes to."""
    rng = np.random.default_rng(0)
    X = counts_table(rng)
    if name == "gaussian":
        X = rng.normal(size=(200, 5)) * [1.0, 2.0, 5.0, 0.1, 10.0]
    if name == "bernoulli":
        X = (rng.random((200, 5)) < [0.1, 0.3, 0.5, 0.8, 0.95]).astype(float)
    fitted = HEBAETransformer(2, likelihood=name, max_iter=3, random_state=0).fit(X)
    model, minibatch = in_double(fitted), minibatch_of(fitted, X[:6])
    log_size = torch.from_numpy(np.log(X[:6].sum(axis=1).clip(1.0)))
    minibatch = minibatch.replace(log_size=log_size)
    z = torch.from_numpy(np.random.default_rng(1).normal(size=(6, 2)))
    with torch.no_grad():
        return model.likelihood, model.decode_rows(z, minibatch), minibatch


@pytest.mark.parametrize("name", ["gaussian", "bernoulli", "poisson", "negative_binomial"])
def test_variance_of_entries_is_that_of_draws(name):
    likelihood, parameter, _ = likelihood_of(name)
    with torch.no_grad():
        variance = likelihood.variance(parameter).numpy()
        mean = likelihood.mean(parameter).numpy()
    for row in range(2):
        draws = draw_entries(likelihood, parameter[row : row + 1])
        kurtosis = stats.kurtosis(draws, axis=0, fisher=False)
        error = 5.0 * np.sqrt(kurtosis / len(draws)) * variance[row]
        assert (np.abs(draws.var(axis=0) - variance[row]) < error + 1e-9).all()
        assert_allclose(
            draws.mean(axis=0), mean[row], atol=5.0 * (variance[row].max() / 4e4) ** 0.5
        )


def test_variance_of_entries_in_closed_form():
    likelihood, parameter, _ = likelihood_of("gaussian")
    with torch.no_grad():
        noise = likelihood.noise_variance().expand_as(parameter)
        assert_allclose(likelihood.variance(parameter), noise, rtol=1e-9)
    likelihood, parameter, _ = likelihood_of("bernoulli")
    with torch.no_grad():
        p = torch.sigmoid(parameter)
        expected = p * (1.0 - p) / likelihood.scale.square()
        assert_allclose(likelihood.variance(parameter), expected, rtol=1e-6)
    likelihood, parameter, _ = likelihood_of("poisson")
    with torch.no_grad():
        assert_allclose(likelihood.variance(parameter), parameter.exp(), rtol=1e-9)
    likelihood, parameter, _ = likelihood_of("negative_binomial")
    with torch.no_grad():
        mean = parameter.exp()
        expected = mean + mean.square() / likelihood.theta()
        assert_allclose(likelihood.variance(parameter), expected, rtol=1e-9)


def test_variance_of_entries_with_extra_zeros_is_a_lower_bound():
    likelihood, parameter, _ = likelihood_of("zero_inflated_negative_binomial")
    with torch.no_grad():
        bound = likelihood.variance(parameter)
        kept = torch.sigmoid(-likelihood.zi_logits)
        mean = parameter.exp()
        second = mean + mean.square() / likelihood.theta() + mean.square()
        variance = kept * second - (kept * mean).square()
    assert (bound > 0.0).all()
    assert (bound <= variance * (1.0 + 1e-9)).all()


@pytest.fixture(scope="module")
def mixed_frame():
    rng = np.random.default_rng(0)
    n = 150
    a = rng.normal(size=n)
    return pd.DataFrame(
        {
            "a": a,
            "b": 2.0 * a + 0.1 * rng.normal(size=n),
            "heavy": a + 0.1 * rng.standard_t(2.0, size=n),
            "level": pd.Categorical(np.where(a > 0.5, "x", np.where(a > -0.5, "y", "z"))),
            "flag": a + 0.3 * rng.normal(size=n) > 0.0,
            "other": pd.Categorical(rng.choice(["p", "q"], n)),
        }
    )


@pytest.fixture(scope="module")
def mixed(mixed_frame):
    """A fitted model of a mixed frame, and what its rows decode to."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = HEBAETransformer(2, likelihood={"heavy": "student_t"}, max_iter=20, random_state=0)
        fitted.fit(mixed_frame)
    model = fitted.fitted_.model
    x = fitted.fitted_.scaling.standardise(fitted.validate_rows(mixed_frame))
    minibatch = Minibatch(torch.from_numpy(x[:20]))
    with torch.no_grad():
        parameter = model.decode_rows(model.encode(minibatch)[0], minibatch)
    return fitted, model, minibatch, parameter


def test_variance_of_entries_of_levels_is_that_of_indicators(mixed):
    """Indicators of a softmax have p (1 - p), although their logits share a sum."""
    _, model, _, parameter = mixed
    likelihood = model.likelihood
    with torch.no_grad():
        variance = likelihood.variance(parameter).numpy()
    names = [type(part).__name__ for part in likelihood.likelihoods]
    assert "CategoricalLikelihood" in names
    assert "StudentTLikelihood" in names
    draws = draw_entries(likelihood, parameter[:1])
    start = 0
    for part in likelihood.likelihoods:
        own = slice(start, start + part.location.numel())
        start = own.stop
        if type(part).__name__ == "CategoricalLikelihood":
            p = part.mean(parameter[:, own]).detach() * part.scale + part.location
            expected = p * (1.0 - p) / part.scale.square()
            assert_allclose(variance[:, own], expected, rtol=1e-4, atol=1e-6)
        if type(part).__name__ == "StudentTLikelihood":
            # The least that the information allows; the variance is nu / (nu - 2) v, or infinite.
            nu, v = part.freedom().detach(), part.noise_variance().detach()
            expected = ((nu + 3.0) / (nu + 1.0) * v).expand(20, -1)
            assert_allclose(variance[:, own], expected, rtol=1e-5)
        if type(part).__name__ == "BinnedLikelihood":
            # Between bins, what a score may vary within them being left out.
            spread = draws[:, own].var(axis=0)
            assert (variance[0, own] < 1.05 * spread + 1e-4).all()
            n_scores = part.n_columns
            indicators = slice(own.start + n_scores, own.stop)
            assert_allclose(variance[0, indicators], spread[n_scores:], rtol=0.2, atol=1e-3)
            assert (variance[0, own][:n_scores] > 0.2 * spread[:n_scores]).all()
    assert (variance > 0.0).all()
    assert np.isfinite(draws).all()


def parts_of(likelihood):
    """Each part of a mixed likelihood, and where its features are."""
    start = 0
    for part in likelihood.likelihoods:
        yield part, slice(start, start + part.location.numel())
        start += part.location.numel()


# Residuals


def test_residual_of_counts_is_the_root_of_gap_times_pearson():
    for name in ("poisson", "negative_binomial"):
        likelihood, parameter, minibatch = likelihood_of(name)
        with torch.no_grad():
            mean = parameter.exp()
            variance = mean
            if name == "negative_binomial":
                variance = mean + mean.square() / likelihood.theta()
            gap = minibatch.x - mean
            pearson = gap / variance.sqrt()
            found = likelihood.pearson_residual(minibatch.x, parameter)
            assert_allclose(found, pearson, rtol=1e-6, atol=1e-9)
            expected = gap.sign() * (gap * pearson).abs().sqrt()
            assert_allclose(likelihood.residual(minibatch.x, parameter), expected, rtol=1e-6)


def test_residual_of_bernoulli_is_pearsons():
    likelihood, parameter, minibatch = likelihood_of("bernoulli")
    with torch.no_grad():
        p = torch.sigmoid(parameter)
        x = minibatch.x * likelihood.scale + likelihood.location
        expected = (x - p) / (p * (1.0 - p)).sqrt()
        found = likelihood.pearson_residual(minibatch.x, parameter)
    assert_allclose(found, expected, rtol=1e-4)


def test_residuals_of_a_mixed_table_are_those_of_its_parts(mixed):
    _, model, minibatch, parameter = mixed
    with torch.no_grad():
        found = model.likelihood.residual(minibatch.x, parameter)
        start = 0
        for part in model.likelihood.likelihoods:
            own = slice(start, start + part.location.numel())
            start = own.stop
            expected = part.residual(minibatch.x[:, own], parameter[:, own])
            assert_allclose(found[:, own], expected, rtol=1e-12)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("size", [10.0, 30.0, 200.0, 1e4])
def test_residuals_of_certain_predictions_are_finite(mixed, size):
    """Of a certain level or bit that is right next to nothing, and of a wrong one much."""
    _, model, minibatch, parameter = mixed
    with torch.no_grad():
        for part, own in parts_of(model.likelihood):
            values, x = parameter[:, own], minibatch.x[:, own]
            if type(part).__name__ == "BernoulliLikelihood":
                sign = (x * part.scale + part.location - 0.5).sign()
                right, wrong = part.residual(x, size * sign), part.residual(x, -size * sign)
            elif type(part).__name__ in ("CategoricalLikelihood", "BinnedLikelihood"):
                certain = part.parameter(size * x[:, :], None)
                right, wrong = (
                    part.residual(x, certain),
                    part.residual(x, part.parameter(-size * x, None)),
                )
            else:
                right, wrong = part.residual(x, values), part.residual(x, size + values)
            assert torch.isfinite(right).all()
            assert torch.isfinite(wrong).all()
            assert (wrong.square().sum(dim=1) > right.square().sum(dim=1)).all()
            if (
                type(part).__name__ in ("CategoricalLikelihood", "BernoulliLikelihood")
                and size > 20
            ):
                assert right.abs().max() < 1e-2
                assert (wrong.abs().amax(dim=1) > 10.0).all()
    counts, parameter, batch = likelihood_of("negative_binomial")
    with torch.no_grad():
        assert torch.isfinite(counts.residual(batch.x, parameter - size)).all()


@pytest.mark.parametrize(
    "name",
    ["gaussian", "bernoulli", "poisson", "negative_binomial", "zero_inflated_negative_binomial"],
)
def test_a_residual_has_the_sign_of_its_gap_and_grows_with_it(name):
    likelihood, parameter, _ = likelihood_of(name)
    with torch.no_grad():
        mean = likelihood.mean(parameter)
        steps = [0.5, 1.0, 3.0] if name != "bernoulli" else [0.1, 0.2, 0.3]
        above = torch.stack([likelihood.residual(mean + s, parameter) for s in steps])
    if name != "zero_inflated_negative_binomial":  # whose score is not that of its mean
        assert (above > 0.0).all()
        assert (above.diff(dim=0) > 0.0).all()
    assert torch.isfinite(above).all()


# Best reconstructions and posteriors


def test_nearest_generated_of_a_linear_model_is_least_squares(linear):
    model, minibatch, matrix, intercept, noise, scale = linear
    q = random_posterior()
    weighted = matrix / np.sqrt(noise)[:, None]
    target = ((minibatch.x.numpy() - intercept) / np.sqrt(noise)).T
    rest = target - weighted @ np.linalg.lstsq(weighted, target, rcond=None)[0]
    constant = 0.5 * np.log(2.0 * np.pi * noise * scale**2).sum()
    with torch.no_grad():
        found = nearest_generated(model, minibatch, q)
    assert_allclose(found, 0.5 * np.square(rest).sum(axis=0) + constant, rtol=1e-4, atol=1e-3)


def minimise(function, start):
    """The least of a function from a start, by scipy; without slopes, as decoders are in single."""
    options = {"xatol": 1e-6, "fatol": 1e-6, "maxiter": 2000, "maxfev": 4000}
    return optimize.minimize(function, start, method="Nelder-Mead", options=options).fun


def one_row(minibatch, i):
    return minibatch.map_rows(lambda t: t[i : i + 1])


def test_nearest_generated_of_a_curved_model_against_scipy(curved):
    """Not below the least, and near it where both go downhill from the row's code."""
    model, minibatch = curved
    with torch.no_grad():
        code = model.encode(minibatch)[0].double()
        q = RowPosterior(code, torch.zeros(N_ROWS, N_COMPONENTS, N_COMPONENTS).double())
        found = nearest_generated(model, minibatch, q).numpy()
        start = reconstruction(model, minibatch, q).numpy()
        gaps = []
        for i in range(12):
            row = one_row(minibatch, i)

            def function(z, row=row):
                return float(-model.log_prob(row, torch.from_numpy(z)[None]))

            gaps.append(found[i] - minimise(function, code[i].numpy()))
    assert (found <= start + 1e-9).all()
    assert (np.array(gaps) > -1e-3).sum() >= 10  # else scipy fell into a better valley
    assert np.median(gaps) < 0.05
    assert np.mean(np.array(gaps) < 0.5) > 0.8


def test_divergence_is_the_formula_and_infinite_for_points(curved):
    model, minibatch = curved
    q = random_posterior()
    covariance = (q.factor @ q.factor.transpose(1, 2)).numpy()
    trace = np.trace(covariance, axis1=1, axis2=2)
    log_det = np.linalg.slogdet(covariance)[1]
    expected = 0.5 * (trace + np.square(q.mean.numpy()).sum(axis=1) - N_COMPONENTS - log_det)
    assert_allclose(divergence(model, minibatch, q), expected, rtol=1e-9)
    point = RowPosterior(q.mean, torch.zeros_like(q.factor))
    assert (divergence(model, minibatch, point) == torch.inf).all()


def test_loss_is_divergence_plus_reconstruction(curved):
    model, minibatch = curved
    q = random_posterior()
    with torch.no_grad():
        parts = divergence(model, minibatch, q) + expected_reconstruction(model, minibatch, q)
        assert_allclose(loss(model, minibatch, q), parts, rtol=1e-12)


def test_regret_of_a_linear_model(linear):
    """The best bound is log p(x), and the bound at mu is less by a divergence of means."""
    model, minibatch, matrix, *_ = linear
    noise = linear[4]
    q = random_posterior()
    precision = np.eye(N_COMPONENTS) + matrix.T @ (matrix / noise[:, None])
    gap = minibatch.x.numpy() - linear[3]
    mode = np.linalg.solve(precision, matrix.T @ (gap / noise).T).T
    step = q.mean.numpy() - mode
    expected = 0.5 * np.einsum("ni,ij,nj->n", step, precision, step)
    with torch.no_grad():
        found = likelihood_regret(model, minibatch, q)
    assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    with torch.no_grad():
        at_mode = RowPosterior(torch.from_numpy(mode), q.factor)
        assert likelihood_regret(model, minibatch, at_mode).abs().max() < 1e-6


@pytest.mark.slow
def test_regret_against_an_optimised_posterior(curved):
    """The bound of the best Gaussian per row, by scipy over its mean and factor."""
    model, minibatch = curved
    with torch.no_grad():
        code = model.encode(minibatch)[0].double()
        q = RowPosterior(code, torch.zeros(N_ROWS, N_COMPONENTS, N_COMPONENTS).double())
        regret = likelihood_regret(model, minibatch, q).numpy()
        start = negative_bound(model, minibatch, q).numpy()
        assert (regret >= 0.0).all()
        gaps = []
        for i in range(6):
            row = one_row(minibatch, i)

            def function(v, row=row):
                mean, low = torch.from_numpy(v[:2])[None], torch.zeros(1, 2, 2).double()
                low[0, 0, 0], low[0, 1, 1], low[0, 1, 0] = np.exp(v[2]), np.exp(v[3]), v[4]
                return float(loss(model, row, RowPosterior(mean, low)))

            first = np.concatenate([code[i].numpy(), [-2.0, -2.0, 0.0]])
            best = minimise(function, first)
            gaps.append(start[i] - regret[i] - best)
    # Laplace's posterior is not quite the best, and never better.
    assert min(gaps) > -1e-3
    assert np.median(gaps) < 0.3
    assert max(gaps) < 1.0


# Codes


@given(st.integers(1, 4), st.integers(1, 3), st.integers(0, 1000))
@settings(max_examples=25)
def test_mixture_surprise_is_scipys(n_parts, d, seed):
    rng = np.random.default_rng(seed)
    weights = rng.dirichlet(np.ones(n_parts))
    means = rng.normal(size=(n_parts, d))
    factors = np.tril(rng.normal(size=(n_parts, d, d)))
    factors[:, np.arange(d), np.arange(d)] = rng.uniform(0.2, 2.0, (n_parts, d))
    codes = 3.0 * rng.normal(size=(10, d))
    densities = [
        w * stats.multivariate_normal(m, f @ f.T).pdf(codes).reshape(-1)
        for w, m, f in zip(weights, means, factors, strict=True)
    ]
    found = mixture_surprise(*map(torch.from_numpy, (codes, weights, means, factors)))
    assert_allclose(found, -np.log(np.sum(densities, axis=0)), rtol=1e-8, atol=1e-9)


def test_mixture_surprise_is_scikit_learns_and_finite_far_out():
    rng = np.random.default_rng(0)
    codes = np.concatenate([rng.normal(size=(60, 2)), 5.0 + rng.normal(size=(40, 2))])
    mixture = GaussianMixture(2, random_state=0).fit(codes)
    far = np.concatenate([codes, [[1e6, -1e6]]])
    found = mixture_surprise(
        torch.from_numpy(far).float(),
        *map(torch.from_numpy, (mixture.weights_, mixture.means_)),
        torch.linalg.cholesky(torch.from_numpy(mixture.covariances_)),
    )
    assert_allclose(found, -mixture.score_samples(far.astype(np.float32)), rtol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_bhattacharyya_is_the_integral(seed):
    """``-log int sqrt(p q)``, a sum over independent components."""
    rng = np.random.default_rng(seed)
    means, variances = rng.normal(size=(2, 3)), rng.uniform(0.1, 2.0, (2, 3))

    def overlap(k):
        one, two = (stats.norm(means[i, k], variances[i, k] ** 0.5).pdf for i in (0, 1))
        return quad(lambda t: np.sqrt(one(t) * two(t)), -30.0, 30.0, points=means[:, k])[0]

    expected = -sum(np.log(overlap(k)) for k in range(3))
    m, v = torch.from_numpy(means), torch.from_numpy(variances)
    found = bhattacharyya_distances(m[:1], v[:1], m, v)
    assert_allclose(found[0, 1], expected, rtol=1e-6)
    assert abs(float(found[0, 0])) < 1e-12


def test_bhattacharyya_of_tiny_and_huge_variances_is_finite():
    v = torch.tensor([[1e-19], [1.0], [1e30]])
    found = bhattacharyya_distances(torch.zeros(3, 1), v, torch.zeros(3, 1), v)
    assert torch.isfinite(found).all()
    assert (found >= -1e-6).all()


# Detectors


def detector(name, estimator=None, **params):
    if estimator is None:
        estimator = VAETransformer(3, hidden_layer_sizes=(16,), max_iter=5)
    return NoveltyDetector(
        estimator, novelty_score=name, **{"calibration": 0.2, "random_state": 0, **params}
    )


@pytest.fixture(scope="module")
def by_name(table):
    """One detector per score, fitted once."""
    known = {}

    def fit(name):
        if name not in known:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                known[name] = detector(name).fit(table[:200])
        return known[name]

    return fit


NAMES = sorted(SCORES)


@pytest.mark.parametrize("name", NAMES)
def test_a_row_alone_has_the_score_that_it_has_among_others(by_name, table, name):
    fitted = by_name(name)
    X = np.concatenate([table, 30.0 * table[:20] - 50.0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = fitted.score_samples(X)
        assert scores.dtype == np.float64
        assert np.isfinite(scores).all()
        for i in (*range(0, 240, 30), 199, 239, *range(240, 260, 4)):
            assert_array_equal(fitted.score_samples(X[i : i + 1]), scores[i : i + 1])
        for part in (slice(0, 7), slice(100, 133), slice(250, 260)):
            assert_array_equal(fitted.score_samples(X[part]), scores[part])
        order = np.random.default_rng(0).permutation(len(X))
        assert_array_equal(fitted.score_samples(X[order]), scores[order])
        assert_array_equal(fitted.score_samples(X), scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_same_fit_has_the_same_scores(by_name, table, name):
    again = detector(name).fit(table[:200])
    assert_array_equal(again.score_samples(table), by_name(name).score_samples(table))
    assert_array_equal(again.calibration_scores_, by_name(name).calibration_scores_)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_far_rows_are_stranger(by_name, table, name):
    if name in ("divergence", "regret", "nearest_generated", "bhattacharyya", "latent_distance"):
        pytest.skip("a score of codes, whose network may map what is far to what is near")
    fitted = by_name(name)
    X = table[200:]
    centre = table.mean(axis=0)
    wrong = centre + 3.0 * (np.random.default_rng(0).permuted(X, axis=1) - centre)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.median(fitted.score_samples(wrong)) < np.median(fitted.score_samples(X))


def test_scores_that_are_also_methods_of_the_autoencoder(by_name, table):
    for name, method in {"bound": "score_samples", "loss": "elbo"}.items():
        fitted = by_name(name)
        expected = getattr(fitted.autoencoder_, method)(table)
        assert_allclose(fitted.score_samples(table), expected, rtol=1e-5, atol=1e-4)


def test_joint_is_the_density_of_row_and_code(by_name, table):
    model = by_name("joint").autoencoder_
    fitted = model.fitted_
    mixture = fitted.mixture
    codes, _ = fitted.encode_with_spread(table)  # whitened: a rotation of those of the mixture
    rotation = fitted.axes.rotation
    density = sum(
        weight
        * stats.multivariate_normal(rotation.T @ mean, rotation.T @ cov @ rotation).pdf(codes)
        for weight, mean, cov in zip(
            mixture.weights, mixture.means, mixture.covariances, strict=True
        )
    )
    decoded = model.inverse_transform(model.transform(table))
    entries = stats.norm(decoded, np.sqrt(model.noise_variance_)).logpdf(table).sum(axis=1)
    found = by_name("joint").score_samples(table)
    np.testing.assert_allclose(found, entries + np.log(density), rtol=1e-4, atol=1e-3)


def test_typicality_is_the_distance_to_the_mean_bound(by_name, table):
    fitted, bound = by_name("typicality"), by_name("bound")
    held_out = -bound.calibration_scores_
    typical = -held_out.mean()
    assert_allclose(fitted.typical_bound_, typical, rtol=1e-9)
    assert_allclose(
        -fitted.score_samples(table), np.abs(-bound.score_samples(table) - typical), atol=1e-5
    )
    assert_allclose(
        fitted.calibration_scores_, np.sort(np.abs(bound.calibration_scores_ - typical)), rtol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["neighbours", "bound", "reconstruction_error", "typicality"])
def test_units_of_columns_do_not_matter(table, name):
    """Nats of original rows shift by the logarithm of the units, for all rows alike."""
    units = np.random.default_rng(0).uniform(0.001, 1000.0, (2, table.shape[1]))
    tables = [StandardScaler().fit(table[:200]).transform(table), *(table * u + 7.0 for u in units)]
    tables[0] *= units[0]
    first, *others = (detector(name).fit(X[:200]) for X in tables)
    before = first.score_samples(tables[0])
    for fitted, X in zip(others, tables[1:], strict=True):
        after = fitted.score_samples(X)
        shift = (before - after).mean() if name == "bound" else 0.0
        assert_allclose(after + shift, before, rtol=5e-3, atol=5e-3 * before.std())
        assert_allclose(fitted.p_values(X), first.p_values(tables[0]), atol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NAMES} - {"divergence"}))
def test_scores_of_rows_with_missing_entries(table, name):
    rng = np.random.default_rng(0)
    X = np.where(rng.random(table.shape) < 0.1, np.nan, table)
    X[rng.random(240) < 0.3] = np.nan_to_num(X[0], nan=3.0)
    fitted = detector(name).fit(X[:200])
    scores = fitted.score_samples(X)
    assert np.isfinite(scores).all()
    for i in (0, 17, 239):
        assert_array_equal(fitted.score_samples(X[i : i + 1]), scores[i : i + 1])
    empty = np.full((1, 12), np.nan)
    assert np.isfinite(fitted.score_samples(empty)).all()


def test_every_score_of_rows_is_tested_here():
    assert set(ROW_SCORES) < set(NAMES)
    assert len(NAMES) == 17
