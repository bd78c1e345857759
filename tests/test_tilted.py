"""The tilted prior against mpmath, numerical integration, Monte Carlo, and what must hold of it."""

from __future__ import annotations

import copy
import pickle
from itertools import pairwise

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats
from sklearn.base import clone
from sklearn.utils.estimator_checks import estimator_checks_generator
from torch.autograd import gradcheck

from skhebae import AutoencoderTransformer, VAETransformer
from skhebae.data import FeatureScaling, Minibatch, Table
from skhebae.diagnostics import latent_report
from skhebae.exceptions import ModelFileError
from skhebae.fitted.build import Architecture, build_model
from skhebae.fitted.model_file import read_model, write_model
from skhebae.objectives import TiltedVAEObjective, VAEObjective, WAEObjective
from skhebae.posterior import log_likelihood
from skhebae.prior import StandardNormalPrior
from skhebae.tilted import (
    best_length,
    expected_diagonal_length,
    expected_length,
    expected_unit_length,
    log_partition,
    mean_length,
)
from skhebae.tilted_prior import TiltedPrior

SIZES, TILTS = (1, 2, 3, 10, 100), (0.0, 0.1, 1.0, 5.0, 25.0, 100.0)
GRID = pytest.mark.parametrize(("d", "tilt"), [(d, tilt) for d in SIZES for tilt in TILTS])
DIMENSIONS, ANY_TILT = st.integers(1, 100), st.floats(0.0, 100.0)


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def normal(*shape, seed=0):
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def lower(d, seed=0):
    """Lower factors with a positive diagonal, of unequal widths."""
    root = 0.5 * normal(5, d, d, seed=seed)
    return root.tril(-1) + (1.5 * root).diagonal(dim1=-2, dim2=-1).exp().diag_embed()


# The mathematics


@GRID
def test_log_partition_is_kummers(d, tilt):
    with mpmath.workdps(60):
        half, t = mpmath.mpf(d) / 2, mpmath.mpf(tilt)
        ratio = mpmath.gamma(half + 0.5) / mpmath.gamma(half)
        odd = t * mpmath.sqrt(2) * ratio * mpmath.hyp1f1(half + 0.5, 1.5, t**2 / 2)
        expected = float(mpmath.log(mpmath.hyp1f1(half, 0.5, t**2 / 2) + odd))
    assert log_partition(d, tilt) == pytest.approx(expected, rel=1e-13, abs=1e-13)


@GRID
def test_mean_length_is_the_slope_of_log_partition(d, tilt):
    step = 1e-4
    slope = (log_partition(d, tilt + step) - log_partition(d, tilt - step)) / (2.0 * step)
    assert mean_length(d, tilt) == pytest.approx(slope, rel=1e-6)


@pytest.mark.parametrize("d", SIZES)
@pytest.mark.parametrize("length", [0.0, 0.1, 1.0, 3.0, 25.0, 1000.0])
def test_expected_length_is_laguerres(d, length):
    with mpmath.workdps(30):
        half = mpmath.mpf(d) / 2
        ratio = mpmath.sqrt(2) * mpmath.gamma(half + 0.5) / mpmath.gamma(half)
        expected = float(ratio * mpmath.hyp1f1(-0.5, half, -(mpmath.mpf(length) ** 2) / 2))
    mean = torch.zeros(d, dtype=torch.float64)
    mean[-1] = length
    one = torch.ones_like(mean)
    for actual in (
        expected_unit_length(mean.norm(), d),
        expected_diagonal_length(mean, one),
        expected_length(mean, one.diag()),
    ):
        assert float(actual) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("spread", [[1.0], [1.0, 1e-6], [1e3, 1.0, 1e-3], [0.0, 2.0]])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_expected_length_of_unequal_variances_is_the_mean_of_draws(spread, shift):
    width = double(*spread)
    mean = torch.full_like(width, shift)
    lengths = (mean + width * normal(400_000, len(width))).norm(dim=1)
    error = float(lengths.std()) / len(lengths) ** 0.5
    assert float(expected_length(mean, width.diag())) == pytest.approx(
        float(lengths.mean()), abs=4.0 * error
    )


@settings(deadline=None, max_examples=30)
@given(d=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_expected_length_does_not_depend_on_axes(d, seed):
    mean, factor = normal(5, d, seed=seed), lower(d, seed)
    rotation = torch.linalg.qr(normal(d, d, seed=seed + 1)).Q
    turned = torch.linalg.cholesky(rotation @ factor @ factor.mT @ rotation.T)
    actual = expected_length(mean @ rotation.T, turned)
    assert_allclose(actual, expected_length(mean, factor), rtol=1e-10)


def test_expected_length_of_a_point_and_of_what_is_not_finite():
    mean = double([3.0, 4.0], [0.0, 0.0])
    assert_allclose(expected_length(mean, mean.new_zeros(2, 2, 2)), [5.0, 0.0], atol=1e-12)
    assert expected_length(mean, torch.full((2, 2, 2), torch.nan).double()).isnan().all()


@pytest.mark.parametrize(("d", "tilt", "expected"), [(3, 2.0, 0.80), (10, 3.0, 0.0), (1, 1.2, 0.0)])
def test_best_length_is_not_the_guess(d, tilt, expected):
    assert best_length(d, tilt) == pytest.approx(expected, abs=0.005)


@settings(deadline=None)
@given(d=DIMENSIONS, tilt=ANY_TILT)
def test_the_divergence_is_smallest_at_the_best_length(d, tilt):
    prior = TiltedPrior(d, tilt)
    best = prior.best_length
    grid = torch.cat([double(best), torch.linspace(0.0, best + 5.0, 200, dtype=torch.float64)])
    mean = torch.zeros(len(grid), d, dtype=torch.float64)
    mean[:, 0] = grid
    divergence = prior.unit_kl(mean)
    assert (divergence > -1e-9).all()
    assert (divergence >= divergence[0] - 1e-8).all()
    falling, rising = divergence[1:][grid[1:] < best], divergence[1:][grid[1:] > best]
    assert (falling.diff() < 1e-8).all()
    assert (rising.diff() > -1e-8).all()


# The prior


@pytest.mark.parametrize("d", [1, 2, 3])
@pytest.mark.parametrize("tilt", [0.5, 4.0, 25.0])
def test_density_integrates_to_one(d, tilt):
    prior = TiltedPrior(d, tilt)
    # In spherical coordinates; the density depends on the length alone.
    surface = {1: 2.0, 2: 2.0 * np.pi, 3: 4.0 * np.pi}[d]

    def shell(r):
        z = torch.zeros(d, dtype=torch.float64)
        z[0] = r
        return surface * r ** (d - 1) * float(prior.log_prob(z).exp())

    total, _ = integrate.quad(shell, max(0.0, tilt - 12.0), tilt + 12.0, epsabs=1e-10)
    assert total == pytest.approx(1.0, abs=1e-8)


def test_density_integrates_to_one_in_the_plane():
    prior, axis = TiltedPrior(2, 3.0), torch.linspace(-12.0, 12.0, 481, dtype=torch.float64)
    plane = torch.cartesian_prod(axis, axis)
    total = float(prior.log_prob(plane).exp().sum()) * float(axis[1] - axis[0]) ** 2
    assert total == pytest.approx(1.0, abs=1e-4)


@settings(deadline=None, max_examples=30)
@given(d=st.integers(1, 6), seed=st.integers(0, 2**32 - 1))
def test_without_a_tilt_it_is_the_standard_normal(d, seed):
    tilted, standard = TiltedPrior(d, 0.0), StandardNormalPrior(d)
    z, factor, log_var = normal(5, d, seed=seed), lower(d, seed), normal(5, d, seed=seed + 1)
    close = {"rtol": 1e-9, "atol": 1e-9}
    assert (tilted.best_length, tilted.deviation) == (0.0, pytest.approx(1.0))
    for name, arguments in {
        "log_prob": (z,),
        "gradient": (z,),
        "precision": (z,),
        "from_normal": (z,),
        "gaussian_kl": (z, factor),
        "diagonal_kl": (z, log_var),
        "scaled_kl": (z, log_var.exp(), factor[0]),
    }.items():
        expected = getattr(standard, name)(*arguments)
        assert_allclose(getattr(tilted, name)(*arguments), expected, err_msg=name, **close)
    assert_allclose(tilted.unit_kl(z), 0.5 * z.square().sum(dim=1), **close)


@pytest.mark.parametrize(("d", "tilt"), [(1, 2.0), (3, 4.0), (10, 25.0)])
def test_divergences_are_means_of_draws(d, tilt):
    prior, mean, factor = TiltedPrior(d, tilt), 2.0 * normal(d, seed=1), lower(d, 2)[0]
    q = torch.distributions.MultivariateNormal(mean, scale_tril=factor)
    z = mean + normal(200_000, d, seed=3) @ factor.T
    ratio = q.log_prob(z) - prior.log_prob(z)
    error = float(ratio.std()) / len(ratio) ** 0.5
    expected = pytest.approx(float(ratio.mean()), abs=4.0 * error)
    assert float(prior.gaussian_kl(mean, factor)) == expected
    one = torch.eye(d, dtype=torch.float64)
    assert_allclose(prior.unit_kl(mean), prior.gaussian_kl(mean, one), rtol=1e-10)
    log_var = normal(1, d, seed=4)
    wide = (0.5 * log_var).exp().diag_embed()
    assert_allclose(prior.diagonal_kl(mean[None], log_var), prior.gaussian_kl(mean[None], wide))


def test_divergences_of_a_line_are_integrals():
    prior, mean, width = TiltedPrior(1, 3.0), 1.5, 0.7

    def integrand(z):
        log_q = stats.norm(mean, width).logpdf(z)
        return np.exp(log_q) * (log_q - float(prior.log_prob(double(z))))

    ends = (mean - 10.0, 0.0, mean + 10.0)
    expected = sum(integrate.quad(integrand, *of, epsabs=1e-11)[0] for of in pairwise(ends))
    assert float(prior.gaussian_kl(double(mean), double([width]))) == pytest.approx(expected)
    point = prior.gaussian_kl(torch.zeros(2, 1), torch.zeros(2, 1, 1))
    assert point.tolist() == [torch.inf] * 2


def test_single_precision_loses_little():
    prior, mean, factor = TiltedPrior(10, 25.0), 8.0 * normal(5, 10), lower(10)
    for name, arguments in {
        "gaussian_kl": (mean, factor),
        "diagonal_kl": (mean, normal(5, 10, seed=1)),
        "unit_kl": (mean,),
        "log_kernel": (mean,),
    }.items():
        rounded = [of.float() for of in arguments]
        single = getattr(prior, name)(*rounded)
        assert single.dtype == torch.float32
        wide = getattr(prior, name)(*(of.double() for of in rounded))
        assert_allclose(single, wide, rtol=1e-5, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("tilt", [0.5, 4.0])
def test_gradients_by_finite_differences(tilt):
    prior, mean, factor = TiltedPrior(3, tilt), normal(2, 3), lower(3)[:2]
    inputs = [of.clone().requires_grad_() for of in (mean, factor)]
    assert gradcheck(lambda m, f: prior.gaussian_kl(m, f.tril()), inputs, fast_mode=True, atol=1e-6)
    # Equal eigenvalues, whose vectors have no derivatives.
    same = torch.eye(3, dtype=torch.float64).expand(2, 3, 3).clone().requires_grad_()
    assert gradcheck(lambda f: prior.gaussian_kl(mean, f.tril()), same, fast_mode=True, atol=1e-6)
    spread = normal(2, 3, seed=1).exp().requires_grad_()
    assert gradcheck(lambda s: prior.scaled_kl(mean, s, factor[0]), spread, fast_mode=True)
    log_var = normal(2, 3, seed=2).requires_grad_()
    assert gradcheck(prior.diagonal_kl, (inputs[0], log_var), fast_mode=True)
    assert gradcheck(prior.unit_kl, inputs[0], fast_mode=True)
    direct = torch.autograd.grad(prior.log_prob(inputs[0]).sum(), inputs[0])[0]
    assert_allclose(prior.gradient(mean), direct, rtol=1e-10)
    assert (prior.gradient(torch.zeros(2, 3)) == 0.0).all()


@pytest.mark.parametrize(("d", "tilt"), [(1, 3.0), (3, 0.5), (10, 25.0)])
def test_precision_is_the_curvature_where_that_is_positive(d, tilt):
    prior = TiltedPrior(d, tilt)
    z = normal(6, d) * double(0.0, 0.1, 1.0, 5.0, 30.0, 200.0)[:, None]
    precision = prior.precision(z.float())
    assert precision.dtype == torch.float64
    smallest = torch.linalg.eigvalsh(precision)[:, 0]
    assert (smallest >= prior.deviation**-2 - 1e-9).all()
    hessian = torch.autograd.functional.hessian(prior.log_prob, z[-1].float().double())
    assert_allclose(precision[-1], -hessian, atol=1e-9)


@GRID
def test_samples_have_the_density_of_lengths(d, tilt):
    prior = TiltedPrior(d, tilt)
    draws = prior.sample(4000, np.random.RandomState(2))
    assert draws.shape == (4000, d)
    mode = 0.5 * (tilt + (tilt**2 + 4.0 * (d - 1)) ** 0.5)
    grid = np.linspace(max(1e-9, mode - 12.0), mode + 12.0, 50_001)
    density = (d - 1) * np.log(grid) + tilt * grid - 0.5 * grid**2
    below = integrate.cumulative_trapezoid(np.exp(density - density.max()), grid, initial=0.0)
    lengths = np.linalg.norm(draws, axis=1)
    found = stats.kstest(lengths, lambda r: np.interp(r, grid, below / below[-1]))
    assert found.pvalue > 1e-3
    # Five standard errors, of a mean whose direction is uniform.
    assert np.linalg.norm(draws.mean(axis=0)) < (d**0.5 + 5.0) * prior.deviation / 4000**0.5
    assert_allclose(draws.std(), prior.deviation, rtol=0.05)
    # The order within rows of normal draws is that of the generator.
    assert_allclose(prior.sample(9, np.random.RandomState(2)), draws[:9], rtol=1e-12)
    assert (prior.from_normal(torch.zeros(2, d)) == 0.0).all()


def test_the_log_likelihood_of_a_linear_model_is_the_integral():
    scaling = FeatureScaling.measure(Table(np.random.default_rng(0).normal(size=(50, 3))))
    architecture = Architecture(3, 2, (), "relu", "gaussian", 0, tilt=4.0)
    model = build_model(architecture, scaling, torch.Generator().manual_seed(0)).eval()
    assert isinstance(model.prior, TiltedPrior)
    x = 2.0 * normal(4, 3, seed=5).float()
    axis = torch.linspace(-11.0, 11.0, 401)
    plane = torch.cartesian_prod(axis, axis)
    noise = normal(4000, 2, seed=6).float()
    with torch.no_grad():
        # A decoder that tells both ends of the circle apart: the proposal has one mode.
        model.decoder[0].weight.copy_(1.5 * torch.eye(3, 2))
        actual = log_likelihood(model, Minibatch(x), noise)
        for row, found in zip(x, actual, strict=True):
            many = Minibatch(row.expand(len(plane), -1))
            joint = model.log_prob(many, plane) + model.prior.log_prob(plane)
            exact = joint.double().logsumexp(dim=0) + 2.0 * torch.log(axis[1] - axis[0])
            assert float(found) == pytest.approx(float(exact), abs=0.05)


# The estimator


@pytest.fixture(scope="module")
def model(table, quick):
    return VAETransformer(**quick, prior="tilted", tilt=6).fit(table)


def test_bounds_are_those_of_the_tilted_prior(model, table):
    fitted = model.fitted_
    assert (fitted.architecture.n_scales, fitted.architecture.tilt) == (0, 6.0)
    assert isinstance(fitted.prior, TiltedPrior)
    mean, spread = fitted.encode_with_spread(table)
    assert (spread == 1.0).all()
    assert_array_equal(mean, model.transform(table))
    divergence = fitted.prior.unit_kl(torch.from_numpy(mean)).numpy()
    expected = fitted.expected_log_prob(table) - divergence
    assert_allclose(model.elbo(table), expected, rtol=1e-4, atol=1e-4)
    assert model.history_["elbo"][-1] == pytest.approx(expected.mean(), abs=2.0)
    assert model.log_likelihood(table, n_draws=100).mean() > model.elbo(table).mean()
    assert np.linalg.norm(mean, axis=1).mean() == pytest.approx(fitted.prior.best_length, rel=0.1)
    draws = fitted.sample(300, "prior", np.random.RandomState(0))
    codes = fitted.prior.sample(300, np.random.RandomState(0)).astype(np.float32)
    assert_array_equal(draws, fitted.decode(codes))
    report = latent_report(model, table)
    assert report.row_kl == pytest.approx(divergence.mean(), rel=1e-4)
    assert report.elbo == pytest.approx(expected.mean(), rel=1e-4)
    assert report.prior == "TiltedPrior"


def test_copies_and_files(model, table, tmp_path):
    codes, scores = model.transform(table), model.score_samples(table)
    assert clone(model).get_params() == model.get_params()
    path = tmp_path / "model.skhebae"
    model.save(path)
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        VAETransformer.load(path),
    ):
        assert other.get_params() == model.get_params()
        assert_array_equal(other.transform(table), codes)
        assert_array_equal(other.score_samples(table), scores)
        assert_array_equal(
            other.sample(5, latent="prior", random_state=0),
            model.sample(5, latent="prior", random_state=0),
        )
    # A file has what was fitted, whatever the parameters say by now.
    copy.deepcopy(model).set_params(prior="standard", tilt="auto").save(path)
    assert VAETransformer.load(path).prior == "tilted"
    params, fitted = read_model(path, "VAETransformer")
    for tilt in ("6", -1.0, np.inf, 1e9):
        fitted["_architecture"]["tilt"] = tilt
        damaged = tmp_path / f"{tilt}.skhebae"
        write_model(damaged, "VAETransformer", params, fitted)
        with pytest.raises(ModelFileError, match="tilt"):
            VAETransformer.load(damaged)


def test_files_of_the_standard_prior_are_as_before(table, brief, tmp_path):
    path = tmp_path / "model.skhebae"
    VAETransformer(**brief).fit(table).save(path)
    params, fitted = read_model(path, "VAETransformer")
    assert "tilt" not in fitted["_architecture"]
    write_model(
        path,
        "VAETransformer",
        {k: v for k, v in params.items() if k not in ("prior", "tilt")},
        fitted,
    )
    assert VAETransformer.load(path).prior == "standard"


def test_a_tilt_needs_the_tilted_prior(table, brief):
    message = r"tilt=2\.5 is that of the tilted prior, and prior='standard'\. Use prior=\"tilted\""
    with pytest.raises(ValueError, match=message):
        VAETransformer(**brief, tilt=2.5).fit(table)
    tilted = VAETransformer(**brief, prior="tilted").fit(table)
    assert tilted.fitted_.prior.tilt == pytest.approx(3.0 * 3**0.5)
    with pytest.raises(ValueError, match=r"tilt is 9\.0, but the fitted"):
        tilted.set_params(tilt=9.0).partial_fit(table)
    with pytest.raises(ValueError, match="tilt is None, but the fitted"):
        tilted.set_params(prior="standard", tilt="auto", warm_start=True).fit(table)


def test_the_linear_path_starts_at_the_size_of_the_prior(table, brief):
    params = {**brief, "linear_path": True, "learning_rate_init": 1e-30}
    tilted = VAETransformer(**params, prior="tilted", tilt=20.0).fit(table).fitted_
    standard = VAETransformer(**params).fit(table).fitted_.with_encoder_codes()
    factor = tilted.prior.deviation
    assert factor > 10.0
    assert_allclose(tilted.encode(table).std(axis=0, ddof=1), factor, rtol=1e-4)
    assert_allclose(tilted.encode(table), factor * standard.encode(table), rtol=1e-4, atol=1e-4)
    ours, theirs = (of.model.decoder.path.weight.detach() for of in (tilted, standard))
    assert_allclose(factor * ours, theirs, rtol=1e-5)


@pytest.mark.parametrize("objective", [VAEObjective, WAEObjective, TiltedVAEObjective])
def test_other_objectives_take_the_prior(objective, table, brief):
    ours = AutoencoderTransformer(**brief, objective=objective, prior=TiltedPrior).fit(table)
    assert np.isfinite(ours.score_samples(table)).all()
    if objective is TiltedVAEObjective:
        same = VAETransformer(**brief, prior="tilted").fit(table)
        assert_array_equal(ours.transform(table), same.transform(table))


def test_the_tilted_objective_takes_no_other_prior(table, brief):
    with pytest.raises(TypeError, match="TiltedVAEObjective cannot regularise codes towards"):
        AutoencoderTransformer(**brief, objective=TiltedVAEObjective).fit(table)


def test_missing_values_and_counts(table, brief):
    holed = np.where(np.random.default_rng(0).random(table.shape) < 0.2, np.nan, table)
    model = VAETransformer(**brief, prior="tilted").fit(holed)
    assert np.isfinite(model.transform(holed)).all()
    assert np.isfinite(model.score_samples(holed)).all()
    counts = np.random.default_rng(0).poisson(3.0, size=(60, 8))
    model = VAETransformer(**brief, prior="tilted", likelihood="poisson").fit(counts)
    assert np.isfinite(model.elbo(counts)).all()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_scikit_learns_checks():
    estimator = VAETransformer(2, max_iter=2, random_state=0, prior="tilted")
    for checked, check in estimator_checks_generator(estimator):
        # See tests/test_sklearn_contract.py.
        if "sample_weight_equivalence" not in check.func.__name__:
            check(checked)


def test_a_row_alone_has_the_score_that_it_has_among_others(model, table):
    together = model.score_samples(table)
    alone = np.concatenate([model.score_samples(table[i : i + 1]) for i in range(20)])
    assert_array_equal(alone, together[:20])
    assert_array_equal(model.transform(table[5:6]), model.transform(table)[5:6])
    elbo = np.concatenate([model.elbo(table[i : i + 1]) for i in range(20)])
    assert_array_equal(elbo, model.elbo(table)[:20])
