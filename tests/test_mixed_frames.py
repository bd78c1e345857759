"""Mixed frames of pandas and polars: into numbers, and back with their dtypes."""

from __future__ import annotations

import datetime as dt
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skhebae import HEBAETransformer
from skhebae.data import (
    Columns,
    decode_frame,
    encode_frame,
    find_kinds,
    find_library,
    measure_columns,
)
from skhebae.exceptions import UnknownCategoryWarning
from skhebae.likelihoods import Circular, choose_families

DAYS = pd.date_range("2021-03-01", periods=6, freq="37D")
#: Columns of pandas with something missing where the dtype has a way to say so.
PANDAS = {
    "float64": pd.Series([0.5, -1.25, np.nan, 3.0, 1e6, 2.0]),
    "float32": pd.Series([0.5, -1.25, np.nan, 3.0, 8.0, 2.0], dtype="float32"),
    "Float64": pd.array([0.5, None, 2.5, 3.0, 1.0, 2.0], dtype="Float64"),
    "int64": pd.Series([3, -1, 7, 0, 2, 2]),
    "uint8": pd.Series([3, 1, 7, 0, 2, 255], dtype="uint8"),
    "Int32": pd.array([3, None, 7, 0, 2, 2], dtype="Int32"),
    "bool": pd.Series([True, False, True, True, False, False]),
    "boolean": pd.array([True, None, True, False, False, False], dtype="boolean"),
    "object of bools": pd.Series([True, None, True, False, False, False], dtype=object),
    "text": pd.Series(["b", "a", None, "c", "a", "a"], dtype=object),
    "string": pd.array(["b", "a", None, "c", "a", "a"], dtype="string"),
    "category": pd.Categorical(["b", "a", None, "c", "a", "a"], categories=["z", "c", "b", "a"]),
    "category of numbers": pd.Categorical([10, 2, 2, 10, 5, 2]),
    "ordered": pd.Categorical(["lo", "hi", "mid", None, "lo", "lo"], ["lo", "mid", "hi"], True),
    "mixed objects": pd.Series(["b", 1, "b", 1, 2.5, None], dtype=object),
    "datetime": pd.Series(DAYS).where(np.arange(6) != 2),
    "datetime in seconds": pd.Series(DAYS + pd.Timedelta("1s")).astype("datetime64[s]"),
    "datetime with a zone": pd.Series(DAYS + pd.Timedelta("1h")).dt.tz_localize("Asia/Tokyo"),
    "period": pd.Series(DAYS.to_period("M")),
    "timedelta": pd.Series(pd.to_timedelta([1, 2, 3.5, None, 9, 0], unit="s")),
}
OBJECTS = {
    "dates": [dt.date(2020, 1, day) for day in (1, 5, 9, 20, 21, 22)],
    "times with a zone": [
        dt.datetime(2020, 1, day, tzinfo=dt.UTC) for day in (1, 5, 9, 20, 21, 22)
    ],
    "decimals": [Decimal("1.5"), Decimal("2.25"), None, Decimal("0"), Decimal("3"), Decimal("1")],
    "whole numbers that lack": [1, 2, None, 5, 3, 3],
}


def describe(frame, likelihood="from_dtype"):
    library = find_library(frame)
    kinds = find_kinds(frame, library)
    return measure_columns(frame, library, kinds, choose_families(kinds, likelihood))


@pytest.mark.parametrize("name", list(PANDAS))
def test_columns_of_pandas_come_back(name):
    frame = pd.DataFrame({"x": PANDAS[name]}, index=list("uvwxyz"))
    columns = describe(frame)
    back = decode_frame(encode_frame(frame, columns), columns)
    expected = frame.reset_index(drop=True)
    if name == "object of bools":
        expected = expected.astype(object)
    pd.testing.assert_frame_equal(back, expected, check_exact=False, rtol=1e-9)


@pytest.mark.parametrize("name", list(OBJECTS))
def test_objects_that_are_numbers_or_times_become_such(name):
    frame = pd.DataFrame({"x": pd.Series(OBJECTS[name], dtype=object)})
    columns = describe(frame)
    back = decode_frame(encode_frame(frame, columns), columns)["x"]
    if "decimal" in name or "lack" in name:
        expected = np.array([np.nan if v is None else float(v) for v in OBJECTS[name]])
        assert_allclose(back.astype(float), expected)
    else:
        assert_array_equal(
            pd.to_datetime(back).dt.date, [pd.Timestamp(v).date() for v in OBJECTS[name]]
        )


def polars_columns():
    pl = pytest.importorskip("polars")
    days = [dt.datetime(2021, 3, day, 5, 6, 7) for day in (1, 2, 3, 8, 9)] + [None]
    return {
        "Float64": pl.Series([0.5, -1.25, None, 3.0, 8.0, 2.0]),
        "Float32": pl.Series([0.5, -1.25, None, 3.0, 8.0, 2.0], dtype=pl.Float32),
        "Int64": pl.Series([3, -1, None, 0, 2, 2]),
        "UInt8": pl.Series([3, 1, None, 0, 2, 255], dtype=pl.UInt8),
        "Boolean": pl.Series([True, None, False, True, False, False]),
        "String": pl.Series(["b", "a", None, "c", "a", "a"]),
        "Categorical": pl.Series(["b", "a", None, "c", "a", "a"], dtype=pl.Categorical),
        "Enum": pl.Series(["b", "a", None, "b", "a", "a"], dtype=pl.Enum(["c", "b", "a"])),
        "Date": pl.Series([None if d is None else d.date() for d in days]),
        "Datetime": pl.Series(days),
        "Datetime in ms": pl.Series(days, dtype=pl.Datetime("ms")),
        "Datetime with a zone": pl.Series(days).dt.replace_time_zone("Europe/Berlin"),
        "Duration": pl.Series([dt.timedelta(seconds=s) for s in (1, 2, 3, 4, 9)] + [None]),
        "Decimal": pl.Series([Decimal("1.25"), Decimal("2.5"), None, *[Decimal("0")] * 3]),
    }


@pytest.mark.parametrize(
    "name",
    [
        "Float64",
        "Float32",
        "Int64",
        "UInt8",
        "Boolean",
        "String",
        "Categorical",
        "Enum",
        "Date",
        "Datetime",
        "Datetime in ms",
        "Datetime with a zone",
        "Duration",
        "Decimal",
    ],
)
def test_columns_of_polars_come_back(name):
    pl = pytest.importorskip("polars")
    frame = pl.DataFrame({"x": polars_columns()[name]})
    columns = describe(frame)
    back = decode_frame(encode_frame(frame, columns), columns)
    assert back.schema == frame.schema
    assert back["x"].to_list() == frame["x"].to_list()


def test_columns_survive_their_packed_form():
    columns = describe(pd.DataFrame(PANDAS))
    assert Columns.unpack(columns.pack()) == columns
    columns.check()


def test_sparse_rows_of_processes_agree():
    frame = pd.DataFrame(
        {"t": ["a", "b", "c", "a"], "c": pd.Categorical(list("xyxy"), list("zyx")), "n": range(4)}
    )
    parts = [describe(frame[:2]), describe(frame[2:])]
    assert parts[0].merge(parts[1:]).items == describe(frame).items
    with pytest.raises(ValueError, match="different columns"):
        parts[0].merge([describe(frame[["t"]])])


# Through an estimator


def survey(n_rows=120, seed=0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n_rows)
    frame = pd.DataFrame(
        {
            "income": np.exp(z + 8.0),
            "children": rng.poisson(np.exp(0.3 * z)),
            "job": np.where(z > 0.5, "office", np.where(z > -0.5, "shop", "farm")),
            "answer": pd.Categorical(
                np.digitize(z, [-1, 1]).astype(str), ["0", "1", "2"], ordered=True
            ),
            "married": rng.random(n_rows) < 0.5,
            "hour": rng.integers(0, 24, n_rows),
        }
    )
    frame.loc[::9, "income"] = np.nan
    frame.loc[4::11, "job"] = None
    return frame


@pytest.fixture(scope="module")
def model():
    likelihood = {"hour": Circular(24)}
    return HEBAETransformer(2, hidden_layer_sizes=(4,), likelihood=likelihood, random_state=0).fit(
        survey()
    )


@pytest.mark.slow
def test_a_frame_comes_back_as_a_frame(model):
    frame = survey()
    codes = model.transform(frame)
    assert codes.shape == (120, 2)
    assert codes.dtype == np.float32
    for rows in (model.inverse_transform(codes), model.sample(50, random_state=0)):
        assert list(rows.columns) == list(frame)
        assert (rows.dtypes == frame.dtypes).all()
        assert rows.isna().sum().sum() == 0
        assert set(rows["job"]) <= {"farm", "office", "shop"}
        assert rows["hour"].between(0, 23).all()
        for name in ("income", "children"):
            assert frame[name].min() <= rows[name].min() <= rows[name].max() <= frame[name].max()


def test_codes_do_not_depend_on_other_rows(model):
    frame = survey()
    codes = model.transform(frame)
    assert_array_equal(model.transform(frame[40:41]), codes[40:41])
    assert_array_equal(model.transform(frame.iloc[::-1]), codes[::-1])


def test_missing_categories_and_numbers_do_not_count(model):
    frame = survey(3)
    frame["income"] = np.nan
    frame["job"] = None
    values = model.score_samples(frame)
    assert np.isfinite(values).all()
    changed = frame.copy()
    changed["children"] = 5
    assert (model.score_samples(changed) != values).any()
    empty = pd.DataFrame({name: [None] * 3 for name in frame}, dtype=object)
    codes = model.transform(empty)
    assert_array_equal(codes, codes[:1].repeat(3, axis=0))


@pytest.mark.slow
def test_unseen_categories(model):
    frame = survey(5)
    missing = frame.copy()
    missing.loc[2, "job"] = None
    frame.loc[2, "job"] = "ship"
    with pytest.warns(UnknownCategoryWarning, match="'job' has 'ship'"):
        codes = model.transform(frame)
    assert_array_equal(codes, model.transform(missing))
    strict = HEBAETransformer(2, hidden_layer_sizes=(), unknown_category="error").fit(survey())
    with pytest.raises(ValueError, match=r"'job' has 'ship'.*unknown_category='warn'"):
        strict.transform(frame)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        strict.set_params(unknown_category="ignore").transform(frame)


WRONG = {
    "an array": (lambda f: f.to_numpy(), "was fitted to a frame of pandas"),
    "another order": (lambda f: f[f.columns[::-1]], "feature names should match"),
    "a column less": (lambda f: f.drop(columns="job"), "feature names should match"),
    "a column more": (lambda f: f.assign(x=1), "feature names should match"),
    "other names": (lambda f: f.rename(columns={"job": "work"}), "feature names should match"),
    "text for a number": (lambda f: f.assign(children="two"), "'children'.*cannot be read"),
    "infinity": (lambda f: f.assign(income=np.inf), "'income'.*infinity"),
    "no rows": (lambda f: f[:0], r"0 sample\(s\)"),
}


@pytest.mark.parametrize("kind", list(WRONG))
def test_frames_that_are_not_those_of_fit(model, kind):
    make, message = WRONG[kind]
    with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
        model.transform(make(survey(6)))


def with_column(values, **options):
    return pd.DataFrame({"a": ["x", "y", "x", "y"], "b": pd.Series(values, **options)})


UNFIT = {
    "lists": (with_column([[1], [2], [3], [4]]), "'b'.*list"),
    "complex": (with_column([1j, 2, 3, 4]), "'b' of dtype complex"),
    "intervals": (with_column(pd.interval_range(0, 4)), "'b' of dtype interval"),
    "all missing": (with_column([np.nan] * 4), r"all values are missing.*'b'"),
    "infinity": (with_column([1.0, np.inf, 2.0, 3.0]), "'b'.*infinity"),
    "one name twice": (with_column([1, 2, 3, 4]).set_axis(["a", "a"], axis=1), "one name: 'a'"),
    "one row": (with_column([1, 2, 3, 4])[:1], r"1 sample\(s\)"),
    "categories of dates": (
        with_column(pd.Categorical(pd.to_datetime(["2020-01-01"] * 4))),
        "'b' with categories of type Timestamp",
    ),
}


@pytest.mark.parametrize("kind", list(UNFIT))
def test_frames_that_cannot_be_fitted(kind):
    frame, message = UNFIT[kind]
    estimator = HEBAETransformer(1)
    with pytest.raises((TypeError, ValueError), match=f"(?s){message}"):
        estimator.fit(frame)
    assert not any(name.endswith("_") for name in vars(estimator))


@pytest.mark.parametrize(
    ("likelihood", "message"),
    [
        ({"nothing": "gaussian"}, "names columns that X does not have.*nothing"),
        ({"job": "gaussian"}, "'gaussian'.*does not go with.*text.*'categorical' does"),
        ({"job": "normal"}, "'normal' is no family"),
        ({"hour": "circular"}, r"Circular\(period=24\)"),
        ({"married": "datetime"}, "does not go with"),
    ],
)
def test_families_that_do_not_fit(likelihood, message):
    with pytest.raises(ValueError, match=f"(?s){message}"):
        HEBAETransformer(1, likelihood=likelihood).fit(survey())
    with pytest.raises(TypeError, match="X is no frame"):
        HEBAETransformer(1, likelihood=likelihood).fit(np.zeros((5, 2)))
    with pytest.raises(ValueError, match="period=0"):
        Circular(0)


@pytest.mark.slow
def test_tables_of_numbers_are_gaussian_as_ever(table):
    frame = pd.DataFrame(table, columns=[f"c{i}" for i in range(table.shape[1])])
    frame["whole"] = np.arange(len(frame))
    frame["yes"] = np.arange(len(frame)) % 2 == 0
    options = {"n_components": 2, "hidden_layer_sizes": (), "random_state": 0}
    auto = HEBAETransformer(**options).fit(frame)
    named = HEBAETransformer(**options, likelihood="gaussian").fit(frame)
    assert auto.fitted_.architecture.likelihood == "gaussian"
    assert_array_equal(auto.transform(frame), named.transform(frame))
    assert isinstance(auto.sample(3), np.ndarray)
    mixed = HEBAETransformer(**options, likelihood="from_dtype").fit(frame)
    assert mixed.fitted_.architecture.likelihood == "mixed"
    assert [c.family for c in mixed.fitted_.columns.items][-2:] == ["integer", "boolean"]
    array = HEBAETransformer(**options, likelihood="from_dtype").fit(table)
    assert array.fitted_.architecture.likelihood == "gaussian"
