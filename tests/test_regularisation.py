"""How much to regularise: the closed forms, the refits, and what is recommended."""

from __future__ import annotations

import matplotlib as mpl

mpl.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from numpydoc.validate import validate
from scipy.sparse import csr_matrix
from scipy.stats import multivariate_normal
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import KFold
from sklearn.pipeline import make_pipeline
from test_docstrings import OLD_STYLE, OPTIONAL

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.diagnostics import RegularisationPath, regularisation_path
from skhebae.diagnostics.gaussian import mean_log_density, shrunk_curves
from skhebae.divergences import minibatch_moments, regularised_covariance
from skhebae.plotting import RegularisationDisplay

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
CURVES = ("train", "held_out", "generated")


def rows(n, d, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def fitted_gaussian(train, nu):
    """The library's own moments and regularised covariance."""
    mean, covariance = minibatch_moments(torch.from_numpy(train))
    return mean.numpy(), regularised_covariance(covariance, len(train), nu).numpy()


def path_of(values, train, held_out, generated, error=0.0):
    curves = (np.asarray(of, dtype=float) for of in (values, train, held_out, generated))
    errors = dict.fromkeys((*CURVES, "difference"), np.full(len(values), error))
    return RegularisationPath("Gaussian", "nu", "log density", 9, 3, *curves, errors)


# Closed forms


def test_closed_forms_are_means_of_scipys_log_densities():
    train, test, values = rows(30, 4), rows(50, 4, 1), np.array([0.01, 1.0, 20.0, 1e4])
    curves = shrunk_curves(train, test, values)
    for i, nu in enumerate(values):
        gaussian = multivariate_normal(*fitted_gaussian(train, nu))
        assert curves.train[i] == pytest.approx(gaussian.logpdf(train).mean(), rel=1e-10)
        assert curves.held_out[i] == pytest.approx(gaussian.logpdf(test).mean(), rel=1e-10)
        assert curves.generated[i] == pytest.approx(-gaussian.entropy(), rel=1e-10)


def test_the_generated_curve_is_what_draws_have():
    train = rows(12, 3)
    gaussian = multivariate_normal(*fitted_gaussian(train, 2.0), seed=0)
    densities = gaussian.logpdf(gaussian.rvs(40_000))
    expected = shrunk_curves(train, train, np.array([2.0])).generated[0]
    assert abs(densities.mean() - expected) < 4 * densities.std() / 200


shapes = st.tuples(st.integers(2, 30), st.integers(1, 12), st.integers(0, 10_000))


@given(shapes)
@settings(max_examples=50)
def test_training_likelihood_falls_with_pseudo_rows_and_is_highest_at_the_fit(shape):
    """Where there is a fit without a prior, all that pulls away from it makes rows unlikelier."""
    n, d, seed = shape
    train = rows(n + d + 1, d, seed)
    # With the divisor n - 1, S is itself a little wide: the highest likelihood is at that of n.
    train = train / np.linalg.eigvalsh(np.atleast_2d(np.cov(train.T))).max() ** 0.5
    curves = shrunk_curves(train, train, np.geomspace(1e-6, 1e6, 30))
    # All variances are at most 1, so a prior at 1 only ever widens.
    assert (np.diff(curves.train) <= 1e-12 * np.abs(curves.train[1:])).all()
    assert (np.diff(curves.generated) <= 1e-12 * np.abs(curves.generated[1:])).all()


@given(shapes)
@settings(max_examples=50)
def test_without_pseudo_rows_training_and_generated_rows_differ_by_the_degrees_of_freedom(shape):
    n, d, seed = shape
    train = rows(n + d + 1, d, seed)
    curves = shrunk_curves(train, train, np.array([1e-9]))
    difference = curves.train - curves.generated
    assert_allclose(difference, 0.5 * d / len(train), rtol=1e-4, atol=1e-6)


@given(shapes)
@settings(max_examples=50)
def test_many_pseudo_rows_are_the_prior(shape):
    n, d, seed = shape
    train, test = rows(n, d, seed), rows(7, d, seed + 1)
    curves = shrunk_curves(train, test, np.array([1e15]))
    prior = multivariate_normal(train.mean(axis=0), np.eye(d))
    assert_allclose(curves.held_out, prior.logpdf(test).mean(), rtol=1e-6)
    assert_allclose(curves.generated, -prior.entropy(), rtol=1e-6)


@given(shapes, st.floats(1e-3, 1e6))
@settings(max_examples=50)
def test_rotations_change_nothing(shape, nu):
    """The prior knows no axes. Also with fewer rows than columns."""
    n, d, seed = shape
    train, test = rows(n, d, seed), rows(5, d, seed + 1)
    turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]
    for one, two in zip(
        shrunk_curves(train, test, np.array([nu])),
        shrunk_curves(train @ turn, test @ turn, np.array([nu])),
        strict=True,
    ):
        assert_allclose(one, two, rtol=1e-6, atol=1e-6)


def test_density_of_own_draws_is_minus_the_entropy():
    variances = np.array([0.5, 2.0, 7.0])
    expected = -multivariate_normal(np.zeros(3), np.diag(variances)).entropy()
    assert mean_log_density(variances, variances) == pytest.approx(expected)


# The path of a Gaussian


def test_path_is_the_mean_over_folds():
    X, values = rows(40, 3), [0.5, 5.0, 50.0]
    path = regularisation_path(X, values=values, cv=KFold(4))
    found = [shrunk_curves(X[a], X[b], np.array(values)) for a, b in KFold(4).split(X)]
    for name in CURVES:
        stacked = np.array([getattr(of, name) for of in found])
        assert_allclose(getattr(path, name), stacked.mean(axis=0))
        assert_allclose(path.errors[name], stacked.std(axis=0, ddof=1) / 2.0)
    held = np.array([of.held_out for of in found])
    apart = held - held[:, [path.best_index]]
    assert_allclose(path.errors["difference"], apart.std(axis=0, ddof=1) / 2.0)
    assert (path.n_folds, path.n_rows, path.parameter) == (4, 40, "covariance_prior")


def test_folds_are_shuffled_by_the_seed_only():
    X = rows(40, 3)
    first, again, other = (regularisation_path(X, random_state=seed) for seed in (0, 0, 1))
    assert_array_equal(first.held_out, again.held_out)
    assert (first.held_out != other.held_out).any()
    single = regularisation_path(X, cv=0.25)
    assert single.n_folds == 1
    assert np.isnan(single.errors["held_out"]).all()
    assert single.one_standard_error == single.best


def test_recommends_few_pseudo_rows_for_a_wide_truth_and_many_for_the_prior():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(60, 20))
    few = regularisation_path(noise * np.geomspace(0.1, 10.0, 20))
    many = regularisation_path(noise)
    assert few.best < 30
    assert many.best > 300
    assert not few.is_at_an_end
    assert many.crossing is not None
    assert many.best / 4 < many.crossing < 4 * many.best
    # A prior far from the rows' scale: its own draws stay likelier than any others.
    assert few.crossing is None


@pytest.mark.slow
def test_codes_of_an_estimator_are_its_whitened_codes(fitted, table):
    path = regularisation_path(fitted, table)
    codes = fitted.fitted_.encode_with_spread(table)[0]
    same = regularisation_path(codes)
    for name in CURVES:
        assert_allclose(getattr(path, name), getattr(same, name))
    assert type(fitted).__name__ in path.model


# What is recommended


def test_best_crossing_and_one_standard_error():
    path = path_of([1, 10, 100, 1000], [4, 3, 2, 1], [0, 2, 1.5, 0], [4, 3, 1, -2], error=0.6)
    assert path.best == 10
    assert path.one_standard_error == 100
    assert path.gap == 1.0
    assert not path.is_at_an_end
    assert path.crossing == pytest.approx(10 ** (1 + 1.0 / 1.5))
    linear = path_of([0, 10, 20], [4, 3, 2], [0, 2, 1], [4, 3, 0])
    assert linear.crossing == pytest.approx(15.0)
    assert linear.one_standard_error == linear.best
    assert path_of([0, 10], [4, 3], [0, 2], [4, 3]).crossing is None
    assert path_of([0, 10], [4, 3], [4, 2], [0, 3]).crossing is None


def test_text_and_frame():
    path = path_of([1, 10, 100], [4, 3, 2], [0, 2, 1], [4, 3, 0], error=0.25)
    text = repr(path)
    assert "2.000 +- 0.25" in text
    assert "nu = 10" in text
    assert "best" in text
    assert "nan" not in repr(path_of([1, 2], [0, 0], [0, 1], [0, 0], error=np.nan))
    assert "try larger ones" in repr(path_of([1, 2], [0, 0], [0, 1], [0, 0]))
    assert "try smaller ones" in repr(path_of([1, 2], [0, 0], [1, 0], [0, 0]))
    frame = path.to_frame()
    assert frame.index.name == "nu"
    assert list(frame.index) == [1.0, 10.0, 100.0]
    assert list(frame["held_out"]) == [0.0, 2.0, 1.0]
    assert list(frame["difference_error"]) == [0.25] * 3
    long = regularisation_path(rows(30, 2))
    assert len(repr(long).splitlines()) < 30
    assert "best" in repr(long)


# Refits

VALUES = [0.3, 3.0]


@pytest.fixture(scope="module")
def few(table):
    return table[:60]


def by_hand(model, X, folds, score="score", seed=None):
    """The same fits without the function, for an estimator with a seed of its own."""
    found = []
    for train, test in folds:
        line = []
        for beta in VALUES:
            fit = type(model)(**{**model.get_params(), "beta": beta}).fit(X[train])
            line.append([np.mean(getattr(fit, score)(X[of]), dtype=float) for of in (train, test)])
        found.append(line)
    return np.array(found)


@pytest.mark.parametrize("score", ["score", "log_likelihood"])
def test_refits_are_those_by_hand(few, brief, score):
    model = VAETransformer(**brief)
    folds = list(KFold(2).split(few))
    path = regularisation_path(
        model, few, parameter="beta", values=VALUES, cv=KFold(2), score=score, n_generated=50
    )
    expected = by_hand(model, few, folds, score)
    assert_allclose(path.train, expected[:, :, 0].mean(axis=0), rtol=1e-6)
    assert_allclose(path.held_out, expected[:, :, 1].mean(axis=0), rtol=1e-6)
    assert np.isfinite(path.generated).all()
    assert path.score == score
    assert path.model == "VAETransformer"
    assert not hasattr(model, "fitted_")


class AllRows:
    """Splits once, into all rows and the first ones again."""

    def split(self, X):
        yield np.arange(len(X)), np.arange(5)


def test_generated_rows_are_noisy_samples(few, brief):
    model = VAETransformer(**brief)
    found = regularisation_path(model, few, parameter="beta", values=[1, 2], cv=AllRows())
    # A row's noise costs half a nat per feature: a model's own means would be far likelier.
    fit = VAETransformer(**brief).fit(few)
    noisy, means = (fit.score(fit.sample(1000, noise=of, random_state=0)) for of in (True, False))
    assert means - noisy > 3.0
    assert abs(found.generated[0] - noisy) < 0.5


def test_a_random_state_makes_refits_repeatable(few, brief):
    unseeded = {**brief, "random_state": None}
    options = {"parameter": "row_share", "values": [0, 1], "cv": 0.5, "n_generated": 20}
    paths = [
        regularisation_path(HEBAETransformer(**unseeded), few, **options, random_state=seed)
        for seed in (3, 3, 4)
    ]
    assert_array_equal(paths[0].generated, paths[1].generated)
    assert (paths[0].train != paths[2].train).all()


@pytest.mark.parametrize("form", ["pandas", "polars", "sparse", "lists"])
def test_other_tables_give_the_same(few, brief, form):
    made = {
        "pandas": lambda X: pd.DataFrame(X, index=[f"row {i}" for i in range(len(X))]).set_axis(
            [f"c{i}" for i in range(X.shape[1])], axis=1
        ),
        "polars": lambda X: pl.DataFrame({f"c{i}": X[:, i] for i in range(X.shape[1])}),
        "sparse": csr_matrix,
        "lists": lambda X: X.tolist(),
    }[form](few)
    options = {"parameter": "reg_weight", "values": [0.5, 2], "cv": 0.3, "n_generated": 20}
    path = regularisation_path(WAETransformer(**brief), made, **options)
    expected = regularisation_path(WAETransformer(**brief), few, **options)
    assert_allclose(path.held_out, expected.held_out, rtol=1e-4)


def test_mixed_frames(brief):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.normal(size=60), "b": rng.choice(["x", "y"], 60)})
    path = regularisation_path(
        HEBAETransformer(**brief), frame, parameter="reg_weight", values=[0.5, 2], cv=0.3
    )
    assert np.isfinite([path.train, path.held_out, path.generated]).all()


def test_whole_numbers_stay_whole(few, brief):
    path = regularisation_path(
        VAETransformer(**brief), few, parameter="n_components", values=[1, 2], cv=0.5
    )
    assert_array_equal(path.values, [1.0, 2.0])


def test_a_bar_only_if_asked_for(few, brief, capsys):
    options = {"parameter": "beta", "values": VALUES, "cv": 0.5, "n_generated": 9}
    regularisation_path(VAETransformer(**brief), few, **options)
    assert capsys.readouterr() == ("", "")
    regularisation_path(VAETransformer(**brief), few, **options, verbose=1)
    out, err = capsys.readouterr()
    assert not out
    assert "2/2" in err


@pytest.mark.slow
def test_two_processes_find_the_same(few, brief):
    options = {"parameter": "beta", "values": VALUES, "cv": 2, "n_generated": 20}
    one = regularisation_path(VAETransformer(**brief), few, **options)
    two = regularisation_path(VAETransformer(**brief), few, **options, n_jobs=2)
    for name in CURVES:
        assert_allclose(getattr(one, name), getattr(two, name), rtol=1e-6)


# Errors


class Unfittable(VAETransformer):
    def fit(self, X, y=None, **given):
        raise AssertionError("fitted before the arguments were checked")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameter": "reg_weight"}, "'reg_weight' is none of Unfittable.*beta"),
        ({"values": None}, "parameter='beta' needs values="),
        ({"values": [1.0]}, "at least 2 numbers"),
        ({"values": [1.0, "auto"]}, "at least 2 numbers"),
        ({"values": [2.0, 1.0]}, r"numpy\.unique"),
        ({"values": [1.0, 1.0]}, r"numpy\.unique"),
        ({"values": [1.0, np.inf]}, "finite"),
        ({"values": [-1.0, 1.0]}, "values holds -1.0: The 'beta' parameter.*Leave it out"),
        ({"score": "elbow"}, "score='elbow' must be"),
        ({"n_generated": 0}, "n_generated=0 must be"),
        ({"cv": 1}, "cv=1 must be"),
        ({"cv": 500}, "240 rows, too few for cv=500"),
        ({"cv": 0.999}, "leaves 1 of 240 rows to fit to"),
    ],
)
def test_errors_come_before_any_fit(table, options, message):
    arguments = {"parameter": "beta", "values": VALUES, **options}
    with pytest.raises(ValueError, match=message):
        regularisation_path(Unfittable(2), table, **arguments)


def test_errors_of_what_is_measured(table, brief):
    with pytest.raises(TypeError, match="pass X"):
        regularisation_path(VAETransformer(), parameter="beta", values=VALUES)
    with pytest.raises(NotFittedError):
        regularisation_path(VAETransformer(), table)
    with pytest.raises(TypeError, match="pass X"):
        regularisation_path(VAETransformer(**brief).fit(table))
    with pytest.raises(TypeError, match="pass the rows or codes alone"):
        regularisation_path(table, table)
    for what in ({}, {"parameter": "beta", "values": VALUES}):
        with pytest.raises(TypeError, match=r"pipeline\[-1\]"):
            regularisation_path(make_pipeline(VAETransformer()), table, **what)
    with pytest.raises(TypeError, match="got ndarray"):
        regularisation_path(table, parameter="beta", values=VALUES)
    with pytest.raises(ValueError, match="must be > 0"):
        regularisation_path(table, values=[0.0, 1.0])
    with pytest.raises(ValueError, match="NaN"):
        regularisation_path(np.full((9, 2), np.nan))
    with pytest.raises(ValueError, match="leaves 1 of 3 rows to fit to"):
        regularisation_path(table[:3], cv=2)
    with pytest.raises(ValueError, match="4 rows, too few"):
        regularisation_path(table[:4])


def test_docstrings():
    for name in (
        "diagnostics.regularisation_path",
        "diagnostics.RegularisationPath",
        "plotting.RegularisationDisplay",
        "plotting.RegularisationDisplay.plot",
        "plotting.RegularisationDisplay.from_path",
        "plotting.RegularisationDisplay.from_estimator",
    ):
        errors = validate(f"skhebae.{name}")["errors"]
        # A value that a function returns has attributes, and nobody calls its constructor.
        ignored = OLD_STYLE | OPTIONAL | ({"PR01"} if name.endswith("Path") else set())
        assert [e for e in errors if e[0] not in ignored] == [], name


# Display


@pytest.fixture
def _closes_figures():
    yield
    plt.close("all")


@pytest.mark.usefixtures("_closes_figures")
def test_display_shows_curves_bands_and_places():
    path = path_of([1, 10, 100, 1000], [4, 3, 2, 1], [0, 2, 1.5, 0], [4, 3, 1, -2], error=0.6)
    drawn = RegularisationDisplay.from_path(path)
    lines = drawn.ax_.get_lines()
    for line, name in zip(lines, CURVES, strict=False):
        assert_array_equal(line.get_xydata(), np.column_stack([path.values, getattr(path, name)]))
    assert [line.get_xdata()[0] for line in lines[3:]] == [10, 100, path.crossing]
    assert len(drawn.ax_.collections) == 3
    assert drawn.ax_.get_xscale() == "log"
    drawn.figure_.canvas.draw()
    axes = plt.subplots()[1]
    assert drawn.plot(ax=axes).ax_ is axes
    with pytest.raises(ValueError, match="needs 1: the curves"):
        drawn.plot(ax=plt.subplots(2)[1])
    single = path_of([0, 10], [4, 3], [0, 2], [4, 3], error=np.nan)
    assert not RegularisationDisplay(single).plot().ax_.collections
    with pytest.raises(TypeError, match="path is a str"):
        RegularisationDisplay("curves")


@pytest.mark.usefixtures("_closes_figures")
def test_display_hides_nothing_behind_a_collapse():
    """Without regularisation, fewer rows than columns have a likelihood of minus thousands."""
    path = regularisation_path(rows(10, 30), values=np.geomspace(1e-3, 1e3, 20))
    low, high = RegularisationDisplay.from_path(path).ax_.get_ylim()
    assert path.held_out.min() < low < path.held_out.max() < high


@pytest.mark.usefixtures("_closes_figures")
def test_display_of_an_estimator(few, brief):
    options = {"parameter": "beta", "values": VALUES, "cv": 0.5, "n_generated": 9}
    drawn = RegularisationDisplay.from_estimator(VAETransformer(**brief), few, **options)
    expected = regularisation_path(VAETransformer(**brief), few, **options)
    assert_array_equal(drawn.path.held_out, expected.held_out)
    assert drawn.ax_.get_xlabel() == "beta"
