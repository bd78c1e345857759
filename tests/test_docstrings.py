"""Public docstrings are numpydoc's, and the quoted numbers of parameters are right."""

from __future__ import annotations

import inspect
import re

import pytest
from conftest import ESTIMATORS
from numpydoc.validate import validate

import skhebae

METHODS = [
    "fit",
    "partial_fit",
    "fit_transform",
    "transform",
    "inverse_transform",
    "sample",
    "score_samples",
    "score",
    "posterior",
    "elbo",
    "log_likelihood",
    "card",
    "save",
    "load",
]
# Methods share the example and the cross-references of their class, and a
# method that does one thing needs no extended summary.
OPTIONAL = {"SA01", "EX01", "ES01"}
# Our summaries begin on the line of the quotes, which numpydoc forbade before 1.11.
OLD_STYLE = {"GL01"}


@pytest.mark.parametrize("method", ["", *METHODS])
def test_numpydoc(cls, method):
    name = f"skhebae.{cls.__name__}" + (f".{method}" if method else "")
    ignored = OLD_STYLE | (OPTIONAL if method else set())
    assert [error for error in validate(name)["errors"] if error[0] not in ignored] == []


DETECTOR_METHODS = [
    "fit",
    "fit_predict",
    "score_samples",
    "decision_function",
    "predict",
    "p_values",
    "explain",
    "card",
    "save",
    "load",
]


@pytest.mark.parametrize("method", ["", *DETECTOR_METHODS])
def test_numpydoc_of_the_detector(method):
    name = "skhebae.NoveltyDetector" + (f".{method}" if method else "")
    ignored = OLD_STYLE | (OPTIONAL if method else set())
    assert [error for error in validate(name)["errors"] if error[0] not in ignored] == []


@pytest.mark.parametrize("cls", [*ESTIMATORS, skhebae.NoveltyDetector])
def test_documented_defaults_are_the_defaults(cls):
    for name, parameter in inspect.signature(cls).parameters.items():
        documented = re.search(rf"^\s*{name} : .*default=(.*)$", cls.__doc__, re.MULTILINE)
        assert documented, name
        assert documented.group(1).replace('"', "'") == repr(parameter.default), name


def test_every_estimator_is_public():
    names = {cls.__name__ for cls in ESTIMATORS} | {"AutoencoderTransformer"}
    assert names | {"HEBAEImputer", "NoveltyDetector"} == set(skhebae.__all__) - {"pp", "tl"}


@pytest.mark.parametrize("name", skhebae.tl.__all__)
def test_numpydoc_of_the_single_cell_face(name):
    ignored = OLD_STYLE | OPTIONAL
    errors = [e for e in validate(f"skhebae.tl.{name}")["errors"] if e[0] not in ignored]
    assert errors == []
