"""Labels of experimental batches: what they may be, and that they stay what they are."""

from __future__ import annotations

import datetime
import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_array_equal

from skhebae import HEBAETransformer, VAETransformer
from skhebae.fitted.labels import batch_index, check_labels, check_size_factor

N = 40
TEXT = np.array(["a", "b"])[np.arange(N) % 2]
NUMBERS = np.arange(N) % 3


def need(name):
    return pytest.importorskip(name)


#: What users pass, the labels it stands for, and the type of `batches_`.
USED = {
    "text": (TEXT, ["a", "b"], object),
    "list of text": (TEXT.tolist(), ["a", "b"], object),
    "tuple": (tuple(TEXT), ["a", "b"], object),
    "str_": (list(TEXT), ["a", "b"], object),
    "objects of text": (TEXT.astype(object), ["a", "b"], object),
    "text of pandas": (pd.array(TEXT, dtype="string"), ["a", "b"], object),
    "series": (pd.Series(TEXT, index=np.arange(N)[::-1]), ["a", "b"], object),
    "index": (pd.Index(TEXT), ["a", "b"], object),
    "categories": (pd.Categorical(TEXT), ["a", "b"], object),
    "unused categories": (pd.Categorical(TEXT, categories=["z", "b", "a"]), ["a", "b"], object),
    "ordered categories": (pd.Categorical(TEXT, ["b", "a"], ordered=True), ["a", "b"], object),
    "categories of numbers": (pd.Categorical(NUMBERS), [0, 1, 2], np.int64),
    "integers": (NUMBERS.astype(np.int64), [0, 1, 2], np.int64),
    "short integers": (NUMBERS.astype(np.uint8), [0, 1, 2], np.uint8),
    "big-endian": (NUMBERS.astype(">i4"), [0, 1, 2], np.int32),
    "list of integers": (NUMBERS.tolist(), [0, 1, 2], np.int64),
    "objects of integers": (NUMBERS.astype(object), [0, 1, 2], np.int64),
    "numpy's integers as objects": (np.array(list(NUMBERS), dtype=object), [0, 1, 2], np.int64),
    "integers of pandas": (pd.array(NUMBERS, dtype="Int64"), [0, 1, 2], np.int64),
    "floats": (NUMBERS / 2, [0.0, 0.5, 1.0], np.float64),
    "long doubles": (NUMBERS.astype(np.longdouble), [0.0, 1.0, 2.0], np.float64),
    "integers and floats": ([1, 1.5] * (N // 2), [1.0, 1.5], np.float64),
    "the same number twice": ([1, 1.0, np.int64(1), 2] * (N // 4), [1.0, 2.0], np.float64),
    "truth": (NUMBERS > 0, [False, True], np.bool_),
    "truth as objects": ((NUMBERS > 0).astype(object), [False, True], np.bool_),
    "truth of pandas": (pd.array(NUMBERS > 0, dtype="boolean"), [False, True], np.bool_),
    "large integers": ([2**60, 2**60 + 1] * (N // 2), [2**60, 2**60 + 1], np.int64),
    "masked, none of it": (np.ma.masked_array(NUMBERS, NUMBERS > 5), [0, 1, 2], np.int64),
}


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N, 2)) @ rng.normal(size=(2, 5))


@pytest.mark.parametrize("kind", USED)
def test_labels_stay_what_they_are(rows, tmp_path, kind):
    batch, expected, dtype = USED[kind]
    model = VAETransformer(2, max_iter="auto", learning_rate_init=1e-3, random_state=0)
    model.set_params(hidden_layer_sizes=(4,), batch_size=40).partial_fit(rows, batch=batch)
    model.save(tmp_path / "model")
    copies = [model, pickle.loads(pickle.dumps(model)), VAETransformer.load(tmp_path / "model")]
    codes = model.transform(rows)
    decoded = model.inverse_transform(codes, batch=batch)
    for copy in copies:
        assert copy.batches_.tolist() == expected
        assert copy.batches_.dtype == dtype
        assert all(type(label) is type(expected[0]) for label in copy.batches_.tolist())
        assert_array_equal(copy.inverse_transform(codes, batch=batch), decoded)
        # One label for all, also as a scalar of numpy's.
        first = np.asarray(batch)[0]
        for label in (first, expected[0]):
            assert_array_equal(copy.inverse_transform(codes[:1], batch=label), decoded[:1])


REFUSED = {
    "None": ([None] * N, "missing.*row 0: None.*'unknown'"),
    "NaN": (np.where(NUMBERS > 1, np.nan, 1.0), "missing.*row 2: .*nan.*'unknown'"),
    "NaN in text": (np.where(NUMBERS > 1, np.nan, TEXT.astype(object)), "missing.*row 2"),
    "NA": (pd.array(["a", pd.NA] * (N // 2), dtype="string"), "20 labels.*row 1"),
    "NA in integers": (pd.array([1, pd.NA] * (N // 2), dtype="Int64"), "20 labels.*row 1"),
    "missing category": (pd.Categorical.from_codes([0, -1] * (N // 2), ["a"]), "row 1"),
    "masked": (np.ma.masked_array(NUMBERS, NUMBERS == 1), "13 labels.*row 1"),
    "masked text": (np.ma.masked_array(TEXT, NUMBERS == 1), "13 labels.*row 1"),
    "bytes": (TEXT.astype("S"), r"Decode them: \[label.decode\(\)"),
    "bytes as objects": ([b"a"] * N, "Decode them"),
    "dates": (np.arange(N).astype("datetime64[D]"), r"dates into text: \[str\(label\)"),
    "timestamps": (pd.date_range("2020", periods=N), "dates into text"),
    "days": ([datetime.date(2020, 1, 1)] * N, "dates into text"),
    "intervals": (pd.cut(np.arange(N), 2), "neither text nor a number.*row 0"),
    "decimals": ([Decimal(1)] * N, "neither text nor a number"),
    "complex": (NUMBERS.astype(complex), "neither text nor a number"),
    "text and numbers": (["a", 1] * (N // 2), r"'a' in row 0 and 1 in row 1.*\[str\(label\)"),
    "numbers and text": ([1.5, "1.5"] * (N // 2), "'1.5' in row 1 and 1.5 in row 0"),
    "huge integers": ([2**70, 1] * (N // 2), "too large to compare.*text"),
    "integers beyond floats": ([2**60 + 1, 0.5] * (N // 2), "too large to compare.*text"),
    "two columns": (np.ones((N, 2)), r"shape \(40, 2\)"),
    "one column": (pd.DataFrame({"batch": TEXT}), r"shape \(40, 1\)"),
    "one label": ("a", r"shape \(\)"),
    "average": (np.where(NUMBERS > 1, "average", TEXT), "label 'average', which stands for.*else"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_label_is_refused_with_the_cure(rows, kind):
    batch, message = REFUSED[kind]
    model = HEBAETransformer(2)
    for method in (model.fit, model.partial_fit, model.fit_transform):
        with pytest.raises(ValueError, match=message):
            method(rows, batch=batch)
    assert "fitted_" not in vars(model)


@pytest.mark.parametrize(
    ("fitted", "given", "message"),
    [
        (["1", "2"], [1, 2], r"did not see: 1, 2.*text, not numbers: use batch\.astype\(str\)"),
        ([1, 2], ["1", "2"], r"did not see: '1', '2'.*numbers, not text.*astype\(int64\)"),
        (["a", "b"], ["a", "c"], "did not see: 'c'.*saw 'a', 'b'.*'average' decodes the mean"),
        (["a", "b"], [1, 2], "did not see: 1, 2.*saw 'a', 'b'.*'average' decodes the mean"),
        ([1, 2], [1.5], "did not see: 1.5"),
    ],
)
def test_labels_that_fit_did_not_see(fitted, given, message):
    batches = np.unique(check_labels(fitted, len(fitted)))
    with pytest.raises(ValueError, match=message):
        batch_index(given, batches, len(given))


@pytest.mark.parametrize("given", [[2, 1], [2.0, 1.0], [np.int8(2), True], np.array([2, 1], "u8")])
@pytest.mark.parametrize("fitted", [[1, 2], [1.0, 2.0], np.array([1, 2], "i2")])
def test_equal_numbers_are_one_label(fitted, given):
    batches = np.unique(check_labels(fitted, 2))
    assert_array_equal(batch_index(given, batches, 2), [1, 0])


@pytest.mark.parametrize(
    "given",
    [
        ["a"] * 3,
        [1.0, None, 2.0],
        [1.0, pd.NA, 2.0],
        pd.array([1.0, pd.NA, 2.0], dtype="Float64"),
        np.ma.masked_array([1.0, 2.0, 3.0], [False, True, False]),
        np.ma.masked_array([1, 2, 3], [False, True, False]),
        np.arange(1, 4).astype("datetime64[D]"),
        np.arange(1, 4).astype("timedelta64[D]"),
        np.array([1j, 2.0, 3.0]),
        [b"1", b"2", b"3"],
    ],
    ids=str,
)
def test_size_factors_are_numbers(given):
    with pytest.raises(ValueError, match=r"size_factor (holds what is no number|is nan in row 1)"):
        check_size_factor(given, 3)


def test_size_factors_of_any_number():
    for given in ([1, 2], np.float16([1, 2]), pd.array([1, 2], dtype="Int64"), pd.Series([1, 2])):
        assert_array_equal(check_size_factor(given, 2), [1.0, 2.0])
