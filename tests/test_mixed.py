"""Estimators on mixed frames: everything that they do on tables of numbers."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import skops.io
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from skhebae import HEBAETransformer, VAETransformer
from skhebae.diagnostics import latent_report
from skhebae.exceptions import CheckpointError, FewCodesWarning, ModelFileError
from skhebae.likelihoods import Circular, GaussianLikelihood


class Half(GaussianLikelihood):
    """A family of the user's own."""


def survey(n_rows=150, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n_rows)
    frame = pd.DataFrame(
        {
            "income": np.exp(z + 8.0),
            "children": rng.poisson(np.exp(0.3 * z)),
            "job": np.where(z > 0.5, "office", np.where(z > -0.5, "shop", "farm")),
            "married": rng.random(n_rows) < 1.0 / (1.0 + np.exp(-2.0 * z)),
            "hour": rng.integers(0, 24, n_rows),
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n_rows), "D"),
        }
    )
    frame.loc[::9, "income"] = np.nan
    frame.loc[4::11, "job"] = None
    return frame


# A small perceptron, beside which the linear path needs few steps.
OPTIONS = {
    "n_components": 2,
    "hidden_layer_sizes": (4,),
    "likelihood": {"hour": Circular(24), "children": "gaussian"},
    "random_state": 0,
}


@pytest.fixture(scope="module")
def frame():
    return survey()


@pytest.fixture(scope="module")
def model(frame):
    return HEBAETransformer(**OPTIONS).fit(frame)


def via_file(model, folder):
    model.save(folder / "model")
    return type(model).load(folder / "model")


def via_skops(model, folder):
    trusted = ["skhebae.estimators.hebae.HEBAETransformer", "skhebae.likelihoods.circular.Circular"]
    return skops.io.loads(skops.io.dumps(model), trusted=trusted)


COPIES = {
    "file": via_file,
    "pickle": lambda model, _: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, _: copy.deepcopy(model),
    "skops": via_skops,
}


@pytest.mark.slow
@pytest.mark.parametrize("how", list(COPIES))
def test_copies_do_the_same(model, frame, tmp_path, how):
    other = COPIES[how](model, tmp_path)
    assert_array_equal(other.transform(frame), model.transform(frame))
    assert_array_equal(other.score_samples(frame), model.score_samples(frame))
    drawn = [of.sample(9, random_state=0) for of in (model, other)]
    pd.testing.assert_frame_equal(*drawn)
    assert other.fitted_.columns == model.fitted_.columns
    assert other.get_params()["likelihood"] == model.get_params()["likelihood"]


@pytest.mark.slow
def test_files_name_classes_of_the_users(frame, tmp_path):
    likelihood = {"children": Half, "job": "categorical"}
    model = HEBAETransformer(**{**OPTIONS, "likelihood": likelihood}).fit(frame)
    assert_array_equal(pickle.loads(pickle.dumps(model)).transform(frame), model.transform(frame))
    model.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"families of columns: \{'children': 'Half'\}"):
        HEBAETransformer.load(tmp_path / "model")
    with pytest.raises(ValueError, match="for these and no others"):
        HEBAETransformer.load(tmp_path / "model", likelihood={"children": Half, "x": Half})
    loaded = HEBAETransformer.load(tmp_path / "model", likelihood={"children": Half})
    assert_array_equal(loaded.transform(frame), model.transform(frame))
    assert loaded.likelihood == likelihood


def test_damaged_columns_are_refused(model, tmp_path):
    packed = model.fitted_.pack()
    packed["_scaling"]["columns"]["items"][2]["kind"] = "nonsense"
    packed["_scaling"]["columns"]["library"] = "os"
    from skhebae.fitted.packed import check_packed

    with pytest.raises(ValueError, match="no library of frames"):
        check_packed(packed)
    with pytest.raises(ModelFileError):
        VAETransformer.load(via_path(model, tmp_path))


def via_path(model, folder):
    model.save(folder / "m")
    return folder / "m"


@pytest.mark.slow
def test_a_clone_fits_the_same(model, frame):
    assert_array_equal(clone(model).fit_transform(frame), model.transform(frame))


@pytest.mark.slow
def test_pipelines_grids_and_output(frame):
    pipeline = make_pipeline(FunctionTransformer(), HEBAETransformer(**OPTIONS))
    codes = pipeline.set_output(transform="pandas").fit_transform(frame)
    assert list(codes.columns) == ["hebaetransformer0", "hebaetransformer1"]
    assert list(pipeline[-1].feature_names_in_) == list(frame)
    assert pipeline[-1].n_features_in_ == 6
    grid = GridSearchCV(HEBAETransformer(**OPTIONS), {"n_components": [1, 2]}, cv=2).fit(frame[:60])
    assert np.isfinite(grid.cv_results_["mean_test_score"]).all()


@pytest.mark.slow
def test_reports_scores_and_attributes(model, frame):
    report = latent_report(model, frame)
    assert (
        np.isfinite(report.explained_variance_ratio).all()
        if hasattr(report, "explained_variance_ratio")
        else True
    )
    scores = model.score_samples(frame)
    assert np.isfinite(scores).all()
    assert model.score(frame) == pytest.approx(float(scores.mean()), rel=1e-6)
    assert np.isfinite(model.elbo(frame)).all()
    assert_allclose(model.log_likelihood(frame, n_draws=200), scores, atol=6.0)
    assert model.components_.shape == (2, model.fitted_.n_features)
    assert 0.0 < model.explained_variance_ratio_.sum() < 1.0
    mean, factor = model.posterior(frame)
    complete = frame.notna().all(axis=1).to_numpy()  # the decoder tells those of the others
    assert_array_equal(mean[complete], model.transform(frame)[complete])
    assert factor.shape == (150, 2, 2)


@pytest.mark.slow
def test_codes_know_the_columns(frame):
    """The first component is what all columns but one have in common."""
    model = VAETransformer(2, random_state=0).fit(frame)
    z = np.log(frame["income"]) - 8.0
    known = z.notna()
    first = model.transform(frame)[known, 0]
    assert abs(np.corrcoef(first, z[known])[0, 1]) > 0.8


@pytest.mark.slow
def test_samples_look_like_the_table(cls):
    frame = survey(600)
    model = cls(2, random_state=0).fit(frame)
    drawn = model.sample(4000, random_state=0)
    shares = frame["job"].value_counts(normalize=True)
    assert_allclose(drawn["job"].value_counts(normalize=True)[shares.index], shares, atol=0.05)
    quantiles = [0.1, 0.25, 0.5, 0.75, 0.9]
    assert_allclose(
        np.log(drawn["income"].quantile(quantiles)),
        np.log(frame["income"].quantile(quantiles)),
        atol=0.2,
    )
    means = [of.groupby("job")["income"].median() for of in (frame, drawn)]
    assert_allclose(np.log(means[1]), np.log(means[0]), atol=0.35)
    # Means instead of draws: less spread, and the same types.
    plain = model.sample(500, noise=False, random_state=0)
    assert (plain.dtypes == frame.dtypes).all()
    assert plain["income"].std() < drawn["income"].std()


@pytest.mark.slow
def test_further_calls(frame, tmp_path):
    warm = HEBAETransformer(**OPTIONS, warm_start=True).fit(frame)
    columns = warm.fitted_.columns
    warm.fit(survey(150, seed=3))
    assert warm.fitted_.columns == columns
    stream = HEBAETransformer(**OPTIONS)
    for seed in range(3):
        stream.partial_fit(survey(150, seed=seed))
    assert stream.fitted_.moments.n_rows == 450
    assert np.isfinite(stream.score(frame))
    labels = np.arange(150) % 2
    batched = HEBAETransformer(**OPTIONS).fit(frame, batch=labels)
    assert len(batched.sample(4, batch="average", random_state=0)) == 4
    early = HEBAETransformer(**OPTIONS, early_stopping=True).fit(frame)
    assert np.isfinite(early.score(frame))
    share = HEBAETransformer(**{**OPTIONS, "n_components": 0.5}).fit(frame)
    assert 1 <= share.n_components_ < 8


@pytest.mark.slow
def test_checkpoints_know_the_frame(frame, tmp_path):
    path = tmp_path / "checkpoint"
    first = HEBAETransformer(**OPTIONS).fit(frame, checkpoint=path)
    again = HEBAETransformer(**OPTIONS).fit(frame, checkpoint=path)
    assert_array_equal(first.transform(frame), again.transform(frame))
    other = frame.copy()
    other["job"] = other["job"].replace({"farm": "field"})
    with pytest.raises(CheckpointError):
        HEBAETransformer(**OPTIONS).fit(other, checkpoint=path)


LETTERS = np.random.default_rng(0).choice(list("xyz"), 50)
NORMAL = np.random.default_rng(1).normal(size=50)
ODD = {
    "two rows": ({"a": ["x", "y"], "b": [1.0, 2.0]}, "auto"),
    "constants": ({"a": ["x"] * 9, "b": 1.5, "c": 2, "d": True, "e": pd.Timestamp(0)}, "auto"),
    "one column": ({"a": LETTERS}, "auto"),
    "only booleans": ({"a": NORMAL > 0.5}, "from_dtype"),
    "one value": ({"a": LETTERS, "b": [np.nan] * 49 + [3.0]}, "auto"),
    "one value of a t": ({"a": LETTERS, "b": [np.nan] * 49 + [3.0]}, {"b": "student_t"}),
    "one point of a circle": ({"a": LETTERS, "b": [3.0] * 50}, {"b": Circular(24)}),
    "opposite points": ({"a": LETTERS, "b": [3.0, 15.0] * 25}, {"b": Circular(24)}),
    "units": ({"a": LETTERS, "b": 1e30 * NORMAL, "c": 1e-30 * NORMAL}, "auto"),
    "scores in units": ({"b": 1e30 * NORMAL, "c": 1e-30 * NORMAL}, {"b": "quantile"}),
    "large integers": ({"a": LETTERS, "b": 10**15 + np.arange(50)}, "auto"),
    "names that are numbers": ({0: LETTERS, 1: NORMAL}, "auto"),
    "a level per row": ({"a": [f"i{i}" for i in range(200)], "b": np.tile(NORMAL, 4)}, "auto"),
    "heavy tails": ({"a": LETTERS, "b": np.sinh(5.0 * NORMAL)}, {"b": "student_t"}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(ODD))
def test_odd_frames(name):
    values, likelihood = ODD[name]
    frame = pd.DataFrame(values)
    options = {**OPTIONS, "n_components": 1, "likelihood": likelihood}
    model = VAETransformer(**options).fit(frame)
    assert np.isfinite(model.score_samples(frame)).all()
    assert np.isfinite(model.log_likelihood(frame, n_draws=5)).all()
    for rows in (model.sample(20, random_state=0), model.inverse_transform(model.transform(frame))):
        assert (rows.dtypes == frame.dtypes).all()
        assert not rows.isna().any(axis=None)


# Given values


@pytest.mark.slow
def test_given_values_are_kept_and_the_rest_follows():
    frame = survey(600)
    model = VAETransformer(2, random_state=0).fit(frame)
    drawn = model.sample(2000, given={"job": "office", "hour": 7}, random_state=0)
    assert (drawn["job"] == "office").all()
    assert (drawn["hour"] == 7).all()
    assert (drawn.dtypes == frame.dtypes).all()
    office = frame[frame["job"] == "office"]
    incomes = [np.log(of["income"]).mean() for of in (frame, office, drawn)]
    assert incomes[2] > incomes[0] + 0.6 * (incomes[1] - incomes[0])
    assert abs(drawn["married"].mean() - office["married"].mean()) < 0.1
    date = model.sample(3, given={"day": pd.Timestamp("2024-02-03")}, random_state=0)
    assert (date["day"] == pd.Timestamp("2024-02-03")).all()


@pytest.mark.slow
def test_given_is_exact_for_a_linear_gaussian_model():
    rng = np.random.default_rng(0)
    covariance = np.array([[1.0, 0.7, 0.3], [0.7, 1.0, 0.2], [0.3, 0.2, 1.0]])
    X = pd.DataFrame(rng.multivariate_normal(np.zeros(3), covariance, 3000), columns=list("abc"))
    model = VAETransformer(1, hidden_layer_sizes=(), random_state=0).fit(X)
    # The covariance of p(x), which is known for a linear decoder: codes are N(0, S) by `latent`.
    loadings = model.components_
    joint = loadings.T @ model.latent_covariance_ @ loadings + np.diag(model.noise_variance_)
    centre = model.inverse_transform(model.latent_mean_[None])[0]
    drawn = model.sample(4000, "gaussian", random_state=0, given={"a": 1.5}, noise=True)
    slope = joint[0, 1:] / joint[0, 0]
    assert_allclose(drawn[:, 0], 1.5)
    assert_allclose(drawn[:, 1:].mean(axis=0), centre[1:] + slope * (1.5 - centre[0]), atol=0.06)
    conditional = joint[1:, 1:] - np.outer(joint[0, 1:], joint[0, 1:]) / joint[0, 0]
    assert_allclose(np.cov(drawn[:, 1:].T), conditional, atol=0.06)
    by_place = model.sample(4, "gaussian", random_state=0, given={0: 1.5}, noise=True)
    by_name = model.sample(4, "gaussian", random_state=0, given={"a": 1.5}, noise=True)
    assert_array_equal(by_place, by_name)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"work": "shop"}, "'work' is none of the columns"),
        ({"job": "ship"}, "'ship' is no category that 'job' had"),
        ({"married": 0.5}, "'married'"),
        ({"income": "much"}, "'much' is no value"),
        ({}, "must map names"),
        ("job", "must map names"),
    ],
)
def test_what_cannot_be_given(model, given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        model.sample(2, given=given)


@pytest.mark.slow
def test_rare_values_warn():
    frame = survey()
    model = HEBAETransformer(**{**OPTIONS, "likelihood": {"income": "gaussian"}}).fit(frame)
    with pytest.warns(FewCodesWarning, match="only about"):
        model.sample(2, given={"job": "farm", "income": 1e6, "children": 9}, random_state=0)


@pytest.mark.slow
def test_counts_cannot_be_given():
    rng = np.random.default_rng(0)
    model = HEBAETransformer(1, hidden_layer_sizes=(2,), likelihood="poisson")
    model.fit(rng.poisson(3.0, (30, 4)))
    with pytest.raises(ValueError, match="given= is not for counts"):
        model.sample(2, given={0: 1})
