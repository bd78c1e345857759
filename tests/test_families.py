"""Families of the columns of mixed tables: one suite that all of them join."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import integrate, stats

from skhebae import HEBAETransformer
from skhebae.data import Table, encode_frame, find_kinds, measure_columns
from skhebae.likelihoods import Circular, MixedLikelihood, MixedScaling, choose_families
from skhebae.likelihoods.categorical import MOST_OUTPUTS
from skhebae.likelihoods.intervals import log_interval, log_normal_cdf
from skhebae.likelihoods.normal_scores import find_segments, find_step

N_ROWS = 400


def of_frame(frame, families="from_dtype"):
    """Return the scaling of a frame, its likelihood in double, and its rows as numbers."""
    kinds = find_kinds(frame, "pandas")
    columns = measure_columns(frame, "pandas", kinds, choose_families(kinds, families))
    X = encode_frame(frame, columns)
    scaling = MixedScaling.measure(Table(X, columns=columns))
    return scaling, MixedLikelihood.from_scaling(scaling).double(), X


LETTERS = list("abcde")
RNG = np.random.default_rng(0)
SKEWED = np.exp(RNG.normal(size=N_ROWS))
SPIKED = np.where(RNG.random(N_ROWS) < 0.6, 0.0, SKEWED)
COUNTS = RNG.negative_binomial(2, 0.1, N_ROWS)
#: A column and its family; values that are possible, where they can be counted.
DISCRETE = {
    "categorical": (
        "categorical",
        RNG.choice(LETTERS, N_ROWS, p=[0.5, 0.3, 0.1, 0.07, 0.03]),
    ),
    "categorical of numbers": ("categorical", RNG.integers(0, 4, N_ROWS)),
    "two levels": ("categorical", RNG.choice(["no", "yes"], N_ROWS)),
    "ordinal": ("ordinal", RNG.integers(1, 6, N_ROWS)),
    "boolean": ("boolean", RNG.random(N_ROWS) < 0.2),
    "integer": ("integer", COUNTS),
    "integer of scores": ("quantile", COUNTS),
    "integer with gaps": ("integer", 10 * RNG.integers(0, 4, N_ROWS) ** 3),
}
CONTINUOUS = {
    "quantile": ("quantile", SKEWED),
    "binned": ("binned", SKEWED),
    "binned spike at zero": ("binned", SPIKED),
    "spike at zero": ("quantile", SPIKED),
    "student_t": ("student_t", RNG.standard_t(2, N_ROWS)),
    "gaussian": ("gaussian", RNG.normal(5.0, 3.0, N_ROWS)),
    "circular": (Circular(24.0), RNG.vonmises(0.0, 2.0, N_ROWS) * 12.0 / np.pi % 24.0),
}
ALL = DISCRETE | CONTINUOUS


def case(name):
    family, values = ALL[name]
    return of_frame(pd.DataFrame({"x": values}), {"x": family})


def parameters(likelihood, n_rows=4, spread=0.7):
    """Return parameters around those that decoding starts from."""
    generator = torch.Generator().manual_seed(1)
    q = len(likelihood.location)
    noise = torch.randn((n_rows, q), generator=generator, dtype=torch.float64)
    return likelihood.parameter(likelihood.initial_bias() + spread * noise, None)


def log_probs(scaling, likelihood, X, parameter):
    """Return the log-probabilities of rows (m, 1) for one parameter (q,)."""
    x = torch.from_numpy(scaling.standardise(X).astype(np.float64))
    with torch.no_grad():
        return likelihood.log_prob(x, parameter.expand(len(x), -1)).numpy()


def possible(name, scaling):
    """Return all values that a discrete column may have, or nearly all, as numbers (m, 1)."""
    column = scaling.columns.items[0]
    if column.levels is not None:
        return np.arange(len(column.levels), dtype=float)[:, None]
    if column.kind == "boolean":
        return np.array([[0.0], [1.0]])
    return np.arange(-3000.0, 6000.0)[:, None]


@pytest.mark.parametrize("name", list(DISCRETE))
def test_probabilities_sum_to_one(name):
    scaling, likelihood, _ = case(name)
    values = possible(name, scaling)
    for parameter in parameters(likelihood):
        total = np.exp(log_probs(scaling, likelihood, values, parameter)).sum()
        assert_allclose(total, 1.0, atol=2e-3)


def grid_of(name, scaling):
    """Return values of a continuous column close together, its atoms left out."""
    if name == "circular":
        return np.linspace(0.0, 24.0, 20001)
    if "spike at zero" in name:
        tail = np.geomspace(1e-9, 200.0, 200_000)
        return np.concatenate([-np.geomspace(1e-9, 50.0, 100_000)[::-1], tail])
    values = ALL[name][1]
    wide = {"student_t": 3000.0}.get(name, 6.0)
    return np.linspace(
        values.min() - wide * values.std(), values.max() + wide * values.std(), 500_001
    )


@pytest.mark.parametrize("name", list(CONTINUOUS))
def test_densities_integrate_to_one(name):
    scaling, likelihood, _ = case(name)
    grid = grid_of(name, scaling)
    for parameter in parameters(likelihood, 2):
        density = np.exp(log_probs(scaling, likelihood, grid[:, None], parameter))
        total = integrate.trapezoid(density, grid)
        if "spike at zero" in name:
            total += np.exp(log_probs(scaling, likelihood, np.zeros((1, 1)), parameter))[0]
        assert_allclose(total, 1.0, atol=4e-3)


@pytest.mark.parametrize("name", list(ALL))
def test_gradients(name):
    scaling, likelihood, X = case(name)
    x = torch.from_numpy(scaling.standardise(X[:6]).astype(np.float64))
    parameter = parameters(likelihood, 6).detach().requires_grad_()
    assert torch.autograd.gradcheck(lambda p: likelihood.entry_log_prob(x, p), (parameter,))
    assert torch.autograd.gradcheck(
        lambda p: likelihood.mean(p), (parameter,), check_undefined_grad=False
    )


def draws(scaling, likelihood, parameter, n_draws=20_000):
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        rows = likelihood.sample(parameter.expand(n_draws, -1), generator)
    return likelihood.original_rows(rows.numpy().astype(np.float32), scaling, drawn=True)[:, 0]


@pytest.mark.parametrize("name", list(DISCRETE))
def test_draws_of_discrete_columns_have_their_probabilities(name):
    scaling, likelihood, X = case(name)
    parameter = parameters(likelihood, 1)[0]
    drawn = draws(scaling, likelihood, parameter)
    values, counts = np.unique(drawn, return_counts=True)
    assert X.min() <= values.min() <= values.max() <= X.max()
    expected = np.exp(log_probs(scaling, likelihood, values[:, None], parameter)) * len(drawn)
    # Draws beyond the range of fit are put at its ends.
    inner = (values > X.min()) & (values < X.max()) if "integer" in name else slice(None)
    counts, expected = counts[inner], expected[inner]
    often = expected > 10.0
    rest = len(drawn) - counts[often].sum()
    observed = np.append(counts[often], rest)
    wanted = np.append(expected[often], len(drawn) - expected[often].sum())
    kept = wanted > 5.0
    statistic = np.square(observed - wanted)[kept] / wanted[kept]
    assert stats.chi2.sf(statistic.sum(), max(1, kept.sum() - 1)) > 1e-3


@pytest.mark.parametrize("name", list(CONTINUOUS))
def test_draws_of_continuous_columns_have_their_density(name):
    scaling, likelihood, X = case(name)
    parameter = parameters(likelihood, 1)[0]
    drawn = draws(scaling, likelihood, parameter)
    grid = grid_of(name, scaling)
    density = np.exp(log_probs(scaling, likelihood, grid[:, None], parameter))
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    below = np.concatenate([[0.0], np.cumsum(steps)])
    if "spike at zero" in name:
        spike = np.exp(log_probs(scaling, likelihood, np.zeros((1, 1)), parameter))[0]
        assert abs((drawn == 0.0).mean() - spike) < 0.02
        below = below + spike * (grid > 0.0)
    if name not in ("student_t", "gaussian", "circular"):
        assert drawn.min() >= X.min()
        assert drawn.max() <= X.max()
    inner = np.quantile(drawn, np.linspace(0.02, 0.98, 40))
    inner = inner[(inner > X.min()) & (inner < X.max())]
    theory = np.interp(inner, grid, below)
    observed = np.searchsorted(np.sort(drawn), inner, side="right") / len(drawn)
    assert np.abs(theory - observed).max() < 0.015


@pytest.mark.parametrize("name", list(ALL))
def test_information_is_positive_and_rows_come_back(name):
    scaling, likelihood, X = case(name)
    assert (likelihood.fisher_information(parameters(likelihood)) > 0.0).all()
    standardised = scaling.standardise(X)
    assert standardised.dtype == np.float32
    back = likelihood.original_rows(standardised, scaling, drawn=True)
    assert_allclose(back, X, rtol=1e-4, atol=1e-4 * X.std())
    # All columns count alike, whatever their kind.
    if name != "student_t":
        assert_allclose(np.var(standardised, axis=0).sum(), 1.0, atol=0.35)


@pytest.mark.parametrize(
    "name",
    [
        "ordinal",
        "integer of scores",
        "quantile",
        "spike at zero",
        "student_t",
        "gaussian",
        "circular",
    ],
)
def test_information_is_that_of_draws(name):
    """The mean square of the derivative of the log-probability, over draws."""
    _, likelihood, _ = case(name)
    for parameter in parameters(likelihood, 3, spread=0.3):
        # Not in the units of the table: those would put values beyond the range of fit at its ends.
        generator = torch.Generator().manual_seed(0)
        many = parameter.detach().expand(20_000, -1).clone().requires_grad_()
        x = likelihood.sample(many, generator).detach()
        rows = likelihood.log_prob(x, many)
        (slope,) = torch.autograd.grad(rows.sum(), many)
        expected = likelihood.fisher_information(parameter[None]).detach().sum()
        assert_allclose(slope.square().mean(dim=0).sum(), expected, rtol=0.1)


def test_information_about_log_probabilities_is_exact_along_them():
    _, likelihood, _ = case("categorical")
    logits = torch.randn(5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = logits.softmax(dim=0)
    jacobian = torch.autograd.functional.jacobian(
        lambda values: likelihood.parameter(values[None], None)[0], logits
    )
    weight = likelihood.fisher_information(p.log()[None])[0]
    expected = torch.diag(p) - torch.outer(p, p)
    assert_allclose(jacobian.T @ torch.diag(weight) @ jacobian, expected, atol=1e-9)


@pytest.mark.parametrize("name", ["categorical", "quantile", "integer", "ordinal", "circular"])
def test_the_first_bias_predicts_the_table(name):
    scaling, likelihood, X = case(name)
    start = likelihood.parameter(likelihood.initial_bias()[None], None)
    drawn = draws(scaling, likelihood, start[0])
    if name == "categorical":
        shares = np.bincount(drawn.astype(int), minlength=5) / len(drawn)
        assert_allclose(shares, np.bincount(X[:, 0].astype(int)) / len(X), atol=0.02)
    elif name == "circular":
        assert_allclose(
            np.exp(2j * np.pi * drawn / 24.0).mean(),
            np.exp(2j * np.pi * X / 24.0).mean(),
            atol=0.06,
        )
    else:
        assert stats.ks_2samp(drawn, X[:, 0]).statistic < 0.08


# Tables


def mixed_frame():
    return pd.DataFrame({name: values for name, (_, values) in ALL.items()})


def test_the_composite_is_the_sum_of_its_parts():
    frame = mixed_frame()
    families = {name: family for name, (family, _) in ALL.items()}
    scaling, likelihood, X = of_frame(frame, families)
    x = torch.from_numpy(scaling.standardise(X).astype(np.float64))
    start = likelihood.parameter(likelihood.initial_bias()[None], None)
    total = likelihood.log_prob(x, start.expand(len(x), -1))
    expected = torch.zeros_like(total)
    for j, name in enumerate(frame):
        own_scaling, own, own_X = of_frame(frame[[name]], {name: families[name]})
        assert_array_equal(own_X[:, 0], X[:, j])
        own_x = torch.from_numpy(own_scaling.standardise(own_X).astype(np.float64))
        own_start = own.parameter(own.initial_bias()[None], None)
        # Noise starts at the mean of all columns of a family.
        expected += own.log_prob(own_x, own_start.expand(len(x), -1))
    assert_allclose(total.detach(), expected.detach(), rtol=1e-5)


def test_the_order_of_columns_changes_nothing():
    frame = mixed_frame()
    families = {name: family for name, (family, _) in ALL.items()}
    results = []
    for names in (list(frame), list(frame)[::-1]):
        scaling, likelihood, X = of_frame(frame[names], families)
        x = torch.from_numpy(scaling.standardise(X).astype(np.float64))
        start = likelihood.parameter(likelihood.initial_bias()[None], None).expand(len(x), -1)
        results.append(likelihood.log_prob(x, start).detach().numpy())
    assert_allclose(results[0], results[1], rtol=1e-6)


def test_missing_values_are_masked_whole():
    frame = mixed_frame().astype({"integer": "float64"})
    frame["integer"] = frame["integer"].where(np.arange(N_ROWS) % 3 > 0)
    frame.loc[::4, "categorical"] = None
    scaling, _, X = of_frame(frame)
    missing = np.isnan(scaling.standardise(X))
    assert np.isnan(X).sum(axis=1).max() == 2
    assert_array_equal(missing.any(axis=1), np.isnan(X).any(axis=1))
    # A row that lacks a column lacks all of its features.
    own = [of_frame(frame[[name]])[0] for name in frame]
    widths = np.array([len(scaling.location) for scaling in own])
    assert_array_equal(missing.sum(axis=1), np.isnan(X) @ widths)


def test_a_circle_has_no_seam():
    hours = np.concatenate([RNG.normal(0.0, 1.0, 300) % 24.0, RNG.normal(8.0, 1.0, 60) % 24.0])
    scaling, likelihood, _ = of_frame(pd.DataFrame({"hour": hours}), {"hour": Circular(24.0)})
    near = np.array([[23.9999], [0.0], [24.0], [48.0], [-24.0]])
    assert_allclose(
        scaling.standardise(near)[1:], scaling.standardise(near[1:2]).repeat(4, 0), atol=1e-5
    )
    values = log_probs(scaling, likelihood, near, parameters(likelihood)[0])
    assert_allclose(values, values[1], atol=1e-3)
    back = scaling.restore(scaling.standardise(near))
    assert ((back >= 0.0) & (back < 24.0)).all()


def test_hundreds_of_categories_stay_small_and_all_can_be_drawn():
    weights = 1.0 / np.arange(1, 1201)
    names = np.array([f"c{i:04d}" for i in range(1200)])
    column = RNG.choice(names, 20_000, p=weights / weights.sum())
    scaling, likelihood, X = of_frame(pd.DataFrame({"x": column}))
    assert len(scaling.location) == MOST_OUTPUTS
    start = likelihood.parameter(likelihood.initial_bias()[None], None)[0]
    drawn = draws(scaling, likelihood, start)
    seen = np.bincount(X[:, 0].astype(int), minlength=len(np.unique(column)))
    counts = np.bincount(drawn.astype(int), minlength=len(seen))
    assert (counts[seen >= 20] > 0).all()
    assert np.corrcoef(seen, counts)[0, 1] > 0.99
    # The mean is the most frequent one, also of those that share an output.
    rare = np.flatnonzero(seen == seen.min())[:1, None].astype(float)
    middle = scaling.restore(scaling.standardise(rare))
    assert scaling.standardise(middle).argmax() == scaling.standardise(rare).argmax()


# Parts


def test_probabilities_of_intervals():
    rng = np.random.default_rng(1)
    low = rng.normal(0.0, 8.0, 2000)
    high = low + np.exp(rng.uniform(-14.0, 3.0, 2000))
    left = np.where(low + high > 0, -high, low)
    right = np.where(low + high > 0, -low, high)
    above = stats.norm.logcdf(right)
    expected = above + np.log(-np.expm1(stats.norm.logcdf(left) - above))
    found = log_interval(torch.from_numpy(low), torch.from_numpy(high))
    # scipy's difference loses digits where the interval is narrow.
    narrow = high - low < 1e-4
    expected[narrow] = stats.norm.logpdf(0.5 * (low + high))[narrow] + np.log(high - low)[narrow]
    assert_allclose(found, expected, rtol=2e-4, atol=2e-4)
    wide = high - low > 1e-4
    single = log_interval(torch.from_numpy(low[wide]).float(), torch.from_numpy(high[wide]).float())
    assert torch.isfinite(single).all()


@pytest.mark.parametrize("far", [1e4, 3e4, 1e5])
def test_gradients_at_the_ends_of_an_ordered_scale(far):
    low = torch.tensor([-far, -1.0, 1.2])
    high = torch.tensor([-1.0, 1.2, far])
    middle = torch.linspace(-1.5, 1.5, 200)[:, None].requires_grad_()
    log_interval((low - middle) / 0.98, (high - middle) / 0.98).sum().backward()
    exact = middle.detach().double().requires_grad_()
    cut = [(end.double().clamp(-30.0, 30.0) - exact) / 0.98 for end in (low, high)]
    (torch.special.ndtr(cut[1]) - torch.special.ndtr(cut[0])).log().sum().backward()
    assert_allclose(middle.grad, exact.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_of_far_intervals(dtype):
    """The open end of an outer atom lies 100,000 deviations away, and so may both ends."""
    x = torch.tensor([-1e5, -99988.0, -1e4, -1e3, -30.0, -1.5, -0.5], dtype=dtype)
    x.requires_grad_()
    (slope,) = torch.autograd.grad(log_normal_cdf(x).sum(), x)
    far = x.detach().numpy().astype(float)
    assert_allclose(slope, np.exp(stats.norm.logpdf(far) - stats.norm.logcdf(far)), rtol=1e-6)
    shift = torch.zeros(4, dtype=dtype, requires_grad=True)
    ends = torch.tensor([[-7.6, 99988.0], [-99988.0, 7.6], [-1e5, -1e4], [1e4, 1e5]], dtype=dtype)
    values = log_interval(ends[:, 0] - shift, ends[:, 1] - shift)
    (slope,) = torch.autograd.grad(values.sum(), shift)
    near = np.exp(stats.norm.logpdf(7.6))
    assert_allclose(slope, [near, -near, -1e4, 1e4], rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_slopes_of_intervals_without_an_end(dtype):
    """The first and the last of ordered categories, with a small deviation."""
    ends = torch.tensor([-40.0, -3.0, 0.0, 2.0, 30.0], dtype=dtype, requires_grad=True)
    far = torch.full_like(ends, 1e6)
    expected = stats.norm.logcdf(ends.detach())
    slopes = np.exp(stats.norm.logpdf(ends.detach()) - expected)
    for sign, found in ((1, log_interval(-far, ends)), (-1, log_interval(-ends, far))):
        assert_allclose(found.detach(), expected, rtol=1e-5, atol=1e-7, err_msg=str(sign))
        (slope,) = torch.autograd.grad(found.sum(), ends)
        assert_allclose(slope, slopes, rtol=1e-3, atol=1e-7, err_msg=str(sign))


def test_ordered_categories_that_codes_tell_apart():
    levels = np.random.default_rng(0).integers(0, 5, 600)
    answers = pd.Categorical.from_codes(levels, list("abcde"), ordered=True)
    frame = pd.DataFrame({"answer": answers})
    model = HEBAETransformer(2, random_state=0).fit(frame)
    decoded = model.inverse_transform(model.transform(frame))
    assert (decoded["answer"] == frame["answer"]).mean() > 0.99


NUMBERS = st.floats(-1e6, 1e6, allow_nan=False).map(lambda x: round(x, 3))


@settings(deadline=None, max_examples=60)
@given(st.lists(NUMBERS, min_size=2, max_size=80), st.integers(1, 30))
def test_normal_scores_are_monotone_and_come_back(values, copies):
    values = np.array(values + values[:1] * copies)
    unique, counts = np.unique(values, return_counts=True)
    segments = find_segments(unique, counts.astype(float), find_step(unique))
    scores = segments.scores(unique)
    assert (np.diff(scores) > -1e-9).all()
    span = max(1.0, np.abs(unique).max())
    assert_allclose(segments.values(scores), unique, atol=1e-4 * span)
    assert (np.diff(segments.start) > 0.0).all()
    beyond = segments.scores(np.array([unique[0] - span, unique[-1] + span]))
    assert beyond[0] < scores[0] <= scores[-1] < beyond[1]


def test_steps_are_found():
    assert find_step(np.array([1.0, 5.0, -3.0])) == 1.0
    assert find_step(np.array([1.25, 0.5])) == 0.01
    assert find_step(np.array([np.pi])) == 0.0
    assert find_step(np.array([1e12, 1.0])) == 1.0


def test_values_outside_and_between_those_of_fit_are_finite():
    frame = pd.DataFrame({"skewed": SKEWED, "spiked": SPIKED, "count": COUNTS})
    scaling, likelihood, _ = of_frame(frame)
    far = np.array([[-1e3, -1e3, -50.0], [1e4, 1e4, 10_000.0], [1.2345, 1e-7, 7.0]])
    start = likelihood.parameter(likelihood.initial_bias()[None], None)[0]
    assert np.isfinite(log_probs(scaling, likelihood, far, start)).all()
    assert np.isfinite(scaling.standardise(far)).all()


@pytest.mark.parametrize("family", ["binned", "quantile"])
def test_integers_and_bounds_are_kept(family):
    frame = pd.DataFrame({"n": COUNTS, "cents": np.round(SKEWED, 2), "x": SKEWED})
    scaling, likelihood, X = of_frame(frame, dict.fromkeys(frame, family))
    generator = torch.Generator().manual_seed(0)
    wild = likelihood.sample(parameters(likelihood, 5000, spread=4.0), generator)
    rows = likelihood.original_rows(wild.detach().float().numpy(), scaling, drawn=True)
    assert (rows.min(axis=0) >= X.min(axis=0)).all()
    assert (rows.max(axis=0) <= X.max(axis=0)).all()
    assert_array_equal(rows[:, 0], np.rint(rows[:, 0]))
    assert_array_equal(rows[:, 1], np.round(rows[:, 1], 2))
    assert len(np.setdiff1d(rows[:, 0], COUNTS)) > 0 or len(np.unique(COUNTS)) == np.ptp(COUNTS) + 1
