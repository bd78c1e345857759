"""Missing entries: what is learned, encoded, scored and filled in without them."""

from __future__ import annotations

import copy
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from scipy.stats import multivariate_normal
from sklearn.datasets import load_breast_cancer
from sklearn.decomposition import FactorAnalysis
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAEImputer, HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import Minibatch, SideInformation, StoredTable, Table, map_rows, row_totals
from skhebae.likelihoods.count_scaling import usual_shares
from skhebae.linear_fill import (
    Factors,
    LinearFill,
    expected_factors,
    fit_factors,
    start_factors,
)
from skhebae.noise import InputDropout

pd = pytest.importorskip("pandas")

# A few epochs learn enough to tell whether entries are handled rightly.
pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

QUICK = {"max_iter": 6, "random_state": 0, "hidden_layer_sizes": (8,)}
ESTIMATORS = {"hebae": HEBAETransformer, "vae": VAETransformer, "wae": WAETransformer}


@pytest.fixture(scope="module")
def complete():
    """Standardised rows of a real table."""
    return StandardScaler().fit_transform(load_breast_cancer().data[:200, :9])


@pytest.fixture(scope="module")
def holes(complete):
    """A fifth of the entries, none of a whole row."""
    removed = np.random.RandomState(1).random_sample(complete.shape) < 0.2
    removed[removed.all(axis=1)] = False
    return removed


@pytest.fixture(scope="module")
def table(complete, holes):
    return np.where(holes, np.nan, complete)


@pytest.fixture(scope="module")
def fitted(table):
    return HEBAETransformer(3, random_state=0).fit(table)


@pytest.fixture(scope="module")
def linear(table):
    """A model whose p(x) is Gaussian."""
    return HEBAETransformer(3, hidden_layer_sizes=(), max_iter=30, random_state=0).fit(table)


def gaussian_of(model):
    """Return the mean (p,), loadings (p, d) and noise (p,) of p(x), in the units of the rows."""
    axes = model.fitted_.principal_axes
    unit = np.vstack([np.zeros(len(axes.scale)), np.diag(axes.scale)])
    decoded = model.inverse_transform(unit).astype(float)
    return decoded[0], (decoded[1:] - decoded[0]).T, model.noise_variance_


# Factor analysis


@st.composite
def incomplete_rows(draw):
    p, k, n = draw(st.integers(2, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 5))
    rng = np.random.RandomState(draw(st.integers(0, 10_000)))
    factors = Factors(
        torch.from_numpy(rng.standard_normal(p)),
        torch.from_numpy(rng.standard_normal((p, k))),
        torch.from_numpy(rng.uniform(0.1, 2.0, p)),
    )
    return factors, rng.standard_normal((n, p)), rng.random_sample((n, p)) < 0.6


@given(incomplete_rows())
def test_expected_factors_are_those_of_the_joint_gaussian(case):
    factors, x, mask = case
    centre, loadings, noise = (part.numpy() for part in factors)
    z, root = expected_factors(torch.from_numpy(x), torch.from_numpy(1.0 * mask), factors)
    covariance = torch.cholesky_inverse(root).numpy()
    for row, seen, mean, spread in zip(x, mask, z.numpy(), covariance, strict=True):
        some = loadings[seen]
        of_observed = some @ some.T + np.diag(noise[seen])
        gain = some.T @ np.linalg.pinv(of_observed)
        assert_allclose(mean, gain @ (row - centre)[seen], atol=1e-8)
        assert_allclose(spread, np.eye(len(spread)) - gain @ some, atol=1e-8)


@given(incomplete_rows())
def test_fill_keeps_what_is_observed_and_ignores_the_rest(case):
    factors, x, mask = case
    fill, seen = LinearFill(factors), torch.from_numpy(mask)
    rows = torch.from_numpy(x).float()
    filled = fill(rows, seen)
    assert torch.equal(filled[seen], rows[seen])
    assert torch.equal(fill(rows.where(seen, 7.0), seen), filled)
    nothing = fill(rows, torch.zeros_like(seen))
    assert_allclose(nothing, fill.centre.expand_as(nothing), atol=1e-6)


def test_drawn_fills_have_the_conditional_covariance():
    rng = np.random.RandomState(0)
    loadings, noise = rng.standard_normal((4, 2)), np.array([0.5, 0.2, 0.3, 1.0])
    fill = LinearFill(Factors(*(torch.from_numpy(a) for a in (np.zeros(4), loadings, noise))))
    seen = torch.tensor([True, True, False, False]).expand(50_000, 4)
    rows = torch.tensor([0.7, -1.0, 9.0, 9.0]).expand(50_000, 4)
    drawn = fill(rows, seen, torch.Generator().manual_seed(0)).numpy()[:, 2:]
    covariance = loadings @ loadings.T + np.diag(noise)
    gain = covariance[2:, :2] @ np.linalg.inv(covariance[:2, :2])
    expected = covariance[2:, 2:] - gain @ covariance[:2, 2:]
    assert_allclose(np.cov(drawn.T), expected, atol=0.05)
    assert_allclose(drawn.mean(axis=0), gain @ [0.7, -1.0], atol=0.03)


def log_likelihood(x, mask, factors):
    """Add up the exact log-densities of the observed part of rows, by scipy."""
    centre, loadings, noise = (part.numpy() for part in factors)
    covariance = loadings @ loadings.T + np.diag(noise)
    return sum(
        multivariate_normal(centre[seen], covariance[np.ix_(seen, seen)]).logpdf(row[seen])
        for row, seen in zip(x, mask, strict=True)
        if seen.any()
    )


def test_fitted_factors_are_about_as_likely_as_scikit_learns_on_complete_rows(complete):
    x = torch.from_numpy(complete)
    ones = torch.ones_like(x)
    ours = fit_factors(x, ones, start_factors(x, ones, 3))
    theirs = FactorAnalysis(3, max_iter=2000, tol=1e-4).fit(complete)
    mean = log_likelihood(complete, ones.numpy() > 0, ours) / len(x)
    # The prior of loadings and noise costs a little on features that others predict exactly.
    assert mean > theirs.score(complete) - 0.7


def test_fitted_factors_gain_likelihood_with_missing_entries(table):
    mask = ~np.isnan(table)
    x, seen = torch.from_numpy(np.nan_to_num(table)), torch.from_numpy(1.0 * mask)
    start = start_factors(x, seen, 3)
    fitted = fit_factors(x, seen, start)
    assert log_likelihood(table, mask, fitted) > log_likelihood(table, mask, start) + 100.0
    other = fit_factors(x.where(seen > 0, 5.0), seen, start)
    for a, b in zip(fitted, other, strict=True):
        assert torch.equal(a, b)  # what stands at missing entries plays no part


def test_weights_of_rows_in_factor_analysis_are_repetitions(table):
    x, seen = (torch.from_numpy(a) for a in (np.nan_to_num(table), 1.0 * ~np.isnan(table)))
    counts = torch.from_numpy(np.random.RandomState(0).randint(1, 4, len(x)))
    start = start_factors(x, seen, 2)
    weighted = fit_factors(x, seen, start, counts.double())
    repeated = fit_factors(*(a.repeat_interleave(counts, dim=0) for a in (x, seen)), start)
    for a, b in zip(weighted, repeated, strict=True):
        assert_allclose(a, b, rtol=1e-8)


# Codes


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_rows_without_any_entry_have_the_code_of_the_prior(name, table):
    model = ESTIMATORS[name](3, **QUICK).fit(table)
    nothing = np.full((3, table.shape[1]), np.nan)
    assert_array_equal(model.transform(nothing), np.zeros((3, 3)))
    assert_allclose(model.score_samples(nothing), 0.0, atol=1e-6)
    assert_allclose(model.log_likelihood(nothing), 0.0, atol=1e-4)
    mean, factor = model.posterior(nothing)
    assert_allclose(mean, 0.0, atol=1e-6)
    # In whitened units, the prior's.
    scale = model.fitted_.principal_axes.scale
    assert_allclose(factor[0] / scale[:, None], np.eye(3), atol=1e-4)


@pytest.mark.slow
def test_a_row_means_the_same_alone_and_among_others(fitted, table):
    some = table[:60]
    calls = {
        "transform": fitted.transform,
        "score_samples": fitted.score_samples,
        "log_likelihood": fitted.log_likelihood,
        "impute": fitted.impute,
        "posterior": lambda X: fitted.posterior(X).covariance_factor,
    }
    assert 0 < np.isnan(some).any(axis=1).sum() < len(some)
    for name, call in calls.items():
        together = call(some)
        for i in range(0, 60, 7):
            assert_array_equal(call(some[i : i + 1])[0], together[i], err_msg=f"{name}, row {i}")


def test_complete_rows_are_mapped_without_a_mask():
    x = torch.randn(10, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.ones(10, 4, dtype=torch.bool)
    mask[3, 1] = mask[7, 0] = False
    seen = []

    def function(minibatch):
        seen.append(minibatch.mask is None)
        return minibatch.x.sum(dim=1)

    rows = Minibatch(x, mask=mask)
    result = map_rows(function, lambda part: rows.map_rows(lambda tensor: tensor[part]), 10)
    assert seen == [True, False]
    assert_allclose(result, x.sum(dim=1))


@pytest.mark.parametrize("trained_on_holes", [True, False])
def test_codes_of_incomplete_rows_are_near_those_of_complete_ones(
    trained_on_holes, fitted, complete, holes, table
):
    model = fitted
    if not trained_on_holes:
        model = HEBAETransformer(3, random_state=0).fit(complete)
    expected = model.transform(complete)
    incomplete = holes.any(axis=1)

    def error(codes):
        return np.square(codes - expected)[incomplete].sum()

    by_fill = error(model.transform(table))
    by_mean = error(model.transform(SimpleImputer().fit_transform(table)))
    assert by_fill < 0.6 * by_mean


def test_dropout_hides_entries_from_the_encoder_only(fitted, table):
    model = fitted.fitted_.model
    rows = fitted.fitted_.scaling.standardise(np.nan_to_num(table[:50]))
    minibatch = Minibatch(torch.from_numpy(rows))
    dropout = InputDropout(0.3, torch.Generator().manual_seed(0))
    hidden = minibatch.replace(input_dropout=dropout)
    assert not torch.equal(model.encode(hidden)[0], model.encode(minibatch)[0])
    z = torch.zeros(50, 3)
    assert torch.equal(model.log_prob(hidden, z), model.log_prob(minibatch, z))
    mask = torch.rand(200, 200) < 0.5
    seen = dropout(torch.zeros(200, 200), mask)
    assert not (seen & ~mask).any()
    assert_allclose(seen.sum() / mask.sum(), 0.7, atol=0.02)


# Fits


def test_a_fit_to_complete_rows_is_as_before(complete):
    plain = HEBAETransformer(3, **QUICK).fit(complete)
    without = HEBAETransformer(3, input_dropout=0.0, **QUICK).fit(complete)
    asked = HEBAETransformer(3, input_dropout=0.2, **QUICK).fit(complete)
    assert plain.history_["loss"] == without.history_["loss"] != asked.history_["loss"]
    assert_array_equal(plain.transform(complete), without.transform(complete))


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_what_stands_at_missing_entries_plays_no_part(name, table, monkeypatch):
    """NaN becomes 0 on the way to the networks; any other number there is as good."""
    plain = ESTIMATORS[name](3, **QUICK).fit(table)
    original = SideInformation.minibatch

    def other(self, *arguments, **options):
        minibatch = original(self, *arguments, **options)
        return minibatch.replace(x=minibatch.x.where(minibatch.mask, 123.0))

    monkeypatch.setattr(SideInformation, "minibatch", other)
    strange = ESTIMATORS[name](3, **QUICK).fit(table)
    assert_allclose(strange.history_["loss"], plain.history_["loss"], rtol=1e-5)
    assert_allclose(strange.transform(table), plain.transform(table), atol=1e-4)


def test_the_trial_of_perceptrons_hides_entries_too(monkeypatch, table):
    seen = []
    from skhebae.fitted import gate

    original = gate.squared_errors

    def spy(run, rows, indices, input_dropout=0.0):
        seen.append(input_dropout)
        first, second = (original(run, rows, indices, input_dropout) for _ in range(2))
        assert_array_equal(first, second)
        return first

    monkeypatch.setattr(gate, "squared_errors", spy)
    HEBAETransformer(3, random_state=0, max_iter=5).fit(table)
    assert set(seen) == {0.2}


def counts_with_holes(seed=0):
    rng = np.random.RandomState(seed)
    depth = rng.gamma(5.0, 40.0, (150, 1))
    share = rng.dirichlet(np.ones(12))
    counts = rng.poisson(depth * share).astype(float)
    return counts, np.where(rng.random_sample(counts.shape) < 0.2, np.nan, counts), share, depth


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["poisson", "negative_binomial"])
@pytest.mark.parametrize("made_sparse", [False, True])
def test_counts_are_measured_by_what_is_observed(scale, made_sparse):
    counts, incomplete, share, depth = counts_with_holes()
    X = sparse.csr_matrix(incomplete) if made_sparse else incomplete
    model = HEBAETransformer(2, likelihood=scale, **QUICK).fit(X)
    scaling = model.fitted_.scaling
    assert_allclose(scaling.proportions, share, atol=0.01)
    assert_allclose(scaling.typical_size, np.median(counts.sum(axis=1)), rtol=0.05)
    whole = HEBAETransformer(2, likelihood=scale, **QUICK).fit(counts)
    assert_allclose(scaling.location, whole.fitted_.scaling.location, atol=0.15)
    assert_allclose(scaling.zero_share, whole.fitted_.scaling.zero_share, atol=0.05)
    filled = model.impute(X)
    dense = filled.toarray() if made_sparse else filled
    missing = np.isnan(incomplete)
    assert_array_equal(dense[~missing], counts[~missing])
    expected = (depth * share)[missing]
    assert np.abs(dense[missing] - expected).mean() < 0.25 * expected.mean()
    draws = model.impute(incomplete, n_draws=3)
    assert_array_equal(draws, np.rint(draws))


def test_usual_shares_do_not_depend_on_which_rows_lack_a_feature():
    counts, _, share, _ = counts_with_holes()
    deep = counts.sum(axis=1) > np.median(counts.sum(axis=1))
    incomplete = counts.copy()
    incomplete[np.ix_(deep, [0, 1])] = np.nan  # only shallow rows have these
    shares = usual_shares(Table(incomplete))
    assert_allclose(shares, share, atol=0.015)
    totals = row_totals(incomplete, shares)
    assert_allclose(totals[~deep], counts[~deep].sum(axis=1))
    assert_allclose(totals.mean(), counts.sum(axis=1).mean(), rtol=0.03)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "likelihood"),
    list(product(ESTIMATORS, ["bernoulli", "zero_inflated_negative_binomial", "gaussian"])),
)
def test_each_estimator_and_family_takes_them(name, likelihood, complete, holes):
    if likelihood == "bernoulli":
        X = (complete > 0).astype(float)
    elif likelihood == "gaussian":
        X = complete
    else:
        X = np.floor(np.exp(complete) * 3.0)
    X = np.where(holes, np.nan, X)
    model = ESTIMATORS[name](2, likelihood=likelihood, **QUICK).fit(X)
    assert np.isfinite(model.transform(X)).all()
    assert np.isfinite(model.score(X))
    low, high = model.fitted_.likelihood.support
    for filled in (model.impute(X), model.impute(X, n_draws=2)):
        assert np.isfinite(filled).all()
        assert low <= filled.min() <= filled.max() <= high
        assert_array_equal(np.broadcast_to(X, filled.shape)[..., ~holes], filled[..., ~holes])
    drawn = model.impute(X, n_draws=2)[:, holes]
    if likelihood != "gaussian":
        assert_array_equal(drawn, np.rint(drawn))


@pytest.mark.slow
def test_sparse_and_stored_tables_with_nan_are_the_same_table(table):
    dense = HEBAETransformer(3, **QUICK).fit(table)
    X = np.where(np.abs(table) < 0.3, 0.0, table)
    of_zeros = HEBAETransformer(3, **QUICK).fit(X)
    made_sparse = HEBAETransformer(3, **QUICK).fit(sparse.csr_matrix(X))
    assert_allclose(made_sparse.history_["loss"], of_zeros.history_["loss"], rtol=1e-4)
    filled = of_zeros.impute(sparse.csr_matrix(X))
    assert sparse.issparse(filled)
    assert_allclose(filled.toarray(), of_zeros.impute(X), rtol=1e-5)
    stored = HEBAETransformer(3, **QUICK).fit(StoredTable(table))
    assert_allclose(stored.fitted_.scaling.location, dense.fitted_.scaling.location)
    assert np.isfinite(stored.history_["loss"]).all()
    assert_array_equal(dense.transform(StoredTable(table)), dense.transform(table))
    assert_array_equal(dense.impute(StoredTable(table)), dense.impute(table))


def test_a_file_is_asked_once_whether_entries_are_missing(table, monkeypatch):
    stored = StoredTable(table)
    for _ in stored.blocks():
        pass
    monkeypatch.setattr(StoredTable, "read", lambda *_: pytest.fail("read again"))
    assert stored.has_missing()


FORMS = {
    "None": lambda X: [[None if np.isnan(v) else v for v in row] for row in X.tolist()],
    "object": lambda X: np.where(np.isnan(X), None, X.astype(object)),
    "masked": np.ma.masked_invalid,
    "frame": pd.DataFrame,
    "Float64": lambda X: pd.DataFrame(X).convert_dtypes(),
    "pd.NA": lambda X: pd.DataFrame(X).astype(object).where(~np.isnan(X), pd.NA),
    "tensor": torch.from_numpy,
}


@pytest.mark.parametrize("form", sorted(FORMS))
def test_all_that_users_write_for_a_missing_entry(form, fitted, table):
    assert_array_equal(fitted.transform(FORMS[form](table)), fitted.transform(table))


def test_infinities_and_features_without_values_are_refused(table):
    infinite = table.copy()
    infinite[3, 2] = np.inf
    with pytest.raises(ValueError, match="infinity"):
        HEBAETransformer(2, **QUICK).fit(infinite)
    empty = table.copy()
    empty[:, 4] = np.nan
    with pytest.raises(ValueError, match="no value in column 4"):
        HEBAETransformer(2, **QUICK).fit(empty)
    frame = pd.DataFrame(empty, columns=[f"gene{i}" for i in range(empty.shape[1])])
    with pytest.raises(ValueError, match="gene4"):
        HEBAETransformer(2, **QUICK).fit(frame)


def test_streams_may_lack_entries_from_any_table_on(table, complete):
    model = HEBAETransformer(3, **QUICK)
    model.partial_fit(complete[:100]).partial_fit(table[100:])
    assert np.isfinite(model.transform(table)).all()
    model = HEBAETransformer(3, **QUICK).partial_fit(iter([table[:100], complete[100:]]))
    assert np.isfinite(model.impute(table)).all()
    first = model.fitted_.model.fill.loadings.clone()
    model.partial_fit(complete)
    assert torch.equal(model.fitted_.model.fill.loadings, first)  # the encoder learned with it


def test_early_stopping_and_warm_start(table):
    model = HEBAETransformer(2, early_stopping=True, warm_start=True, **QUICK).fit(table)
    n_done = model.n_iter_
    assert model.fit(table).n_iter_ > n_done


def test_a_resumed_fit_is_that_without_interruption(table, tmp_path):
    model = HEBAETransformer(3, **{**QUICK, "max_iter": 4})
    expected = model.fit(table).transform(table)

    class StopError(Exception):
        pass

    path = tmp_path / "state.ckpt"
    from skhebae.training import checkpoint

    with pytest.MonkeyPatch.context() as patch:
        write = checkpoint.Checkpoint.write
        patch.setattr(checkpoint.Checkpoint, "is_due", lambda self, **_: True)

        def write_and_stop(self, state):
            write(self, state)
            if len(state["history"]["loss"]) == 2:
                raise StopError

        patch.setattr(checkpoint.Checkpoint, "write", write_and_stop)
        with pytest.raises(StopError):
            HEBAETransformer(3, **{**QUICK, "max_iter": 4}).fit(table, checkpoint=path)
    resumed = HEBAETransformer(3, **{**QUICK, "max_iter": 4}).fit(table, checkpoint=path)
    assert_array_equal(resumed.transform(table), expected)


def test_copies_and_files_keep_the_fill(fitted, table, tmp_path):
    path = tmp_path / "model.skhebae"
    fitted.save(path)
    expected = fitted.transform(table), fitted.impute(table)
    for other in (
        HEBAETransformer.load(path),
        pickle.loads(pickle.dumps(fitted)),
        copy.deepcopy(fitted),
    ):
        assert_array_equal(other.transform(table), expected[0])
        assert_array_equal(other.impute(table), expected[1])


def test_a_model_without_a_fill_sees_the_means(fitted, table):
    """Files of earlier versions have none."""
    state = fitted.__getstate__()
    for name in ("centre", "loadings", "noise"):
        del state["_weights"][f"fill.{name}"]
    older = HEBAETransformer.__new__(HEBAETransformer)
    older.__setstate__(state)
    assert older.fitted_.model.fill is None
    by_mean = np.where(np.isnan(table), fitted.fitted_.scaling.location, table)
    assert_allclose(older.transform(table), fitted.transform(by_mean), atol=1e-4)


# Against the exact Gaussian


def conditionals(model, row):
    """Return log p(x_obs), and the mean and covariance of p(x_mis | x_obs)."""
    mean, loadings, noise = gaussian_of(model)
    covariance = loadings @ loadings.T + np.diag(noise)
    seen = ~np.isnan(row)
    density = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
    gain = covariance[np.ix_(~seen, seen)] @ np.linalg.inv(covariance[np.ix_(seen, seen)])
    expected = mean[~seen] + gain @ (row - mean)[seen]
    return (
        density.logpdf(row[seen]),
        expected,
        (covariance[np.ix_(~seen, ~seen)] - gain @ covariance[np.ix_(seen, ~seen)]),
    )


def test_scores_of_a_linear_model_are_exact(linear, table, holes):
    rows = table[holes.any(axis=1)][:40]
    exact = np.array([conditionals(linear, row)[0] for row in rows])
    assert_allclose(linear.score_samples(rows), exact, atol=2e-3)
    assert_allclose(linear.log_likelihood(rows), exact, atol=2e-3)
    assert_allclose(linear.elbo(rows), exact, atol=2e-3)


def test_posteriors_of_a_linear_model_are_exact(linear, table, holes):
    rows = table[holes.any(axis=1)][:20]
    mean, loadings, noise = gaussian_of(linear)
    scale = linear.fitted_.principal_axes.scale
    found = linear.posterior(rows)
    for i, row in enumerate(rows):
        seen = ~np.isnan(row)
        some = loadings[seen]
        covariance = np.linalg.inv(np.eye(3) + some.T @ (some / noise[seen, None]))
        code = covariance @ some.T @ ((row - mean)[seen] / noise[seen])
        assert_allclose(found.mean[i], scale * code, atol=2e-3)
        factor = found.covariance_factor[i]
        assert_allclose(
            factor @ factor.T, scale[:, None] * covariance * scale, rtol=0.01, atol=1e-4
        )


def test_imputed_values_of_a_linear_model_are_exact(linear, table, holes):
    rows = table[holes.any(axis=1)][:40]
    filled = linear.impute(rows)
    for row, found in zip(rows, filled, strict=True):
        missing = np.isnan(row)
        assert_array_equal(found[~missing], row[~missing])
        assert_allclose(found[missing], conditionals(linear, row)[1], atol=2e-3)


@pytest.mark.slow
def test_draws_of_a_linear_model_have_the_exact_moments(linear, table, holes):
    row = table[np.argmax(holes.sum(axis=1))][None]
    drawn = linear.impute(row, n_draws=4000)[:, 0, np.isnan(row[0])]
    _, expected, covariance = conditionals(linear, row[0])
    error = np.sqrt(np.diag(covariance))
    assert_allclose(drawn.mean(axis=0), expected, atol=0.08 * error.max())
    assert_allclose(np.cov(drawn.T), covariance, atol=0.12 * np.square(error).max())


# Imputation


def test_imputed_values_beat_the_mean(fitted, complete, holes, table):
    def error(filled):
        return np.square(filled - complete)[holes].mean()

    assert error(fitted.impute(table)) < 0.5 * error(SimpleImputer().fit_transform(table))


def test_intervals_from_draws_cover(fitted, complete, holes, table):
    drawn = fitted.impute(table, n_draws=60)
    low, high = np.quantile(drawn, [0.05, 0.95], axis=0)
    covered = ((complete >= low) & (complete <= high))[holes].mean()
    assert 0.83 < covered < 0.96


def test_imputed_rows_come_back_as_they_were_given(fitted, table):
    assert fitted.impute(table).dtype == np.float64
    assert fitted.impute(table.astype(np.float32)).dtype == np.float32
    model = copy.deepcopy(fitted)
    frame = pd.DataFrame(
        table, index=[f"r{i}" for i in range(len(table))], columns=list("abcdefghi")
    )
    model = HEBAETransformer(3, **QUICK).fit(frame)
    filled = model.impute(frame)
    assert isinstance(filled, pd.DataFrame)
    assert filled.index.equals(frame.index)
    assert filled.columns.equals(frame.columns)
    assert not filled.isna().any(axis=None)
    drawn = model.impute(frame, n_draws=2)
    assert [type(copy_) for copy_ in drawn] == [pd.DataFrame] * 2
    again = model.impute(frame, n_draws=2)
    pd.testing.assert_frame_equal(drawn[1], again[1])
    other = model.impute(frame, n_draws=2, random_state=1)
    assert not drawn[1].equals(other[1])


def test_frames_of_polars_come_back_too(table):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame(table, schema=list("abcdefghi"))
    model = HEBAETransformer(3, **QUICK).fit(frame)
    filled = model.impute(frame)
    assert isinstance(filled, pl.DataFrame)
    assert filled.columns == frame.columns
    assert np.isfinite(filled.to_numpy()).all()


def test_complete_rows_are_left_alone(fitted, complete):
    assert_array_equal(fitted.impute(complete), complete)
    whole = np.arange(9 * 20).reshape(20, 9)
    assert_array_equal(fitted.impute(whole), whole)


@pytest.mark.parametrize("n_draws", [0, -1, 1.5, "many"])
def test_bad_numbers_of_draws(n_draws, fitted, table):
    with pytest.raises(ValueError, match=r"n_draws=.*must be an integer >= 1"):
        fitted.impute(table, n_draws=n_draws)


@pytest.mark.slow
def test_batches_are_decoded_for_their_own_rows(table):
    batch = np.arange(len(table)) % 2
    shifted = table + 3.0 * batch[:, None]
    model = HEBAETransformer(2, **{**QUICK, "max_iter": 60}).fit(shifted, batch=batch)
    filled = model.impute(shifted, batch=batch)
    missing = np.isnan(table)
    gap = [filled[batch == b][missing[batch == b]].mean() for b in (0, 1)]
    assert 2.0 < gap[1] - gap[0] < 4.0
    with pytest.raises(ValueError, match="batch"):
        model.impute(shifted)


@pytest.mark.slow
def test_rows_that_gain_nothing_from_perceptrons_are_filled_by_factor_analysis(tmp_path):
    """In closed form; and so they are in copies and files."""
    rng = np.random.RandomState(0)
    loadings = rng.standard_normal((2, 6))
    X = rng.standard_normal((150, 2)) @ loadings + 0.3 * rng.standard_normal((150, 6))
    X[rng.random_sample(X.shape) < 0.2] = np.nan
    model = HEBAETransformer(2, random_state=0).fit(X)
    assert model.is_linear_
    assert model.fitted_.fills_linearly
    filled = model.impute(X)
    scaling, fill = model.fitted_.scaling, model.fitted_.model.fill
    x = torch.from_numpy(np.nan_to_num(scaling.standardise(X)))
    expected = scaling.restore(fill(x, torch.from_numpy(~np.isnan(X))).numpy())
    assert_allclose(filled[np.isnan(X)], expected[np.isnan(X)], rtol=1e-5, atol=1e-5)
    drawn = model.impute(X, n_draws=400)
    assert_allclose(drawn.mean(axis=0), filled, atol=0.2)
    path = tmp_path / "model.skhebae"
    model.save(path)
    assert_array_equal(HEBAETransformer.load(path).impute(X), filled)


# The imputer


@pytest.mark.slow
def test_imputer_is_a_step_of_a_pipeline(table, holes):
    y = load_breast_cancer().target[: len(table)]
    model = make_pipeline(HEBAEImputer(HEBAETransformer(3, **QUICK)), LogisticRegression())
    assert model.fit(table, y).score(table, y) > 0.85
    search = GridSearchCV(model, {"hebaeimputer__autoencoder__n_components": [1, 2]}, cv=2)
    assert search.fit(table, y).best_score_ > 0.8


@pytest.mark.slow
def test_imputer_gives_what_impute_gives(table):
    imputer = HEBAEImputer(HEBAETransformer(3, **QUICK))
    filled = imputer.fit_transform(table)
    assert_array_equal(filled, HEBAETransformer(3, **QUICK).fit(table).impute(table))
    frame = pd.DataFrame(table, columns=list("abcdefghi"))
    framed = HEBAEImputer(HEBAETransformer(3, **QUICK)).set_output(transform="pandas").fit(frame)
    assert list(framed.get_feature_names_out()) == list(frame.columns)
    assert list(framed.transform(frame).columns) == list(frame.columns)
    assert HEBAEImputer().fit(table).autoencoder_.n_components == 10


@pytest.mark.slow
def test_imputer_is_better_than_the_nearest_rows(complete, holes, table):
    def error(filled):
        return np.square(filled - complete)[holes].mean()

    ours = HEBAEImputer(HEBAETransformer(random_state=0)).fit_transform(table)
    assert error(ours) < error(KNNImputer().fit_transform(table))


@pytest.mark.slow
def test_scores_choose_parameters_on_incomplete_rows(table):
    search = GridSearchCV(HEBAETransformer(**QUICK), {"n_components": [1, 3]}, cv=2).fit(table)
    assert search.best_params_ == {"n_components": 3}


# Mixed frames


@pytest.fixture(scope="module")
def mixed_frame(complete):
    rng = np.random.RandomState(0)
    frame = pd.DataFrame(complete[:, :3], columns=["a", "b", "c"])
    frame["size"] = np.rint(10.0 + 3.0 * frame["a"]).astype("int64")
    frame["kind"] = np.where(frame["a"] > 0.3, "big", np.where(frame["b"] > 0, "odd", "small"))
    frame["side"] = pd.Categorical(np.where(frame["c"] > 0, "left", "right"))
    frame.index = [f"row{i}" for i in range(len(frame))]
    return frame, rng.random_sample(frame.shape) < 0.15


@pytest.mark.slow
def test_mixed_rows_are_completed_in_their_own_types(mixed_frame):
    frame, removed = mixed_frame
    incomplete = frame.mask(removed)
    model = HEBAETransformer(3, **{**QUICK, "max_iter": 80}).fit(frame)
    filled = model.impute(incomplete)
    assert filled.dtypes.to_dict() == frame.dtypes.to_dict()
    assert filled.index.equals(frame.index)
    assert not filled.isna().any(axis=None)
    for j, name in enumerate(frame):
        seen = ~removed[:, j]
        assert (filled[name] == frame[name])[seen].all() or np.allclose(
            filled[name][seen], frame[name][seen]
        )
    kinds = (filled["kind"] == frame["kind"])[removed[:, 4]]
    assert kinds.mean() > frame["kind"].value_counts(normalize=True).max() + 0.1
    drawn = model.impute(incomplete, n_draws=2)
    assert [copy_.dtypes.to_dict() for copy_ in drawn] == [frame.dtypes.to_dict()] * 2


@pytest.mark.slow
def test_fits_to_mixed_rows_with_holes(mixed_frame):
    frame, removed = mixed_frame
    incomplete = frame.mask(removed)
    imputer = HEBAEImputer(HEBAETransformer(3, **QUICK))
    filled = imputer.fit_transform(incomplete)
    assert list(filled.columns) == list(frame.columns)
    assert not filled.isna().any(axis=None)
    codes = imputer.autoencoder_.transform(incomplete)
    assert np.isfinite(codes).all()
