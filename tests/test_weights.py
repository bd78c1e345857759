"""`sample_weight`: whole weights equal repeated rows, and weight 0 equals absence."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn import config_context
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from test_objectives import OBJECTIVES, D, P

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import (
    FeatureScaling,
    Minibatch,
    ResidentRows,
    SideInformation,
    StoredTable,
    Table,
    counted_rows,
)
from skhebae.distributed import SINGLE
from skhebae.divergences import (
    group_kl_to_standard,
    minibatch_moments,
    multiquadratic_mmd,
    regularised_covariance,
)
from skhebae.exceptions import CheckpointError
from skhebae.finite_sample import expected_prior_kl, expected_prior_kl_of_weight
from skhebae.fitted.automatic import auto_epochs
from skhebae.fitted.build import Architecture, build_model
from skhebae.fitted.codes import CodeMoments
from skhebae.fitted.gate import judge
from skhebae.fitted.linear_start import merge_inputs, principal_components
from skhebae.fitted.measure import choose_rows
from skhebae.likelihoods import (
    BernoulliLikelihood,
    CountScaling,
    Decoded,
    GaussianLikelihood,
    NegativeBinomialLikelihood,
)
from skhebae.likelihoods.distinct_values import DistinctValues
from skhebae.objectives import HEBAEObjective
from skhebae.objectives.aggregate import aggregate
from skhebae.objectives.fused import fused_aggregate
from skhebae.training import Generators, Run
from skhebae.training import checkpoint as checkpoint_module
from skhebae.training.step import loss_terms

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

CPU = torch.device("cpu")


class InterruptedFitError(Exception):
    """What stands for a power cut."""


class Given:
    """Evidence of rows that are decoded already."""

    is_part = False

    def __init__(self, rows, lacks_noise):
        self.rows, self.lacks_noise, self.n_rows = [rows], lacks_noise, rows.n_counted()

    def decode_some(self, n_numbers):
        return self.rows

    def sum(self, values):
        return values

    def sum_over_rows(self, function):
        return function(self.rows[0]).double()

    def code_variance(self):
        return torch.full_like(self.rows[0].x[0], 0.05)


SEEDS = st.integers(0, 2**31 - 1)


def codes_and_weights(seed, n_rows=12, d=3):
    """Codes, whole weights of which some are 0, and how often to repeat each."""
    rng = np.random.default_rng(seed)
    times = rng.integers(0, 4, n_rows)
    times[0] = 2  # the sum is not 0 or 1
    mu = torch.from_numpy(rng.normal(size=(n_rows, d)) * [2.0, 1.0, 0.3] + 0.5)
    return mu, torch.from_numpy(times.astype(np.float64)), torch.from_numpy(times)


def assert_same_gradients(function, weighted, times, *others):
    """A function of rows and weights, against the function of repeated rows, with gradients."""
    rows = weighted.clone().requires_grad_()
    repeated = weighted.repeat_interleave(times, dim=0).clone().requires_grad_()
    weight = times.to(weighted)
    one, two = function(rows, weight, *others), function(repeated, None, *others)
    assert_allclose(one.detach(), two.detach(), rtol=1e-9, atol=1e-11)
    factors = torch.randn(one.shape, generator=torch.Generator().manual_seed(0), dtype=one.dtype)
    for value in (one, two):
        (value * factors).sum().backward()
    # A row with a weight moves as all its copies together.
    together = torch.zeros_like(weighted)
    together.index_add_(0, torch.arange(len(times)).repeat_interleave(times), repeated.grad)
    assert_allclose(rows.grad, together, rtol=1e-7, atol=1e-10)


# Divergences


@given(SEEDS)
def test_moments_are_those_of_repeated_codes(seed):
    mu, _, times = codes_and_weights(seed)
    for i in range(2):
        assert_same_gradients(
            lambda rows, weight, i=i: minibatch_moments(rows, weight)[i], mu, times
        )


@given(SEEDS, st.booleans(), st.sampled_from([aggregate, fused_aggregate]))
def test_the_aggregate_is_that_of_repeated_codes(seed, diagonal, form):
    mu, _, times = codes_and_weights(seed)

    def divergence_and_noise(rows, weight):
        # One draw for all rows, so that copies share it.
        eps = torch.ones(1, rows.shape[1], dtype=rows.dtype).expand(len(rows), -1).contiguous()
        found = form(rows, eps, 0.7, diagonal, weight)
        return torch.cat([found.divergence[None], found.noise[0]])

    assert_same_gradients(divergence_and_noise, mu, times)


@given(SEEDS)
def test_both_forms_of_the_aggregate_agree_for_any_weights(seed):
    rng = np.random.default_rng(seed)
    mu, eps = (torch.from_numpy(rng.normal(size=(8, 3))) for _ in range(2))
    weight = torch.from_numpy(rng.exponential(rng.choice([0.05, 0.2, 1.0, 30.0]), 8))
    gradients = []
    for form in (aggregate, fused_aggregate):
        rows = mu.clone().requires_grad_()
        found = form(rows, eps, 0.7, False, weight)
        (found.divergence + found.noise.sin().sum()).backward()
        gradients.append((found.divergence.detach(), found.noise.detach(), rows.grad))
    for one, two in zip(*gradients, strict=True):
        assert torch.isfinite(one).all()
        assert_allclose(one, two, rtol=1e-8, atol=1e-10)


@given(SEEDS)
def test_the_divergence_of_groups_is_that_of_repeated_codes(seed):
    mu, _, times = codes_and_weights(seed)
    labels = torch.nn.functional.one_hot(torch.arange(12) % 4, 5).double()

    def divergence(rows, weight):
        own = labels if weight is not None else labels.repeat_interleave(times, dim=0)
        return group_kl_to_standard(rows, own, 0.7, weight)[None]

    assert_same_gradients(divergence, mu, times)


@given(SEEDS)
def test_the_discrepancy_is_that_of_repeated_codes(seed):
    mu, _, times = codes_and_weights(seed)
    draws = torch.from_numpy(np.random.default_rng(seed).normal(size=(9, 3)))
    assert_same_gradients(
        lambda rows, weight: multiquadratic_mmd(rows, draws, weight)[None], mu, times
    )


@pytest.mark.slow
@given(st.floats(1.0, 1e5), st.sampled_from([1, 4, 10]))
def test_the_constant_of_a_weight_lies_between_those_of_numbers_of_rows(weight, d):
    low, high = (expected_prior_kl(n, d, 1.0) for n in (int(weight), int(weight) + 1))
    found = expected_prior_kl_of_weight(weight, d, 1.0)
    error = 2e-3 * low
    assert min(low, high) - error <= found <= max(low, high) + error
    if weight >= 100.0:
        assert_allclose(expected_prior_kl_of_weight(float(int(weight)), d, 1.0), low, rtol=1e-4)


# The loss


class Silent(Minibatch):
    """A minibatch whose codes have no noise, and whose draws from the prior are the same."""

    def draw(self, like):
        return torch.zeros_like(like)


class Steady(Minibatch):
    def draw(self, like):
        generator = torch.Generator().manual_seed(0)
        return torch.randn((7, like.shape[1]), generator=generator, dtype=like.dtype)


def model_of(objective, n_batches=0):
    generator = torch.Generator().manual_seed(0)
    X = np.random.default_rng(0).normal(5.0, [0.1, 1.0, 2.0, 10.0, 0.5], (40, P))
    architecture = Architecture(
        P, D, (7,), "tanh", "gaussian", objective.n_scales(D), n_batches=n_batches
    )
    return build_model(architecture, FeatureScaling.measure(Table(X)), generator)


@pytest.mark.parametrize("name", [*OBJECTIVES, "hebae-batches"])
@pytest.mark.parametrize("seed", range(3))
def test_the_loss_and_its_gradients_are_those_of_repeated_rows(name, seed):
    """On one minibatch of all rows, reported constants included."""
    batches = name == "hebae-batches"
    objective = HEBAEObjective(0.7, batch_share=0.6) if batches else OBJECTIVES[name]
    kind = Steady if name == "wae" else Silent
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(9, P)).astype(np.float32))
    times = torch.tensor([3, 0, 1, 1, 5, 2, 0, 4, 1])
    batch = torch.arange(9) % 3 if batches else None
    results = []
    for weighted in (True, False):
        model = model_of(objective, 3 if batches else 0)
        own = Generators(*(torch.Generator().manual_seed(0) for _ in range(2)))
        run = Run(model, objective, own, group=SINGLE)
        minibatch = kind(x, batch=batch, weight=times.float())
        if not weighted:
            minibatch = minibatch.map_rows(lambda of: of.repeat_interleave(times, dim=0))
            minibatch = minibatch.replace(weight=None)
        terms = loss_terms(run, minibatch)
        terms.loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        results.append(([float(of.detach()) for of in terms], gradients))
    (one, slopes), (two, others) = results
    assert_allclose(one, two, rtol=2e-4)
    assert len(slopes) == len(others) > 5
    for slope, other in zip(slopes, others, strict=True):
        assert_allclose(slope, other, rtol=1e-4, atol=1e-5)


def test_the_mean_of_a_minibatch_heeds_weights_of_rows():
    weight = torch.tensor([2.0, 0.0, 0.5])
    minibatch = Minibatch(torch.zeros(3, 1), weight=weight)
    assert minibatch.total_weight() == 2.5
    assert_allclose(minibatch.mean(torch.tensor([1.0, 100.0, 3.0])), 3.5 / 2.5, rtol=1e-6)
    assert Minibatch(torch.zeros(3, 1)).total_weight() == 3
    assert isinstance(Minibatch(torch.zeros(3, 1)).total_weight(), int)


# What is measured of a table


def counts_table(seed=0):
    rng = np.random.default_rng(seed)
    X = rng.poisson(rng.gamma(1.0, 3.0, (80, 6))).astype(np.float64)
    X[5] = 0.0
    return X, rng.integers(0, 5, 80), rng.uniform(0.5, 2.0, 80), rng.integers(0, 3, 80)


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("with_factors", [False, True])
def test_scalings_are_those_of_repeated_rows(as_type, with_factors):
    X, times, factors, batch = counts_table()
    repeat = [of.repeat(times, axis=0) for of in (X, factors, batch)]
    factors = factors if with_factors else None
    weighted = Table(as_type(X), batch, factors, weight=times.astype(np.float64))
    repeated = Table(as_type(repeat[0]), repeat[2], repeat[1] if with_factors else None)
    for kind in (FeatureScaling, CountScaling):
        one, two = kind.measure(weighted), kind.measure(repeated)
        for name, value in vars(two).items():
            assert_allclose(getattr(one, name), value, rtol=1e-9, atol=1e-12, err_msg=name)
    assert weighted.total_weight == repeated.total_rows == times.sum()
    assert weighted.total_rows == np.count_nonzero(times)
    assert_allclose(weighted.column_totals, repeated.column_totals)


@given(SEEDS)
def test_the_median_is_that_of_repeated_numbers(seed):
    rng = np.random.default_rng(seed)
    values, times = rng.integers(0, 6, 9).astype(np.float64), rng.integers(0, 4, 9)
    times[0] = 1
    found = DistinctValues.gather(values, SINGLE, times.astype(np.float64))
    assert found.median() == np.median(values.repeat(times))
    assert found.total() == times.sum()


def test_what_varies_first_is_measured_by_weights():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(40, 3))
    first = X.copy()
    first[:, 1] = 2.0
    times = rng.integers(0, 4, 40)
    scaling = FeatureScaling.measure(Table(first, weight=times.astype(np.float64)))
    assert scaling.constant.tolist() == [1]
    one, _ = scaling.take_in(Table(X, weight=times.astype(np.float64)), times.sum())
    two, _ = scaling.take_in(Table(X.repeat(times, axis=0)), times.sum())
    assert_allclose(one.scale, two.scale)
    assert_allclose(one.location, two.location)


# What is measured of codes


@given(SEEDS, st.lists(st.integers(0, 12), max_size=3).map(sorted))
def test_moments_of_codes_are_those_of_repeated_rows(seed, cuts):
    mu, weight, times = codes_and_weights(seed)
    sigma = mu.abs() + 0.1
    expected = CodeMoments.measure(*(of.repeat_interleave(times, 0).numpy() for of in (mu, sigma)))
    parts = [np.split(of.numpy(), cuts) for of in (mu, sigma, weight)]
    own = [CodeMoments.measure(*part) for part in zip(*parts, strict=True) if part[2].any()]
    merged = own[0]
    for part in own[1:]:
        merged = merged.merge(part)
    assert merged.n_rows == expected.n_rows
    for name in ("mean", "covariance", "spread"):
        assert_allclose(getattr(merged, name), getattr(expected, name), rtol=1e-9, atol=1e-12)


def rows_of(X, weight):
    scaling = FeatureScaling.measure(Table(X, weight=weight))
    return ResidentRows(X, scaling, CPU, SideInformation(weight=weight))


def test_codes_of_the_mixture_are_drawn_by_weight():
    times = np.array([3.0, 0.0, 1.0, 2.0])
    rows = rows_of(np.arange(8.0).reshape(4, 2), times)
    assert counted_rows(rows).tolist() == [0, 2, 3]
    for seed in range(5):
        rng = np.random.RandomState(seed)
        assert_array_equal(np.bincount(choose_rows(rows, 6, rng), minlength=4), times)
        some = np.bincount(choose_rows(rows, 3, rng), minlength=4)
        assert (np.abs(some - times / 2.0) < 1.0).all()
        assert some.sum() == 3


@pytest.mark.parametrize("shape", [(40, 6), (5, 8)])
def test_principal_components_are_those_of_repeated_rows(shape):
    rng = np.random.default_rng(0)
    X = (rng.normal(size=shape) * 3.0 ** -np.arange(shape[1]) + 0.5).astype(np.float32)
    times = rng.integers(1, 4, len(X))
    one = principal_components(merge_inputs(X, SINGLE, times.astype(np.float64)), 3, 0)
    two = principal_components(X.repeat(times, axis=0), 3, 0)
    assert_allclose(one.mean, two.mean, atol=1e-6)
    assert_allclose(one.deviations, two.deviations, rtol=1e-4)
    assert_allclose(np.abs(one.directions), np.abs(two.directions), atol=1e-4)
    assert_allclose(one.residual, two.residual, rtol=1e-3, atol=1e-5)


def test_the_trial_is_judged_by_weights():
    rng = np.random.default_rng(0)
    for gain in (0.0, 0.02, 0.05, 0.3):
        before = rng.uniform(1.0, 2.0, 30)
        after = before - gain - rng.normal(0.0, 0.1, 30)
        times = rng.integers(0, 4, 30)
        repeated = (of.repeat(times) for of in (before, after))
        assert judge(before, after, times.astype(np.float64)) is judge(*repeated)


@pytest.mark.parametrize("lacks_noise", [False, True])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "kind", [GaussianLikelihood, BernoulliLikelihood, NegativeBinomialLikelihood]
)
def test_likelihoods_finish_as_on_repeated_rows(kind, lacks_noise, masked):
    rng = np.random.default_rng(0)
    times = torch.from_numpy(rng.integers(0, 4, 60))
    X = {
        GaussianLikelihood: rng.normal(size=(60, 4)),
        BernoulliLikelihood: rng.integers(0, 2, (60, 4)).astype(np.float64),
        NegativeBinomialLikelihood: rng.poisson(rng.gamma(1.0, 3.0, (60, 4))).astype(np.float64),
    }[kind]
    mask = torch.from_numpy(rng.random((60, 4)) < 0.7) if masked else None
    scaling = kind.scaling_class.measure(Table(X, weight=times.numpy().astype(np.float64)))
    x = torch.from_numpy(scaling.standardise(X))
    parameter = torch.from_numpy(rng.normal(size=(60, 4)).astype(np.float32))
    learned = []
    for weighted in (True, False):
        rows = Decoded(x, parameter, mask, times.float())
        if not weighted:
            rows = Decoded(
                *(None if of is None else of.repeat_interleave(times, 0) for of in rows[:3])
            )
        likelihood = kind.from_scaling(scaling).eval()
        likelihood.finish(Given(rows, lacks_noise))
        learned.append(likelihood.state_dict())
    for name, value in learned[1].items():
        assert_allclose(learned[0][name], value, rtol=1e-4, atol=1e-5, err_msg=name)


# Fits


@pytest.fixture(scope="module", name="X")
def small_table():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(60, 3)) * [3.0, 1.5, 0.7]
    return codes @ rng.normal(size=(3, 8)) + 0.2 * rng.normal(size=(60, 8)) + 2.0


@pytest.fixture(scope="module", name="times")
def small_weights():
    return np.random.default_rng(1).integers(0, 4, 60)


BRIEF = {"n_components": 2, "max_iter": 3, "random_state": 0}


def numbers(model):
    """All arrays of a fitted model, and what it was trained with."""
    packed = model.fitted_.pack()
    found = {}

    def collect(name, value):
        if isinstance(value, dict):
            for key, part in value.items():
                collect(f"{name}.{key}", part)
        elif isinstance(value, np.ndarray):
            found[name] = value

    collect("", packed)
    history = {k: v for k, v in model.history_.items() if k != "seconds"}
    return {**found, **{k: np.array(v) for k, v in history.items()}}


def assert_same_numbers(one, two):
    one, two = numbers(one), numbers(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert_array_equal(value, two[name], err_msg=name)


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_weight_0_is_absence_to_the_last_bit(cls, X, times, as_type, method):
    kept = times > 0
    for weight in (kept.astype(np.int64), times.astype(np.float32), 0.37 * times):
        one = getattr(cls(**BRIEF), method)(as_type(X), sample_weight=weight)
        two = getattr(cls(**BRIEF), method)(as_type(X[kept]), sample_weight=weight[kept])
        assert_same_numbers(one, two)


def test_weights_of_1_are_no_weights(cls, X):
    plain = cls(**BRIEF).fit(X)
    assert isinstance(plain.fitted_.moments.n_rows, int)
    for ones in (1, np.ones(60), [1] * 60, pd.Series(np.ones(60), index=np.arange(60)[::-1])):
        assert_same_numbers(cls(**BRIEF).fit(X, sample_weight=ones), plain)


def test_batches_and_size_factors_go_with_their_rows(times):
    X, _, factors, batch = counts_table()
    weight = np.random.default_rng(2).integers(0, 3, 80)
    weight[batch == 2] = 0
    params = {**BRIEF, "likelihood": "negative_binomial"}
    model = HEBAETransformer(**params).fit(
        X, sample_weight=weight, batch=batch, size_factor=factors
    )
    kept = weight > 0
    absent = HEBAETransformer(**params).fit(
        X[kept], sample_weight=weight[kept], batch=batch[kept], size_factor=factors[kept]
    )
    assert_same_numbers(model, absent)
    assert model.batches_.tolist() == [0, 1]


@pytest.mark.parametrize("kind", [HEBAETransformer, WAETransformer])
@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("share", [2, 0.9])
def test_a_fit_that_stays_linear_is_that_of_repeated_rows(kind, X, times, stored, share):
    """Whatever noise training draws: it is principal component analysis of all rows."""
    table = np.where(times[:, None] > 0, X, X + 5.0)
    table = StoredTable(Source(table)) if stored else table
    params = {**BRIEF, "n_components": share, "whiten": False}
    one = kind(**params).fit(table, sample_weight=times)
    two = kind(**params).fit(X.repeat(times, axis=0))
    assert one.is_linear_
    assert one.fitted_.moments.n_rows == times.sum()
    codes, expected = one.transform(X), two.transform(X)
    signs = np.sign((codes * expected).sum(axis=0))
    assert_allclose(signs * codes, expected, rtol=1e-3, atol=2e-4)
    assert_allclose(
        one.explained_variance_ratio_, two.explained_variance_ratio_, rtol=0.01, atol=1e-3
    )
    # HEBAE measures it with one draw per row, which copies share.
    rtol = 1e-3 if kind is WAETransformer else 0.6
    assert_allclose(one.noise_variance_, two.noise_variance_, rtol=rtol)
    assert_allclose(one.score(X, sample_weight=times), two.score(X.repeat(times, 0)), rtol=0.01)


class Source(np.ndarray):
    """Stands for a table in a file."""

    def __new__(cls, X):
        return np.asarray(X).view(cls)

    def __getitem__(self, rows):
        return np.asarray(self)[rows]


@pytest.mark.parametrize("early_stopping", [False, True])
def test_rows_of_weight_0_in_a_file_change_nothing(cls, X, times, early_stopping):
    """They are neither trained on nor measured, though they are read."""
    models = []
    params = {**BRIEF, "early_stopping": early_stopping, "hidden_layer_sizes": (4,)}
    for value in (0.0, 1e4):
        table = np.where(times[:, None] > 0, X, value)
        models.append(cls(**params).fit(StoredTable(Source(table)), sample_weight=times))
    assert_same_numbers(*models)


def test_fit_transform_returns_codes_of_all_rows(cls, X, times):
    for table in (X, StoredTable(Source(X))):
        model = cls(**BRIEF)
        codes = model.fit_transform(table, sample_weight=times)
        assert_array_equal(codes, model.transform(X))


def test_training_on_weights_heeds_them(cls):
    """Perceptrons, many minibatches: codes spread where the weights are."""
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(-3.0, 0.5, (300, 4)), rng.normal(3.0, 0.5, (300, 4))])
    weight = np.where(np.arange(600) < 300, 0.2, 1.8)
    params = {"n_components": 1, "hidden_layer_sizes": (8,), "linear_path": False}
    model = cls(**params, max_iter=30, random_state=0).fit(X, sample_weight=weight)
    assert_allclose(model.fitted_.moments.n_rows, 600.0)
    codes = model.transform(X)
    assert_allclose(model.latent_mean_, weight @ codes / 600.0, atol=0.02)
    drawn = model.sample(2000, random_state=0).mean(axis=1)
    assert_allclose((drawn > 0.0).mean(), 0.9, atol=0.03)


def test_calls_of_partial_fit_count_by_their_weights(X, times):
    model = HEBAETransformer(**BRIEF).partial_fit(X, sample_weight=times)
    assert model.fitted_.moments.n_rows == times.sum()
    model.partial_fit(X[:1], sample_weight=[0.25])
    assert model.fitted_.moments.n_rows == times.sum() + 0.25
    model.partial_fit(X)
    assert model.fitted_.moments.n_rows == times.sum() + 60.25
    assert np.isfinite(model.score_samples(X)).all()
    with pytest.raises(ValueError, match=r"sample_weight= belongs to the rows of one table"):
        model.partial_fit(iter([X]), sample_weight=times)


@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", "negative_binomial"])
def test_one_row_may_count_for_all(cls, likelihood, X):
    X = (X[:4] > 2.0).astype(np.float64)
    X[0, 0] = 1.0
    model = cls(**BRIEF, likelihood=likelihood).fit(X, sample_weight=[5, 0, 0, 0])
    assert np.isfinite(model.transform(X)).all()
    assert np.isfinite(model.score_samples(X)).all()


def test_files_keep_the_sum_of_weights(X, times, tmp_path):
    model = HEBAETransformer(**BRIEF).fit(X, sample_weight=0.3 * times)
    model.save(tmp_path / "model")
    again = HEBAETransformer.load(tmp_path / "model")
    assert again.fitted_.moments.n_rows == model.fitted_.moments.n_rows
    assert_array_equal(again.transform(X), model.transform(X))


@pytest.mark.parametrize("params", [{}, {"early_stopping": True, "batch_size": 8}])
def test_a_checkpoint_goes_on_with_the_same_weights(cls, X, times, tmp_path, params, monkeypatch):
    monkeypatch.setattr(checkpoint_module, "COST", 0.0)
    params = {**BRIEF, "max_iter": 6, "hidden_layer_sizes": (4,), **params}
    expected = cls(**params).fit(X, sample_weight=times)
    write, written = checkpoint_module.write_document, []

    def counted(*args, **kwargs):
        write(*args, **kwargs)
        written.append(1)
        if len(written) == 2:
            raise InterruptedFitError

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, "write_document", counted)
        with pytest.raises(InterruptedFitError):
            cls(**params).fit(X, sample_weight=times, checkpoint=tmp_path / "fit")
    other = times.copy()
    other[times > 0] += 1
    with pytest.raises(CheckpointError, match="sample_weight"):
        cls(**params).fit(X, sample_weight=other, checkpoint=tmp_path / "fit")
    model = cls(**params).fit(X, sample_weight=times, checkpoint=tmp_path / "fit")
    assert_same_numbers(model, expected)


def test_scores_are_averaged_by_weights(fitted, table):
    weight = np.arange(240.0)
    scores = fitted.score_samples(table)
    expected = np.average(scores, weights=weight)
    assert_allclose(fitted.score(table, sample_weight=weight), expected, rtol=1e-6)
    assert fitted.score(table, sample_weight=1) == pytest.approx(fitted.score(table), rel=1e-6)


def test_weights_can_be_routed(X, times):
    with config_context(enable_metadata_routing=True):
        step = HEBAETransformer(**BRIEF)
        step.set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=True)
        model = make_pipeline(scaler, step).fit(X, sample_weight=times)
        assert model[-1].fitted_.moments.n_rows == times.sum()
        step.set_score_request(sample_weight=True)
        search = GridSearchCV(step, {"n_components": [1, 2]}, cv=2)
        search.fit(X, sample_weight=times + 1)
    assert search.best_estimator_.fitted_.moments.n_rows == times.sum() + 60


def test_a_subclass_without_weights_of_its_own_still_fits(X):
    class Old(VAETransformer):
        def fit(self, X, y=None, *, batch=None, size_factor=None, checkpoint=None):
            return super().fit(X, batch=batch, size_factor=size_factor, checkpoint=checkpoint)

    assert Old(**BRIEF).fit_transform(X).shape == (60, 2)


def test_epochs_follow_from_weights_and_from_rows_that_are_taken():
    assert auto_epochs(1000, 100, 6000, starts_linear=False) == auto_epochs(
        1000, 100, 6000, starts_linear=False, n_taken=1000
    )
    # As many steps, of a tenth of the minibatches.
    few = auto_epochs(1000, 100, 6000, starts_linear=False, n_taken=100)
    assert few == pytest.approx(10 * auto_epochs(1000, 100, 6000, starts_linear=False), rel=0.02)


@settings(max_examples=20)
@given(SEEDS)
def test_the_covariance_of_codes_of_little_weight_is_near_the_prior(seed):
    mu, weight, _ = codes_and_weights(seed)
    little = 1e-3 * weight
    _, covariance = minibatch_moments(mu, little)
    smoothed = regularised_covariance(covariance, little.sum().clamp_min(1.0), 1.0)
    assert_allclose(smoothed, np.eye(3), atol=0.05)
