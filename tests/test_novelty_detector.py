"""The detector: its contract, p-values, tables of all kinds, explanations and files."""

from __future__ import annotations

import copy
import math
import pickle
import threading
import warnings

import fuzz
import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.base import clone
from sklearn.cluster import KMeans
from sklearn.exceptions import NotFittedError
from sklearn.metrics import make_scorer, roc_auc_score
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils._openmp_helpers import _openmp_effective_n_threads
from test_modes import MODES
from torch import nn

from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer, WAETransformer
from skhebae.data import StoredTable
from skhebae.estimators import novelty
from skhebae.estimators.selection import Selection
from skhebae.exceptions import FewRowsWarning, ModelFileError
from skhebae.fitted import reference
from skhebae.fitted.novelty import SCORES
from skhebae.fitted.reference import describe, group_rows
from skhebae.process.modes import plain_modes

pytestmark = pytest.mark.filterwarnings(
    "ignore::sklearn.exceptions.ConvergenceWarning",
    "ignore::skhebae.exceptions.FewRowsWarning",
    "ignore::skhebae.exceptions.OutOfRangeWarning",
)

#: Scores that are always tested: of neighbours, of posteriors and of a bound.
FEW = ["neighbours", "bhattacharyya", "typicality"]


def mostly_slow(values, quick):
    """All values, of which only some are tested where time is short."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]


BRIEF = {"n_components": 2, "hidden_layer_sizes": (8,), "max_iter": 3}


def brief(cls=HEBAETransformer, **params):
    return cls(**{**BRIEF, **params})


def detector(estimator=None, **params):
    """A detector that is fitted once, in a moment."""
    estimator = brief() if estimator is None else estimator
    return NoveltyDetector(estimator, **{"calibration": 0.3, "random_state": 0, **params})


@pytest.fixture(scope="module")
def fitted(table):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return detector().fit(table)


# Thresholds and p-values


@given(
    st.integers(20, 120),
    st.one_of(st.floats(1e-3, 0.5), st.sampled_from([0.05, 0.07, 0.1, 0.29, 0.35, 0.5])),
)
@settings(max_examples=60)
def test_the_share_of_contamination_is_negative(fitted, table, n_rows, share):
    """``ceil(c (n - 1))`` of n rows, so c n where that is a whole number."""
    copied = copy.copy(fitted)
    scores = fitted.score_samples(table[:n_rows])
    copied.offset_ = float(np.percentile(scores, 100.0 * share))
    found = (copied.predict(table[:n_rows]) == -1).sum()
    assert abs(found - share * n_rows) < 1.0
    if abs(share * n_rows - round(share * n_rows)) < 1e-9:
        assert found == round(share * n_rows)


@pytest.mark.parametrize("share", mostly_slow([0.05, 0.1, 0.5], [0.1]))
@pytest.mark.parametrize("calibration", [0.3, 2])
def test_contamination_of_the_rows_of_fit(table, share, calibration):
    model = detector(contamination=share, calibration=calibration).fit(table)
    assert (model.predict(table) == -1).sum() == share * len(table)
    assert_array_equal(model.fit_predict(table), model.predict(table))


@pytest.mark.parametrize("params", [{}, {"contamination": 0.1}, {"alpha": 0.2}, {"calibration": 3}])
def test_predict_decision_offset_and_p_values_agree(table, params):
    model = detector(**params).fit(table)
    X = np.concatenate([table, 3.0 * table])
    decision, scores = model.decision_function(X), model.score_samples(X)
    assert decision.dtype == scores.dtype == np.float64
    assert isinstance(model.offset_, float)
    assert_array_equal(decision, scores - model.offset_)
    predicted = model.predict(X)
    assert predicted.dtype == np.int64
    assert_array_equal(predicted, np.where(decision >= 0.0, 1, -1))
    p_values = model.p_values(X)
    order = np.argsort(scores)
    assert (np.diff(p_values[order]) >= 0.0).all()
    assert p_values.min() >= 1.0 / (len(model.calibration_scores_) + 1)
    if "contamination" not in params:
        assert_array_equal(predicted == -1, p_values <= model.alpha)
    adjusted = model.p_values(X, adjust="bh")
    assert (adjusted >= p_values).all()


def test_calibration_scores_are_those_of_the_held_out_rows(table):
    model = detector().fit(table)
    assert len(model.calibration_scores_) == 72
    assert (np.diff(model.calibration_scores_) >= 0.0).all()
    # Each is the score of a row of the table: those of fit are others.
    assert np.isin(model.calibration_scores_, -model.score_samples(table)).all()
    folds = detector(calibration=4).fit(table)
    assert len(folds.calibration_scores_) == len(table)
    assert not np.isin(folds.calibration_scores_, -folds.score_samples(table)).any()


@pytest.mark.slow
def test_references_of_folds_and_of_all_rows_are_of_as_many_rows(table, monkeypatch):
    """Or rows that were held out would be further from theirs than new rows are from the last."""
    seen = []
    original = novelty.fit_reference

    def fit_reference(fitted, X, *arguments, **more):
        seen.append(len(X))
        return original(fitted, X, *arguments, **more)

    monkeypatch.setattr(novelty, "fit_reference", fit_reference)
    detector(calibration=5).fit(table)
    assert seen == 6 * [192]
    seen.clear()
    detector(calibration=0.25).fit(table)
    assert seen == [180]


@pytest.mark.slow
def test_default_calibration_is_folds_for_few_rows_and_a_share_of_many(table):
    rng = np.random.default_rng(0)
    assert len(detector(calibration="auto").fit(table).calibration_scores_) == len(table)
    many = rng.normal(size=(1500, 3))
    assert len(detector(calibration="auto").fit(many).calibration_scores_) == 300
    more = rng.normal(size=(12_000, 2))
    assert len(detector(calibration="auto").fit(more).calibration_scores_) == 2000


def survey(n_rows, rng):
    """A mixed frame with missing entries."""
    age, smokes = rng.integers(18, 90, n_rows), rng.random(n_rows) < 0.3
    frame = pd.DataFrame(
        {
            "age": age.astype(float),
            "city": rng.choice(list("abcd"), n_rows),
            "pressure": (110 + 0.5 * age + 8 * smokes + rng.normal(0, 8, n_rows)).round(1),
            "smokes": np.where(smokes, "yes", "no"),
        }
    )
    return frame.mask(rng.random(frame.shape) < 0.1)


def test_default_calibration_splits_few_rows_that_are_not_gaussian():
    """Scores of fits to more rows are larger there, so folds would give p-values too small."""
    rng = np.random.default_rng(0)
    quick = HEBAETransformer(2, max_iter=1, hidden_layer_sizes=(4,), random_state=0)
    for n_rows, n_held_out in ((30, 15), (60, 19), (200, 40)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one epoch; too few rows for alpha
            mixed = NoveltyDetector(quick, random_state=0).fit(survey(n_rows, rng))
            model = clone(quick).set_params(likelihood="poisson")
            counts = NoveltyDetector(model, random_state=0).fit(rng.poisson(3.0, (n_rows, 4)))
        assert len(mixed.calibration_scores_) == len(counts.calibration_scores_) == n_held_out


@pytest.mark.slow
def test_p_values_of_mixed_frames_are_valid():
    shares = []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        model = NoveltyDetector(HEBAETransformer(4, random_state=0), random_state=0)
        p_values = model.fit(survey(300, rng)).p_values(survey(600, rng))
        shares.append([(p_values <= level).mean() for level in (0.1, 0.5)])
    # By folds, the means on such a table were 0.19 and 0.65.
    low, middle = np.mean(shares, axis=0)
    assert low < 0.15
    assert 0.4 < middle < 0.6


def false_alarms(calibration, n_rows, n_tables, estimator=None):
    """Share of p-values of at most 0.05 among further inliers, per table."""
    shares = []
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        mixing = rng.normal(size=(3, 8))
        X = np.sinh(rng.normal(size=(n_rows + 400, 3))) @ mixing
        X += 0.3 * rng.normal(size=X.shape)
        model = detector(estimator, calibration=calibration, random_state=seed).fit(X[:n_rows])
        shares.append((model.p_values(X[n_rows:]) <= 0.05).mean())
    return np.mean(shares), np.std(shares) / n_tables**0.5


@pytest.mark.slow
@pytest.mark.parametrize(("calibration", "n_rows"), [(0.4, 500), (5, 300)])
def test_false_alarms_are_four_to_six_percent(calibration, n_rows):
    estimator = HEBAETransformer(3, max_iter=20)
    share, error = false_alarms(calibration, n_rows, 40, estimator)
    assert error < 0.006
    assert 0.04 - error < share < 0.06 + error


@pytest.mark.slow
def test_false_alarms_in_short():
    share, error = false_alarms(0.4, 250, 16)
    assert 0.05 - 4.0 * error - 0.01 < share < 0.05 + 4.0 * error
    share, error = false_alarms(5, 100, 8)
    assert 0.05 - 4.0 * error - 0.02 < share < 0.05 + 4.0 * error + 0.01


# scikit-learn


def test_pipeline_clone_and_copies(table):
    pipeline = make_pipeline(StandardScaler(), detector()).fit(table)
    X = np.concatenate([table, 3.0 * table])
    scores, predicted = pipeline.score_samples(X), pipeline.predict(X)
    assert set(predicted) == {-1, 1}
    assert_array_equal(pipeline.decision_function(X), scores - pipeline[-1].offset_)
    assert_array_equal(clone(pipeline).fit_predict(table), pipeline.predict(table))
    assert clone(detector(alpha=0.2)).alpha == 0.2
    params = detector().set_params(autoencoder__n_components=4).get_params()
    assert params["autoencoder__n_components"] == 4


def separation(y, decision):
    return roc_auc_score(y, -decision)


def test_grid_search_over_scores(table):
    X = np.concatenate([table[:120], np.random.default_rng(0).permuted(table[120:], axis=1)])
    y = np.repeat([0, 1], 120)
    scorer = make_scorer(separation, response_method="decision_function")
    order = np.random.default_rng(1).permutation(240)
    X, y = X[order], y[order]
    grid = {"novelty_score": ["auto", "bound", "reconstruction_error"]}
    found = GridSearchCV(detector(), grid, scoring=scorer, cv=2).fit(X, y)
    assert found.best_score_ > 0.5
    assert np.isfinite(found.cv_results_["mean_test_score"]).all()


def test_a_search_without_a_scorer_says_so(table):
    with pytest.raises(TypeError, match="no scoring is specified"):
        GridSearchCV(detector(), {"alpha": [0.1]}).fit(table)


def test_before_fit(table):
    for method in ("score_samples", "decision_function", "predict", "p_values", "explain"):
        with pytest.raises(NotFittedError):
            getattr(detector(), method)(table)
    with pytest.raises(NotFittedError):
        detector().save("unused")


def test_the_autoencoder_that_was_given_stays_as_it_was(table):
    own = brief()
    model = detector(own).fit(table)
    assert model.autoencoder_ is not own
    assert not any(name.endswith("_") for name in vars(own))
    assert own.random_state is None


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"novelty_score": "distance"}, "novelty_score"),
        ({"contamination": 0.6}, "contamination"),
        ({"contamination": 0.0}, "contamination"),
        ({"alpha": 1.0}, "alpha"),
        ({"calibration": 1}, "calibration"),
        ({"calibration": 1.5}, "calibration"),
        ({"estimator": StandardScaler()}, "autoencoder"),
        ({"random_state": "a"}, "random_state"),
    ],
)
def test_bad_parameters(table, params, message):
    with pytest.raises(ValueError, match=message):
        detector(**params).fit(table)


@pytest.mark.slow
def test_random_states(table):
    def scores(autoencoder_seed=None, **params):
        return (
            detector(brief(random_state=autoencoder_seed), **params).fit(table).score_samples(table)
        )

    assert_array_equal(scores(random_state=1), scores(random_state=1))
    assert not np.array_equal(scores(random_state=1), scores(random_state=2))
    # Without one of its own, the detector takes that of the autoencoder.
    assert_array_equal(scores(3, random_state=None), scores(3, random_state=None))
    assert not np.array_equal(scores(3, random_state=None), scores(4, random_state=None))
    # A state that is passed on goes on, and the global one is not touched.
    state = np.random.RandomState(0)
    first, second = scores(random_state=state), scores(random_state=state)
    assert not np.array_equal(first, second)
    assert_array_equal(first, scores(random_state=np.random.RandomState(0)))
    before = np.random.get_state()[1].copy()
    torch_before = torch.random.get_rng_state()
    scores(random_state=0)
    assert_array_equal(np.random.get_state()[1], before)
    assert_array_equal(torch.random.get_rng_state(), torch_before)


def test_a_refit_that_fails_keeps_the_earlier_fit(table):
    model = detector().fit(table)
    before, state = model.score_samples(table), dict(vars(model))
    with pytest.raises(ValueError, match="infinity"):
        model.fit(np.full_like(table, np.inf))
    with pytest.raises(ValueError, match="2 sample"):
        model.fit(table[:2])
    model.set_params(autoencoder=brief(WAETransformer), novelty_score="divergence")
    with pytest.raises(ValueError, match="Choose another score"):
        model.fit(table[:, :5])
    model.set_params(autoencoder=state["autoencoder"], novelty_score="auto")
    assert vars(model).keys() == state.keys()
    assert_array_equal(model.score_samples(table), before)


@pytest.mark.parametrize("name", ["divergence", "loss"])
def test_scores_of_noise_need_noise(table, name):
    with pytest.raises(
        ValueError, match=f"novelty_score='{name}' is not finite for WAETransformer"
    ):
        detector(brief(WAETransformer), novelty_score=name).fit(table)


# Tables of all kinds


COUNTS = ("poisson", "negative_binomial", "zero_inflated_negative_binomial")


@pytest.mark.parametrize("cls", [HEBAETransformer, VAETransformer, WAETransformer])
@pytest.mark.parametrize("likelihood", mostly_slow(["gaussian", "bernoulli", *COUNTS], COUNTS[1:2]))
@pytest.mark.parametrize(
    "name", mostly_slow(["auto", "bound", "bhattacharyya", "fully_stochastic"], ["auto"])
)
def test_every_estimator_and_likelihood(cls, likelihood, name):
    rng = np.random.default_rng(0)
    X = np.exp(rng.normal(size=(90, 2)) @ rng.normal(size=(2, 6)))
    if likelihood == "bernoulli":
        X = X / (1.0 + X)
    if likelihood in COUNTS:
        X = rng.poisson(3.0 * X)
    model = detector(brief(cls, likelihood=likelihood), novelty_score=name).fit(X)
    scores = model.score_samples(X)
    assert np.isfinite(scores).all()
    assert len(np.unique(scores)) > 60
    assert_array_equal(model.score_samples(X[7:8]), scores[7:8])


def test_counts_with_batches_and_size_factors(tmp_path):
    rng = np.random.default_rng(0)
    batch = np.array(["a", "b"])[np.arange(120) % 2]
    size = rng.uniform(1.0, 5.0, 120)
    X = rng.poisson(size[:, None] * np.exp(rng.normal(size=(120, 2)) @ rng.normal(size=(2, 6))))
    side = {"batch": batch, "size_factor": size}
    own = brief(likelihood="negative_binomial", encode_batch=True)
    for calibration in (0.3, 2):
        model = detector(own, calibration=calibration).fit(sparse.csr_matrix(X), **side)
        scores = model.score_samples(X, **side)
        assert np.isfinite(scores).all()
        some = {name: values[10:30] for name, values in side.items()}
        assert_array_equal(model.score_samples(sparse.csr_matrix(X[10:30]), **some), scores[10:30])
        assert not np.array_equal(
            model.score_samples(X, batch=batch[::-1], size_factor=size), scores
        )
        assert_array_equal(model.fit_predict(X, **side), model.predict(X, **side))
        shares = model.explain(X, **side)
        assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    model.save(tmp_path / "model")
    loaded = NoveltyDetector.load(tmp_path / "model")
    assert_array_equal(loaded.score_samples(X, **side), model.score_samples(X, **side))
    with pytest.raises(ValueError, match=r"batch has shape \(5,\).*120 rows"):
        detector(own).fit(X, batch=batch[:5])
    with pytest.raises(ValueError, match=r"size_factor has shape \(5,\).*120 rows"):
        detector(own).fit(X, batch=batch, size_factor=size[:5])


@pytest.mark.parametrize("calibration", mostly_slow([0.3, 5], [0.3]))
def test_rows_of_batches_that_only_they_have_are_not_held_out(calibration):
    X = np.random.default_rng(0).poisson(3.0, size=(60, 5))
    batch = np.repeat("a", 60).astype(object)
    batch[7] = "b"
    own = brief(likelihood="poisson")
    for seed in range(4):
        model = detector(own, calibration=calibration, random_state=seed).fit(X, batch=batch)
        assert len(model.calibration_scores_) in ((17, 18) if calibration == 0.3 else (59,))
        assert np.isfinite(model.p_values(X, batch=batch)).all()
    with pytest.raises(ValueError, match="Join batches of few rows"):
        detector(own, calibration=calibration).fit(X, batch=np.arange(60).astype(str))


def mixed_table(n_rows=120, seed=0):
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n_rows)
    b = 2.0 * a + 0.1 * rng.normal(size=n_rows)
    b[rng.random(n_rows) < 0.15] = np.nan
    levels = np.where(a > 0.5, "x", np.where(a > -0.5, "y", "z")).astype(object)
    levels[rng.random(n_rows) < 0.1] = None
    return {
        "a": a,
        "b": b,
        "c": a + 0.1 * rng.normal(size=n_rows),
        "level": levels,
        "flag": a > 0.0,
    }


@pytest.fixture(scope="module", params=["pandas", "polars"])
def frame(request):
    columns = mixed_table()
    if request.param == "pandas":
        levels = pd.Categorical(columns["level"])
        return pd.DataFrame({**columns, "level": levels}).set_index(pd.Index(range(1000, 1120)))
    schema = {"level": pl.Categorical}
    values = {name: list(v) for name, v in columns.items()}
    return pl.DataFrame(values, schema_overrides=schema).with_columns(pl.col("b").fill_nan(None))


def rows_of(frame, start, stop):
    return frame.iloc[start:stop] if isinstance(frame, pd.DataFrame) else frame[start:stop]


@pytest.mark.parametrize("calibration", mostly_slow([0.3, 2], [0.3]))
def test_mixed_frames_with_missing_values(frame, calibration, tmp_path):
    model = detector(calibration=calibration).fit(frame)
    scores = model.score_samples(frame)
    assert np.isfinite(scores).all()
    assert_array_equal(model.score_samples(rows_of(frame, 17, 18)), scores[17:18])
    assert_array_equal(model.score_samples(rows_of(frame, 10, 60)), scores[10:60])
    assert list(model.feature_names_in_) == ["a", "b", "c", "level", "flag"]
    assert model.n_features_in_ == 5
    model.save(tmp_path / "model")
    loaded = NoveltyDetector.load(tmp_path / "model")
    assert_array_equal(loaded.score_samples(frame), scores)
    for code in ("apart", "columns"):
        shares = model.explain(frame, code=code)
        expected = ["a", "b", "c", "level", "flag"] + (["code"] if code == "apart" else [])
        assert list(shares.columns) == expected
        assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
        assert (shares.to_numpy() >= 0.0).all()
        assert_array_equal(loaded.explain(frame, code=code), shares)
    if isinstance(frame, pd.DataFrame):
        assert_array_equal(shares.index, frame.index)
        missing = frame["b"].isna()
        assert (shares.loc[missing, "b"] == 0.0).all()


@pytest.mark.parametrize(
    "kind",
    mostly_slow(
        [
            "list",
            "tensor",
            "frame",
            "fortran",
            "float32",
            "integers",
            "csr",
            "csc",
            "coo",
            "dia",
            "bsr",
        ],
        ["tensor", "dia"],
    ),
)
def test_tables_of_other_kinds(kind, table):
    X = np.round(4.0 * table)
    X[np.abs(X) < 5.0] = 0.0
    made = {
        "list": lambda X: X.tolist(),
        "tensor": torch.from_numpy,
        "frame": pd.DataFrame,
        "fortran": np.asfortranarray,
        "float32": lambda X: X.astype(np.float32),
        "integers": lambda X: X.astype(np.int16),
        **{n: getattr(sparse, f"{n}_array") for n in ("csr", "csc", "coo", "dia", "bsr")},
    }[kind]
    for calibration in (0.3, 2):
        expected = detector(calibration=calibration).fit(X)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", sparse.SparseEfficiencyWarning)
            warnings.filterwarnings("ignore", "X has feature names")
            warnings.filterwarnings("ignore", "X does not have valid feature names")
            model = detector(calibration=calibration).fit(made(X))
            is_rounded = kind in ("csr", "csc", "coo", "dia", "bsr", "float32")
            rtol = 1e-4 if is_rounded else 1e-12
            assert_allclose(model.score_samples(X), expected.score_samples(X), rtol=rtol)
            assert_allclose(model.score_samples(made(X)), model.score_samples(X), rtol=rtol)


class Images(nn.Module):
    """Maps codes to images."""

    def __init__(self, n_components, shape):
        super().__init__()
        self.shape = shape
        self.layer = nn.Linear(n_components, math.prod(shape))

    def forward(self, z):
        return self.layer(z).reshape(-1, *self.shape)


def flat_encoder(shape, n_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(shape), n_outputs))


def image_model():
    return HEBAETransformer(
        2, encoder=flat_encoder, decoder=Images, image_shape=(4, 5), max_iter=3, random_state=0
    )


def test_rows_that_are_images():
    images = np.random.default_rng(0).normal(size=(60, 4, 5))
    model = detector(image_model()).fit(images)
    flat = model.score_samples(images.reshape(60, 20))
    assert_array_equal(model.score_samples(images), flat)
    assert model.explain(images).shape == (60, 21)


def test_networks_of_ones_own_are_passed_to_load(tmp_path):
    X = np.random.default_rng(0).normal(size=(60, 20))
    model = detector(image_model()).fit(X)
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"Load it with NoveltyDetector.load\(path, encoder="):
        NoveltyDetector.load(tmp_path / "model")
    own = {"encoder": flat_encoder, "decoder": Images}
    loaded = NoveltyDetector.load(tmp_path / "model", **own)
    assert_array_equal(loaded.score_samples(X), model.score_samples(X))
    assert loaded.autoencoder.encoder is flat_encoder
    assert clone(loaded).fit(X).offset_ == model.offset_


def test_streams_are_refused(table):
    with pytest.raises(TypeError, match="A detector is fitted to one table"):
        detector().fit(iter([table, table]))


@pytest.fixture(params=["memmap", "h5py", "zarr"])
def outside(request, tmp_path):
    """Write a table to a file and open it."""

    def write(X):
        if request.param == "memmap":
            np.save(tmp_path / "rows.npy", X)
            return np.load(tmp_path / "rows.npy", mmap_mode="r")
        if request.param == "h5py":
            h5py = pytest.importorskip("h5py")
            with h5py.File(tmp_path / "rows.h5", "w") as file:
                file["rows"] = X
            return h5py.File(tmp_path / "rows.h5", "r")["rows"]
        zarr = pytest.importorskip("zarr")
        zarr.save(str(tmp_path / "rows.zarr"), X)
        return zarr.open(str(tmp_path / "rows.zarr"), mode="r")

    return write


@pytest.mark.parametrize("calibration", mostly_slow([0.3, 2], [0.3]))
def test_tables_outside_memory(outside, calibration):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(700, 3)) @ rng.normal(size=(3, 6)) + 0.1 * rng.normal(size=(700, 6))
    own = brief(window_mb=0.01)
    stored = outside(X)
    model = detector(own, calibration=calibration).fit(stored)
    n_held_out = 210 if calibration == 0.3 else 700
    assert len(model.calibration_scores_) == n_held_out
    scores = model.score_samples(stored)
    assert_array_equal(scores, model.score_samples(X))
    inside = detector(brief(), calibration=calibration).fit(X)
    assert np.corrcoef(scores, inside.score_samples(X))[0, 1] > 0.5
    # Of half the rows, a model of few epochs has larger errors: then p-values are too large.
    assert (model.p_values(X) <= 0.05).mean() < 0.12


@pytest.mark.slow
def test_the_reference_stands_for_all_of_a_file(tmp_path):
    """Also for the last rows of a file in order, of which it takes a part."""
    rng = np.random.default_rng(0)
    X = np.sort(rng.normal(size=(16_000, 2)), axis=0) * 10.0
    np.save(tmp_path / "rows.npy", X)
    stored = np.load(tmp_path / "rows.npy", mmap_mode="r")
    model = detector(brief(window_mb=0.05)).fit(stored)
    alarms = model.p_values(X) <= 0.05
    parts = np.array_split(alarms, 8)
    assert max(part.mean() for part in parts[1:-1]) < 0.15, [part.mean() for part in parts]


@pytest.mark.parametrize("n_rows", mostly_slow([17, 20, 33, 100], [17, 33]))
def test_short_tables_outside_memory_hold_out_as_many_rows_as_others(n_rows, tmp_path):
    X = np.random.default_rng(0).normal(size=(n_rows, 4))
    np.save(tmp_path / "rows.npy", X)
    stored = np.load(tmp_path / "rows.npy", mmap_mode="r")
    for seed in range(4):
        model = detector(brief(window_mb=1e-4), random_state=seed).fit(stored)
        assert len(model.calibration_scores_) == round(0.3 * n_rows)


@given(
    st.integers(1, 3000),
    st.integers(0, 3000),
    st.floats(0.0, 1.0),
    st.integers(0, 99),
    st.booleans(),
)
@settings(max_examples=60)
def test_draws_of_rows(n_rows, n_wanted, share, seed, is_stored):
    """So many, in order, none twice, none of those that are left out, and all if there are few."""
    X = np.zeros((n_rows, 1))
    rows = Selection(StoredTable(X) if is_stored else X, None, None)
    rng = np.random.RandomState(seed)
    without = np.flatnonzero(rng.random_sample(n_rows) < share)
    drawn = rows.draw(n_wanted, rng, without=without)
    assert len(drawn) == min(n_wanted, n_rows - len(without))
    assert (np.diff(drawn) > 0).all()
    assert not np.isin(drawn, without).any()
    assert np.isin(drawn, np.arange(n_rows)).all()


def test_draws_are_uniform_over_a_file():
    rows = Selection(StoredTable(np.zeros((2000, 1))), None, None)
    counts = np.zeros(2000)
    for seed in range(300):
        counts[rows.draw(500, np.random.RandomState(seed), without=np.arange(0, 2000, 3))] += 1
    assert (counts[::3] == 0).all()
    parts = counts.reshape(20, 100).sum(axis=1) / counts.sum()
    assert_allclose(parts, 0.05, rtol=0.1)


# Few, equal and extreme rows


@pytest.mark.parametrize("n_rows", [3, 4, 5, 10, 19, 20])
@pytest.mark.parametrize("calibration", mostly_slow(["auto", 0.3, 5], [0.3]))
def test_few_rows(n_rows, calibration):
    X = np.random.default_rng(0).normal(size=(n_rows, 4))
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        model = detector(calibration=calibration).fit(X)
    few = [w for w in record if w.category is FewRowsWarning]
    n_held_out = len(model.calibration_scores_)
    assert n_held_out == (n_rows if calibration != 0.3 else max(1, round(0.3 * n_rows)))
    assert len(few) == (n_held_out < 19)
    if few:
        assert few[0].filename == __file__
        assert f"{n_held_out} rows were held out" in str(few[0].message)
    far = np.concatenate([X, np.full((1, 4), 1e4)])
    p_values = model.p_values(far)
    assert p_values[-1] == 1.0 / (n_held_out + 1)
    assert np.isfinite(model.score_samples(far)).all()
    assert model.predict(far)[-1] == -1


@pytest.mark.parametrize("n_rows", [0, 1, 2])
def test_too_few_rows(n_rows):
    for calibration in ("auto", 0.3):
        with pytest.raises(ValueError, match=rf"{n_rows} sample\(s\)"):
            detector(calibration=calibration).fit(np.ones((n_rows, 3)))


@pytest.mark.parametrize("name", mostly_slow(sorted(set(SCORES)), FEW))
def test_constant_columns_and_tables(table, name):
    own = brief(VAETransformer)
    X = table.copy()
    X[:, [2, 5]] = [4.0, -1e6]
    model = detector(own, novelty_score=name).fit(X)
    assert np.isfinite(model.score_samples(X)).all()
    constant = detector(own, novelty_score=name).fit(np.full((30, 3), 2.0))
    rows = np.array([[2.0, 2.0, 2.0], [2.0, 2.0, 9.0]])
    scores = constant.score_samples(rows)
    assert np.isfinite(scores).all()
    if name in ("neighbours", "bound", "reconstruction_error"):
        assert constant.predict(rows).tolist() == [1, -1]


def test_explanation_of_tables_with_idle_components():
    """Of rank 1, with 3 components: some decode to nothing."""
    X = np.random.default_rng(0).normal(size=(60, 1)) * np.arange(1.0, 6.0)
    for cls in (HEBAETransformer, VAETransformer):
        model = detector(brief(cls, n_components=3, max_iter=30)).fit(X)
        for code in ("apart", "columns"):
            shares = model.explain(X, code=code).to_numpy()
            assert np.isfinite(shares).all()
            assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-5)
    constant = detector(brief(n_components=2)).fit(np.full((30, 3), 2.0))
    for code in ("apart", "columns"):
        shares = constant.explain(
            np.array([[2.0, 2.0, 2.0], [2.0, 2.0, 9.0]]), code=code
        ).to_numpy()
        assert np.isfinite(shares).all()
        assert shares[1, 2] == shares[1].max()


@pytest.mark.parametrize("name", mostly_slow(sorted(set(SCORES)), FEW))
def test_huge_values_are_finite_or_an_orderly_error(table, name):
    model = detector(brief(VAETransformer), novelty_score=name).fit(table)
    for size in (1e4, 1e8, 1e12, 1e18, 1e30, 3e38, 1e300):
        X = table[:6].copy()
        X[2, 3], X[4] = size, -size
        try:
            scores = model.score_samples(X)
        except ValueError as error:
            assert "X has the value" in str(error) or "too large" in str(error)  # noqa: PT017
            continue
        assert not np.isnan(scores).any(), size
        assert_array_equal(model.score_samples(X[2:3]), scores[2:3])
        assert_array_equal(model.score_samples(X[4:5]), scores[4:5])
        if name in ("neighbours", "bound", "reconstruction_error"):
            assert np.isfinite(scores).all()
            assert (scores[[2, 4]] < scores[[0, 1, 3, 5]].min()).all()
            assert model.predict(X)[2] == -1


@pytest.mark.parametrize("size", [1e6, 1e15, 1e30, 1e200])
def test_huge_values_in_fit_are_finite_or_an_orderly_error(table, size):
    X = table.copy()
    X[7, 3] = size
    try:
        model = detector().fit(X)
    except ValueError as error:
        assert any(sign in str(error) for sign in ("overflows", "X has the value"))  # noqa: PT017
        return
    assert np.isfinite(model.score_samples(table)).all()
    assert np.isfinite(model.calibration_scores_).all()


@pytest.mark.parametrize("n_features", mostly_slow([1, 2, 7, 64, 301], [7]))
@pytest.mark.parametrize(
    "name", mostly_slow(["auto", "latent_distance", "bhattacharyya"], ["auto"])
)
def test_rows_alone_of_tables_of_any_width(n_features, name):
    rng = np.random.default_rng(n_features)
    X = rng.normal(size=(700, 4)) @ rng.normal(size=(4, n_features))
    X += 0.3 * rng.normal(size=X.shape)
    model = detector(brief(VAETransformer, n_components=5), novelty_score=name).fit(X[:400])
    rows = np.concatenate([X, 1e3 * X[:50], 1e9 * X[:50]])
    scores = model.score_samples(rows)
    assert np.isfinite(scores).all()
    for i in (*range(0, 800, 61), 640, 720, 770, 799):
        assert_array_equal(model.score_samples(rows[i : i + 1]), scores[i : i + 1])
    assert_array_equal(model.score_samples(rows[300:777]), scores[300:777])
    if name == "auto":
        for code in ("apart", "columns"):
            shares = model.explain(rows, code=code).to_numpy()
            assert np.isfinite(shares).all()
            assert_allclose(shares.sum(axis=1), 1.0, rtol=1e-4)
            assert_array_equal(model.explain(rows[5:6], code=code).to_numpy(), shares[5:6])


def test_a_refit_to_another_table_forgets_the_first(table):
    model = detector(novelty_score="bhattacharyya").fit(pd.DataFrame(table).add_prefix("c"))
    model.set_params(novelty_score="auto", contamination=0.1).fit(table[:, :5])
    assert not hasattr(model, "feature_names_in_")
    assert model.n_features_in_ == 5
    assert model.reference_.variances is None
    fresh = detector(contamination=0.1).fit(table[:, :5])
    assert_array_equal(fresh.score_samples(table[:, :5]), model.score_samples(table[:, :5]))
    assert fresh.offset_ == model.offset_


# What a detector keeps


def contents(value, found):
    """Every array that a pickled state holds."""
    if isinstance(value, np.ndarray):
        found.append(value)
    elif isinstance(value, torch.Tensor):
        found.append(value.detach().numpy())
    elif isinstance(value, dict):
        for item in value.values():
            contents(item, found)
    elif isinstance(value, list | tuple):
        for item in value:
            contents(item, found)
    elif hasattr(value, "__getstate__") and not isinstance(value, str | bytes | int | float):
        state = value.__getstate__()
        if state is not None:
            contents(state, found)
    return found


def kept_points(model, X):
    """Rows of X that are a point of the reference, to single precision."""
    estimator, weight = model.autoencoder_, model.reference_.residual_weight
    rows = estimator.validate_rows(X)
    with plain_modes():
        described = estimator.fitted_.map_minibatches(
            lambda m: describe(estimator.fitted_, m, weight), rows
        )
    gaps = np.abs(described[:, None, :] - model.reference_.points[None]).max(axis=2)
    return (gaps < 1e-6 * np.abs(described).max()).any(axis=1)


@pytest.mark.parametrize("name", ["auto", "bhattacharyya"])
@pytest.mark.parametrize("n_rows", mostly_slow([3, 5, 20, 240], [3, 20]))
def test_no_row_of_fit_is_kept(table, name, n_rows):
    X = table[:n_rows]
    model = detector(calibration=2, novelty_score=name).fit(X)
    assert not kept_points(model, X).any()
    dumped = pickle.dumps(model)
    scaled = model.autoencoder_.fitted_.scaling.standardise(X)
    for rows in (X, X.astype(np.float32), scaled, scaled.astype(np.float64)):
        assert not any(row.tobytes() in dumped for row in rows)
    wide = [a.astype(np.float64).ravel() for a in contents(vars(model), []) if a.dtype.kind == "f"]
    everything = np.concatenate(wide)
    for row in X[:: max(1, n_rows // 10)]:
        assert np.isclose(everything[None], row[:, None], rtol=1e-7, atol=0.0).any(axis=1).sum() < 3


@pytest.mark.parametrize("repeats", [2, 5])
def test_repeated_rows_are_not_kept(table, repeats):
    X = np.repeat(table[:60], repeats, axis=0)
    model = detector(calibration=2).fit(X)
    assert not kept_points(model, table[:60]).any()


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 1000))
@settings(max_examples=40)
def test_points_are_means_of_two_different_rows_or_more(n_distinct, repeats, seed):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_distinct, 3)).astype(np.float32)
    X = rng.permutation(np.repeat(rows, repeats, axis=0))
    groups, points = group_rows(X, 0)
    assert groups.shape == (len(X),)
    assert np.isfinite(points).all()
    assert groups.min() >= 0
    assert groups.max() < len(points)
    assert len(points) == max(1, n_distinct // 2)
    if n_distinct > 1:
        gaps = np.abs(rows[:, None] - points[None]).max(axis=2)
        assert (gaps > 1e-6).all()
    # Equal rows are in the same group.
    for row in rows:
        assert len(np.unique(groups[(row == X).all(axis=1)])) == 1


def test_points_do_not_depend_on_threads(monkeypatch):
    """Three or more add up their parts of a mean in an order that changes."""
    seen = []

    class Watched(KMeans):
        def fit(self, *arguments, **more):
            seen.append(_openmp_effective_n_threads())
            return super().fit(*arguments, **more)

    monkeypatch.setattr(reference, "KMeans", Watched)
    before = torch.get_num_threads(), _openmp_effective_n_threads()
    group_rows(np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32), 0)
    assert seen == [1]
    assert (torch.get_num_threads(), _openmp_effective_n_threads()) == before


def test_a_file_is_small(tmp_path):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5000, 20))
    model = detector(HEBAETransformer(10, max_iter=1)).fit(X)
    model.save(tmp_path / "model")
    assert (tmp_path / "model").stat().st_size < 1e6
    assert len(model.reference_.points) <= 500


# Copies and files


def via_skops(model, folder):
    dumped = skops.io.dumps(model)
    untrusted = skops.io.get_untrusted_types(data=dumped)
    ours = {type(model), type(model.autoencoder_)}
    assert set(untrusted) == {f"{cls.__module__}.{cls.__name__}" for cls in ours}
    return skops.io.loads(dumped, trusted=untrusted)


def via_save(model, folder):
    model.save(folder / "model")
    return NoveltyDetector.load(folder / "model")


ROUTES = {
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "skops": via_skops,
    "save": via_save,
    "save twice": lambda model, folder: via_save(via_save(model, folder), folder),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "name", mostly_slow(["auto", "bhattacharyya", "typicality", "code_density"], ["bhattacharyya"])
)
def test_round_trip(table, tmp_path, route, name):
    own = brief(WAETransformer) if name == "code_density" else brief()
    model = detector(own, novelty_score=name, alpha=0.1).fit(pd.DataFrame(table).add_prefix("c"))
    X = pd.DataFrame(table[:50]).add_prefix("c")
    copied = ROUTES[route](model, tmp_path)
    assert type(copied) is NoveltyDetector
    assert_array_equal(copied.score_samples(X), model.score_samples(X))
    assert_array_equal(copied.predict(X), model.predict(X))
    assert_array_equal(copied.p_values(X), model.p_values(X))
    assert_array_equal(copied.feature_names_in_, model.feature_names_in_)
    assert copied.offset_ == model.offset_
    assert copied.n_features_in_ == model.n_features_in_
    for key in ("novelty_score", "contamination", "alpha", "calibration", "random_state"):
        assert getattr(copied, key) == getattr(model, key)
    again = clone(copied).fit(table)
    assert_array_equal(again.score_samples(table), clone(model).fit(table).score_samples(table))


def test_round_trip_of_a_detector_by_default(table, tmp_path):
    model = NoveltyDetector(
        calibration=np.float64(0.25), contamination=np.float64(0.1), random_state=np.int64(3)
    )
    model.fit(table[:60])
    loaded = via_save(model, tmp_path)
    assert loaded.autoencoder is None
    assert loaded.contamination == 0.1
    assert loaded.random_state == 3
    assert_array_equal(loaded.score_samples(table), model.score_samples(table))


def test_files_of_other_things(fitted, table, tmp_path):
    fitted.autoencoder_.save(tmp_path / "autoencoder")
    fitted.save(tmp_path / "detector")
    with pytest.raises(ModelFileError, match="autoencoder"):
        NoveltyDetector.load(tmp_path / "autoencoder")
    with pytest.raises(ModelFileError, match="detector"):
        HEBAETransformer.load(tmp_path / "detector")
    (tmp_path / "text").write_text("no model")
    with pytest.raises(ModelFileError, match="text"):
        NoveltyDetector.load(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        NoveltyDetector.load(tmp_path / "nothing")


def test_damaged_files(fitted, table, tmp_path):
    path = tmp_path / "model"
    fitted.save(path)
    raw = path.read_bytes()
    rng = np.random.default_rng(0)
    expected = fitted.score_samples(table[:5])
    for end in (0, 7, 100, len(raw) // 2, len(raw) - 1):
        path.write_bytes(raw[:end])
        with pytest.raises(ModelFileError, match=str(path)):
            NoveltyDetector.load(path)
    for place in rng.integers(0, len(raw), 60):
        changed = bytearray(raw)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(bytes(changed))
        try:
            loaded = NoveltyDetector.load(path)
        except ModelFileError as error:
            assert str(path) in str(error)  # noqa: PT017
        else:
            assert_array_equal(loaded.score_samples(table[:5]), expected)


@pytest.mark.parametrize("seed", mostly_slow(range(6), [0]))
@pytest.mark.filterwarnings("ignore")
def test_documents_with_other_values(fitted, table, tmp_path, seed):
    """As from a version of ours with a fault: the digest is right and the document wrong."""
    path = tmp_path / "model"
    fitted.save(path)
    raw = path.read_bytes()
    rng = np.random.default_rng(seed)
    for _ in range(80):
        path.write_bytes(fuzz.damage_and_seal(raw, rng))
        try:
            loaded = NoveltyDetector.load(path)
        except (ModelFileError, ValueError) as error:
            assert str(path) in str(error)  # noqa: PT017
            continue
        try:
            loaded.predict(table[:5])
            loaded.p_values(table[:5])
            loaded.explain(table[:5])
        except ValueError as error:
            signs = (*fuzz.ABSURD, "no sum over columns")
            assert any(sign in str(error) for sign in signs)  # noqa: PT017


def test_classes_of_ones_own_are_pickled(table, tmp_path):
    class Own(HEBAETransformer):
        pass

    model = detector(Own(**BRIEF)).fit(table)
    with pytest.raises(TypeError, match=r"Own.*Pickle the detector"):
        model.save(tmp_path / "model")
    assert not (tmp_path / "model").exists()


# Modes and threads


@pytest.mark.parametrize(
    "mode",
    mostly_slow(["no_grad", "inference_mode", "float64", "autocast", "errors raise"], ["float64"]),
)
def test_modes_of_the_process_change_nothing(fitted, table, mode, tmp_path):
    expected = (
        fitted.score_samples(table),
        fitted.explain(table, code="columns"),
        fitted.p_values(table),
    )
    with MODES[mode]():
        model = detector().fit(table)
        found = (
            model.score_samples(table),
            model.explain(table, code="columns"),
            model.p_values(table),
        )
        adjusted = model.p_values(table, adjust="bh")
        model.save(tmp_path / "model")
        loaded = NoveltyDetector.load(tmp_path / "model").score_samples(table)
        pickled = pickle.loads(pickle.dumps(model)).predict(table)
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)
    assert_array_equal(loaded, expected[0])
    assert_array_equal(pickled, fitted.predict(table))
    assert_array_equal(adjusted, fitted.p_values(table, adjust="bh"))


@pytest.mark.parametrize("name", mostly_slow(sorted(set(SCORES)), []))
def test_modes_change_no_score(table, name):
    own = brief(VAETransformer)
    expected = detector(own, novelty_score=name).fit(table).score_samples(table)
    with MODES["everything"]():
        found = detector(own, novelty_score=name).fit(table).score_samples(table)
    assert_array_equal(found, expected)


def test_threads(fitted, table):
    expected = fitted.score_samples(table)
    found = [None] * 6

    def run(i):
        found[i] = (
            fitted.score_samples(table) if i % 2 else detector().fit(table).score_samples(table)
        )

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        threads = [threading.Thread(target=run, args=(i,)) for i in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for scores in found:
        assert_array_equal(scores, expected)


# Why


@pytest.fixture(scope="module")
def explained():
    """A table of strong structure, and a detector that learnt it."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 10)) + 0.1 * rng.normal(size=(600, 10))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return detector(HEBAETransformer(3, max_iter=60)).fit(X[:500]), X[500:]


@pytest.mark.slow
def test_a_corrupted_column_is_named_first(explained):
    model, X = explained
    rng = np.random.default_rng(1)
    for code in ("apart", "columns"):
        hits = 0
        for i in range(len(X)):
            j = int(rng.integers(10))
            row = X[i : i + 1].copy()
            row[0, j] += 6.0 * X[:, j].std()
            shares = model.explain(row, code=code)
            hits += shares.drop(columns="code", errors="ignore").iloc[0].argmax() == j
        assert hits > 0.9 * len(X), code


@pytest.mark.slow
def test_a_corrupted_column_of_a_mixed_table_is_named_first():
    columns = mixed_table(400, seed=1)
    frame = pd.DataFrame({**columns, "level": pd.Categorical(columns["level"])})
    model = detector(HEBAETransformer(2, max_iter=60)).fit(frame)
    complete = frame.dropna().iloc[:40]
    hits = {"b": 0, "level": 0, "flag": 0}
    for i in range(len(complete)):
        for name in hits:
            row = complete.iloc[i : i + 1].copy()
            a = row["a"].iloc[0]
            if name == "b":
                row["b"] = 2.0 * a + math.copysign(8.0, a)
            if name == "level":
                row["level"] = pd.Categorical(
                    ["z" if a > -0.5 else "x"], categories=frame["level"].cat.categories
                )
            if name == "flag":
                row["flag"] = not row["flag"].iloc[0]
            shares = model.explain(row, code="apart").iloc[0]
            hits[name] += shares.drop("code").idxmax() == name
    assert hits["b"] > 0.8 * len(complete), hits
    assert hits["level"] > 0.6 * len(complete), hits
    assert hits["flag"] > 0.6 * len(complete), hits


@pytest.mark.parametrize("size", mostly_slow([20.0, 1e3, 1e6, 1e12], [1e3]))
def test_numbers_far_out_of_a_mixed_table_are_named_first(size):
    """Also beyond the last bin of their column."""
    columns = mixed_table(400, seed=1)
    frame = pd.DataFrame({name: columns[name] for name in ("a", "b", "c", "flag")}).dropna()
    model = detector(HEBAETransformer(2, max_iter=60)).fit(frame)
    far = frame.iloc[:30].copy()
    far["b"] += size
    assert (model.p_values(far) <= 0.05).all()
    shares = model.explain(far)
    assert (shares.idxmax(axis=1) == "b").mean() > (0.5 if size < 100.0 else 0.99)
    assert (model.score_samples(far) < model.score_samples(frame.iloc[:30])).all()


def test_shares_are_those_of_the_squared_distance(explained):
    model, X = explained
    estimator, weight = model.autoencoder_, model.reference_.residual_weight
    with plain_modes():
        described = estimator.fitted_.map_minibatches(
            lambda m: describe(estimator.fitted_, m, weight), estimator.validate_rows(X)
        ).astype(np.float64)
    gaps = np.square(described[:, None] - model.reference_.points[None].astype(np.float64))
    nearest = gaps.sum(axis=2).argmin(axis=1)
    squares = gaps[np.arange(len(X)), nearest]
    assert_allclose(-model.score_samples(X), np.sqrt(squares.sum(axis=1)), rtol=1e-4)
    shares = model.explain(X)
    total = squares.sum(axis=1, keepdims=True)
    expected = np.column_stack([squares[:, 3:], squares[:, :3].sum(axis=1)]) / total
    assert_allclose(shares, expected, rtol=1e-3, atol=1e-5)
    assert list(shares.columns) == [*(f"x{j}" for j in range(10)), "code"]


@pytest.mark.slow
def test_missing_entries_are_no_reason(explained):
    model, X = explained
    holes = X[:30].copy()
    rng = np.random.default_rng(0)
    holes[rng.random(holes.shape) < 0.3] = np.nan
    fitted = clone(model).fit(
        np.where(rng.random((500, 10)) < 0.1, np.nan, np.resize(X, (500, 10)))
    )
    for code in ("apart", "columns"):
        shares = fitted.explain(holes, code=code).to_numpy()[:, :10]
        assert (shares[np.isnan(holes)] == 0.0).all()
        whole = fitted.explain(holes, code=code)
        assert_allclose(whole.sum(axis=1), 1.0, rtol=1e-5)
    nothing = fitted.explain(np.full((1, 10), np.nan)).to_numpy()
    assert np.isfinite(nothing).all()


def test_explanations_are_those_of_a_row_alone(explained):
    model, X = explained
    for code in ("apart", "columns"):
        together = model.explain(X, code=code).to_numpy()
        for i in (0, 13, 99):
            assert_array_equal(
                model.explain(X[i : i + 1], code=code).to_numpy(), together[i : i + 1]
            )


def test_explanations_that_do_not_exist(table):
    model = detector(novelty_score="bound").fit(table)
    with pytest.raises(ValueError, match="novelty_score='bound' is no sum over columns"):
        model.explain(table)
    with pytest.raises(ValueError, match="code='together' must be 'apart' or 'columns'"):
        detector().fit(table).explain(table, code="together")


def test_bad_adjustment(fitted, table):
    with pytest.raises(ValueError, match="adjust='holm' must be None or 'bh'"):
        fitted.p_values(table, adjust="holm")


def test_bad_rows(fitted, table):
    for method in ("score_samples", "decision_function", "predict", "p_values", "explain"):
        use = getattr(fitted, method)
        with pytest.raises(ValueError, match=r"X has 5 features, but .* expecting 12 features"):
            use(table[:, :5])
        with pytest.raises(ValueError, match="infinity"):
            use(np.full((2, 12), np.inf))
        with pytest.raises(ValueError, match="0 sample"):
            use(table[:0])
