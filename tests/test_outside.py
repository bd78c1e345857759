"""The warning of rows far outside those of `fit`."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skhebae import HEBAETransformer
from skhebae.data import FeatureScaling, StoredTable, Table
from skhebae.data.outside import FAR, Outside, shown_number
from skhebae.exceptions import OutOfRangeWarning

METHODS = ("transform", "posterior", "score_samples", "score", "elbo", "log_likelihood")


def far(table):
    X = table[:5].copy()
    X[1, 4] = 1e6
    X[3, 7] = -1e9
    return X


@pytest.mark.parametrize("method", METHODS)
def test_every_method_warns_once_and_names_features(fitted, table, method):
    with pytest.warns(OutOfRangeWarning) as caught:
        getattr(fitted, method)(far(table))
    assert len(caught) == 1
    message = str(caught[0].message)
    scaling = fitted.fitted_.scaling
    for j, value in ((4, 1e6), (7, -1e9)):
        times = abs(value - scaling.location[j]) / scaling.scale[j]
        assert f"column {j} ({shown_number(times)} times)" in message
    # The worst is first.
    assert message.startswith("X lies far outside the rows of fit in 2 of 12 features")
    assert message.index("column 7") < message.index("column 4")
    assert "Remove them" in message
    assert "fit again" in message
    # It points at the call.
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "form", [np.asarray, sparse.csr_matrix, np.float32, StoredTable, pd.DataFrame]
)
def test_of_any_table(cls, brief, table, form):
    columns = [f"gene {j}" for j in range(12)]
    names = {"columns": columns} if form is pd.DataFrame else {}
    name = "'gene 4'" if names else "column 4"
    model = cls(**brief).fit(form(table, **names))
    model.transform(form(table, **names))
    with pytest.warns(OutOfRangeWarning, match=name):
        model.transform(form(far(table), **names))
    with pytest.warns(OutOfRangeWarning, match=name) as caught:
        model.partial_fit(form(far(table), **names))
    assert len(caught) == 1
    assert caught[0].filename == __file__


def test_in_a_long_table_one_warning(fitted, table):
    X = np.tile(table, (20, 1))
    X[::100, 2] = np.linspace(1e5, 1e8, 48)
    with pytest.warns(OutOfRangeWarning) as caught:
        fitted.transform(X)
    assert len(caught) == 1
    scaling = fitted.fitted_.scaling
    assert shown_number((1e8 - scaling.location[2]) / scaling.scale[2]) in str(caught[0].message)


def test_few_names_of_many(fitted, table):
    with pytest.warns(OutOfRangeWarning, match=r"in 12 of 12 features.*times\), \.\.\.") as caught:
        fitted.transform(1e6 * table[:3])
    assert str(caught[0].message).count("column") == 5


def test_behind_a_pipeline_and_set_output(table, brief):
    model = make_pipeline(StandardScaler(), HEBAETransformer(**brief)).set_output(
        transform="pandas"
    )
    model.fit(table)
    with pytest.warns(OutOfRangeWarning, match="column 4|'x4'") as caught:
        model.transform(far(table))
    assert caught[0].filename == __file__


def test_as_an_error_it_leaves_the_model_alone(table, brief):
    model = HEBAETransformer(**brief).partial_fit(table)
    before = model.transform(table)
    with warnings.catch_warnings():
        warnings.simplefilter("error", OutOfRangeWarning)
        with pytest.raises(OutOfRangeWarning):
            model.partial_fit(far(table))
        with pytest.raises(OutOfRangeWarning):
            model.transform(far(table))
    assert_array_equal(model.transform(table), before)


def test_ordinary_rows_are_silent():
    """Heavy tails, rare values, features that were constant: warnings are errors here."""
    rng = np.random.default_rng(0)
    tables = {
        "log-normal": np.exp(rng.normal(size=(4000, 20))),
        "Student": rng.standard_t(3, (4000, 20)),
        "rare": rng.poisson(0.01, (4000, 20)).astype(float),
        "pixels": 255.0 * (rng.random((4000, 20)) < 0.01) * rng.random((4000, 20)).round(2),
    }
    tables["pixels"][:100, 0] = 0.0
    tables["pixels"][0, 1] = 1.0
    for X in tables.values():
        scaling = FeatureScaling.measure(Table(X[:100]))
        outside = Outside(scaling)
        outside.see_table(X)
        outside.warn(None)


def test_rows_of_fit_are_within_four_units():
    rng = np.random.default_rng(0)
    X = rng.standard_cauchy((300, 50))
    scaling = FeatureScaling.measure(Table(X))
    assert np.abs(scaling.standardise(X)).max() < 4.0 < FAR


def test_a_constant_feature_is_far_in_the_unit_of_others(brief):
    X = np.random.default_rng(0).normal(0.0, 50.0, (100, 4))
    X[:, 2] = 1.0
    model = HEBAETransformer(**brief).fit(X)
    codes = model.transform(X)
    X[3, 2] = 1e4
    assert_array_equal(model.transform(X), codes)
    X[3, 2] = 1e7
    with pytest.warns(OutOfRangeWarning, match=r"in 1 of 4 features.*column 2"):
        assert_array_equal(model.transform(X), codes)


def test_of_counts_depth_is_no_distance(brief):
    X = np.random.default_rng(0).poisson(3.0, (100, 6))
    model = HEBAETransformer(**brief, likelihood="poisson").fit(X)
    assert np.isfinite(model.transform(100_000 * X)).all()


def test_numbers_are_short():
    assert [shown_number(value) for value in (1234.0, 52_171.0, 1e9, 3.4e12)] == [
        "1,200",
        "52,000",
        "1e+09",
        "3e+12",
    ]
