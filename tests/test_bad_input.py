"""What a user gets wrong, and what the error says."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch

from skhebae import HEBAETransformer, VAETransformer, WAETransformer


def with_value(value, dtype=float):
    X = np.random.default_rng(0).random((20, 4)).astype(dtype)
    X[3, 2] = value
    return X


BAD_TABLES = {
    "no value in a column": (np.where([True, False], np.nan, np.ones((9, 2))), "column 0"),
    "inf": (with_value(np.inf), "infinity"),
    "complex": (with_value(1j, complex), "Complex data not supported"),
    "strings": (np.array([["a", "b"], ["c", "d"]]), "not compatible with arrays of bytes/strings"),
    "one dimension": (np.arange(5.0), "Expected 2D array, got 1D array"),
    "three dimensions": (np.zeros((3, 3, 3)), "dim 3"),
    "no rows": (np.empty((0, 4)), r"0 sample\(s\)"),
    "no features": (np.empty((5, 0)), r"0 feature\(s\)"),
    "one row": (np.ones((1, 4)), r"1 sample"),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_transform"])
@pytest.mark.parametrize("kind", list(BAD_TABLES))
def test_bad_tables_never_reach_training(cls, method, kind):
    X, message = BAD_TABLES[kind]
    estimator = cls()
    with pytest.raises(ValueError, match=message):
        getattr(estimator, method)(X)
    assert not any(name.endswith("_") for name in vars(estimator))


@pytest.mark.parametrize("method", ["transform", "score_samples", "posterior"])
def test_bad_rows_after_fit(fitted, table, method):
    use = getattr(fitted, method)
    with pytest.raises(ValueError, match=r"X has 5 features, but .* expecting 12 features"):
        use(table[:, :5])
    with pytest.raises(ValueError, match="infinity"):
        use(np.full((2, 12), np.inf))
    with pytest.raises(ValueError, match="0 sample"):
        use(table[:0])


def test_extreme_rows_are_refused(fitted, table):
    far = table[:3].copy()
    for value in (1e300, -1e25):
        far[1, 4] = value
        message = re.escape(f"X has the value {value:.4g} in column 4")
        with pytest.raises(ValueError, match=message):
            fitted.transform(far)
    huge = table.copy()
    huge[0, 2] = 1e200
    with pytest.raises(ValueError, match=r"column 2 up to 1e.200, whose variance overflows"):
        type(fitted)(2).fit(huge)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.arange(8).reshape(4, 2).astype("datetime64[D]"), "datetime64.*not a number"),
        (pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": ["x", "y", "z"]}), "encode|convert string"),
        (
            pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": pd.Categorical(["x", "y", "x"])}),
            "encode|convert string",
        ),
    ],
    ids=["dates", "strings", "categories"],
)
def test_columns_that_are_not_numbers(cls, X, message):
    with pytest.raises(ValueError, match=message):
        cls(likelihood="gaussian").fit(X)


BAD_CAPACITIES = {
    "two values": ((0, 5), "has 2 values"),
    "negative": ((-1, 5, 10), "has the start -1"),
    "a bool": ((0, True, 10), "has the end True"),
    "no epochs": ((0, 5, 0), "has the epochs 0, which must be an integer >= 1, or a share"),
    "epochs and a half": ((0, 5, 2.5), "has the epochs 2.5"),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_transform"])
@pytest.mark.parametrize("kind", list(BAD_CAPACITIES))
def test_bad_capacities_never_reach_training(method, kind):
    capacity, message = BAD_CAPACITIES[kind]
    estimator = VAETransformer(2, capacity=capacity)
    with pytest.raises(ValueError, match=rf"capacity=.*{message}.* Give \(start, end, epochs\)"):
        getattr(estimator, method)(with_value(0.5))
    assert not any(name.endswith("_") for name in vars(estimator))


BAD_WEIGHTS = {
    "wrong length": (np.ones(19), r"sample_weight has shape \(19,\), but X has 20 rows"),
    "two columns": (np.ones((20, 2)), r"sample_weight has shape \(20, 2\)"),
    "negative": (np.r_[np.ones(19), -1.0], r"sample_weight is -1\.0 in row 19.*>= 0"),
    "nan": (np.r_[np.nan, np.ones(19)], r"sample_weight is nan in row 0"),
    "infinite": (np.r_[np.inf, np.ones(19)], r"sample_weight is inf in row 0"),
    "text": (np.array(["a"] * 20), "sample_weight holds what is no number"),
    "complex": (np.ones(20, dtype=complex), "sample_weight holds what is no number"),
    "none": (np.zeros(20), "sample_weight is zero in every row"),
    "little": (
        np.full(20, 0.05),
        r"sample_weight adds up to 1, less than.*weights count rows; scale them so that they add "
        "up to the number of rows",
    ),
}


@pytest.mark.parametrize("method", ["fit", "partial_fit", "fit_transform"])
@pytest.mark.parametrize("kind", list(BAD_WEIGHTS))
def test_bad_weights_never_reach_training(cls, method, kind):
    weight, message = BAD_WEIGHTS[kind]
    estimator = cls()
    with pytest.raises(ValueError, match=message):
        getattr(estimator, method)(with_value(0.5), sample_weight=weight)
    assert not any(name.endswith("_") for name in vars(estimator))


@pytest.mark.parametrize("kind", ["wrong length", "negative", "nan", "none"])
def test_bad_weights_of_scores(fitted, table, kind):
    weight, message = BAD_WEIGHTS[kind]
    message = message.replace("20 rows", "21 rows")
    weight = weight if kind == "wrong length" else np.r_[weight, weight[1]]
    with pytest.raises(ValueError, match=message):
        fitted.score(table[:21], sample_weight=weight)


def test_wrong_column_names(cls, table, brief):
    frame = pd.DataFrame(table, columns=[f"c{i}" for i in range(12)])
    estimator = cls(**brief).fit(frame)
    assert list(estimator.feature_names_in_) == list(frame)
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(frame.rename(columns={"c0": "other"}))
    with pytest.raises(ValueError, match="feature names should match"):
        estimator.transform(frame[frame.columns[::-1]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        estimator.transform(table)


def test_bad_codes(fitted):
    with pytest.raises(ValueError, match=r"Z has 2 columns, but .* n_components=3"):
        fitted.inverse_transform(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="Input Z contains NaN"):
        fitted.inverse_transform(np.full((1, 3), np.nan))
    with pytest.raises(ValueError, match="Expected 2D array"):
        fitted.inverse_transform(np.zeros(3))


@pytest.mark.parametrize("low_high", [(-0.5, 1.0), (0.0, 255.0)])
def test_bernoulli_needs_the_unit_interval(cls, brief, low_high):
    X = np.random.default_rng(0).uniform(*low_high, size=(30, 3))
    with pytest.raises(ValueError, match=r"likelihood='bernoulli' needs X within \[0, 1\].*Min"):
        cls(likelihood="bernoulli").fit(X)
    estimator = cls(**brief, likelihood="bernoulli").fit(np.clip(X, 0, 1))
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        estimator.transform(X)


COMMON = {
    "n_components": [0, -1, 2.5, 0.0, 1.0, "ten", None],
    "hidden_layer_sizes": [(0,), (8, -1), (2.5,), ("a",), 3],
    "activation": ["swish", None],
    "likelihood": ["counts", None],
    "unknown_category": ["raise", None],
    "encode_batch": ["yes", None],
    "encoder": ["conv", 3],
    "decoder": ["conv", (1, 2)],
    "image_shape": [12, "square", (3, 5), (3, 4), (12.0,), (-3, -4)],
    "linear_path": ["yes", None, 2],
    "whiten": ["some", None, 2],
    "input_noise": [-0.1, "some"],
    "input_dropout": [-0.1, 1.0, "some"],
    "learning_rate_init": [0.0, -1.0, "fast"],
    "learning_rate": ["cosine", 0.1, None],
    "weight_decay": [-1e-3, "some"],
    "batch_size": [0, 1, -3, 2.5, "big"],
    "max_iter": [0, -1, 1.5, "many"],
    "early_stopping": ["yes", None],
    "validation_fraction": [0.0, 1.0, -0.2],
    "n_iter_no_change": [0, 1.5],
    "tol": [-1.0, None],
    "warm_start": ["no"],
    "device": ["gpu", "tpu", 0, "cuda:99", "meta"],
    "precision": ["float16", None],
    "random_state": ["seed", -1.5],
    "window_mb": [0, -1.0, "all"],
    "compile": ["yes", None, 2],
    "distributed": ["yes", None, 2],
    "verbose": [-1, "loud"],
}
OWN = {
    HEBAETransformer: {
        "reg_weight": [-1.0, "x"],
        "covariance": ["sparse"],
        "posterior_scale": ["vector"],
        "covariance_prior": [0.0, -1.0],
        "row_share": [-0.1, 1.5, "all"],
        "batch_share": [-0.1, 1.5, "all"],
    },
    VAETransformer: {
        "beta": [-1.0, None],
        "prior": ["flat", None],
        "tilt": [0.0, -1.0, 1e9, "much", None, 2.5],
        "capacity": [5.0, (0, 5), (0, -1, 10), (0, 5, 0), "much"],
        "capacity_weight": [0.0, -1.0, None],
    },
    WAETransformer: {"reg_weight": [-1.0, None]},
}


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        pytest.param(cls, name, value, id=f"{cls.__name__}-{name}-{value}")
        for cls, own in OWN.items()
        for name, values in {**COMMON, **own}.items()
        for value in values
    ],
)
def test_bad_parameters(cls, name, value, table):
    with pytest.raises((ValueError, TypeError), match=name) as caught:
        cls(**{name: value}).fit(table)
    # The value too, so that it can be found in a grid of hundreds.
    assert repr(value).strip("()'") in str(caught.value) or str(value) in str(caught.value)


def test_every_parameter_has_a_bad_value_above():
    for cls, own in OWN.items():
        assert set(cls().get_params()) == set(COMMON) | set(own)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_absent_gpu(cls, table):
    with pytest.raises(ValueError, match=r"device='cuda' .* Use device='auto'"):
        cls(device="cuda").fit(table)


@pytest.mark.parametrize("latent", ["posterior", None, 3])
def test_bad_sample_kind(fitted, latent):
    with pytest.raises(ValueError, match=r"latent=.* must be 'mixture', 'gaussian' or 'prior'"):
        fitted.sample(3, latent=latent)


@pytest.mark.parametrize("n_samples", [0, -1, 2.5, "a"])
def test_bad_number_of_samples(fitted, n_samples):
    with pytest.raises(ValueError, match=r"n_samples=.* must be an integer >= 1"):
        fitted.sample(n_samples)


BAD_CARDS = {
    "report": ({"report": {"elbo": 1.0}}, TypeError, r"report is dict\. Pass what .*latent_report"),
    "batch": ({"batch": ["a"]}, ValueError, r"batch is given without X\."),
    "size_factor": ({"size_factor": [1.0]}, ValueError, r"size_factor is given without X\."),
    "width": (
        {"X": np.zeros((3, 5))},
        ValueError,
        r"X has 5 features, but .* expecting 12 features",
    ),
    "no rows": ({"X": np.zeros((0, 12))}, ValueError, r"0 sample"),
}


@pytest.mark.parametrize("kind", list(BAD_CARDS))
def test_bad_cards(fitted, kind):
    given, error, message = BAD_CARDS[kind]
    with pytest.raises(error, match=message):
        fitted.card(**given)


def test_early_stopping_needs_rows(cls, table):
    with pytest.raises(ValueError, match=r"early_stopping=True .* Use early_stopping=False"):
        cls(early_stopping=True).fit(table[:3])


def test_positional_parameters_are_refused(cls):
    with pytest.raises(TypeError, match="positional"):
        cls(3, (16,))
