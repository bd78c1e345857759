"""The file of a detector: that of its autoencoder, with what it adds."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from sklearn.base import clone

from skhebae._sklearn import validate_parameter_constraints
from skhebae.estimators.base import BaseAutoencoder, adopt_features
from skhebae.estimators.custom import AutoencoderTransformer
from skhebae.estimators.hebae import HEBAETransformer
from skhebae.estimators.saving import (
    file_attributes,
    file_parameters,
    rebuild_estimator,
    refuse_damaged,
)
from skhebae.estimators.vae import VAETransformer
from skhebae.estimators.wae import WAETransformer
from skhebae.files import check_floats
from skhebae.fitted.model_file import read_model, write_model
from skhebae.fitted.reference import Reference

if TYPE_CHECKING:
    from skhebae.estimators.novelty import NoveltyDetector

D = TypeVar("D", bound="NoveltyDetector")

#: Classes of autoencoders that a file can name.
CLASSES: dict[str, type[BaseAutoencoder]] = {
    cls.__name__: cls
    for cls in (HEBAETransformer, VAETransformer, WAETransformer, AutoencoderTransformer)
}

#: Key of what the detector adds to the fitted state of its autoencoder.
ADDED = "_detector"


def save_detector(detector: NoveltyDetector, path: str | os.PathLike[str]) -> None:
    """Write a fitted detector to a file.

    Raises
    ------
    TypeError
        If the class of its autoencoder is not ours.
    ModelFileError, OSError
        As `write_model`.
    """
    model = detector.autoencoder_
    name = type(model).__name__
    if CLASSES.get(name) is not type(model):
        raise TypeError(
            f"autoencoder is a {name}, which is a class of your own, and a file holds no code. "
            f"Pickle the detector, or use one of {', '.join(CLASSES)}."
        )
    model._validate_params()
    seed = detector.random_state
    params = {
        "autoencoder": None if detector.autoencoder is None else name,
        "novelty_score": detector.novelty_score,
        "contamination": plain(detector.contamination),
        "alpha": float(detector.alpha),
        "calibration": plain(detector.calibration),
        "random_state": int(seed) if isinstance(seed, int | np.integer) else None,
    }
    added = {
        "class": name,
        "params": file_parameters(model.get_params(deep=False), model.fitted_.architecture),
        "attributes": file_attributes(vars(model)),
        "points": detector.reference_.points,
        "residual_weight": detector.reference_.residual_weight,
        "held_out": detector.calibration_scores_,
        "offset": detector.offset_,
        "typical": detector.typical_bound_,
    }
    if detector.reference_.variances is not None:
        added["variances"] = detector.reference_.variances
    write_model(path, type(detector).__name__, params, {**model.fitted_.file_state(), ADDED: added})


def plain(value: Any) -> Any:
    """Return a number of numpy's as one of Python's, and anything else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def load_detector(cls: type[D], path: str | os.PathLike[str], factories: dict[str, Any]) -> D:
    """Read a detector of a class from a file.

    Raises
    ------
    FileNotFoundError, ModelFileError, TypeError, ValueError
        As `NoveltyDetector.load`.
    """
    kind = cls.__name__
    params, fitted = read_model(path, kind)
    with refuse_damaged(path, kind):
        added = fitted.pop(ADDED)
        own = CLASSES[added["class"]]
        further = {**fitted, **added["attributes"]}
        of_model = dict(added["params"])
    model = rebuild_estimator(own, path, of_model, further, factories, kind)
    with refuse_damaged(path, kind):
        unfitted = None if params["autoencoder"] is None else clone(model)
        detector = cls(**{**params, "autoencoder": unfitted})
        validate_parameter_constraints(
            detector._parameter_constraints, detector.get_params(deep=False), caller_name=kind
        )
        reference = Reference(
            added["points"], float(added["residual_weight"]), added.get("variances")
        )
        reference.check(model.fitted_)
        check_held_out(added)
        detector.autoencoder_ = model
        detector.reference_ = reference
        detector.calibration_scores_ = added["held_out"]
        detector.offset_, detector.typical_bound_ = float(added["offset"]), float(added["typical"])
        adopt_features(detector, model)
    return detector


def check_held_out(added: dict[str, Any]) -> None:
    """Check scores that come from a file.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    held_out = added["held_out"]
    check_floats(held_out, "the scores of held-out rows", (len(np.atleast_1d(held_out)),))
    if len(held_out) == 0 or (np.diff(held_out) < 0.0).any():
        raise ValueError("the scores of held-out rows are not in order")
    for name in ("offset", "typical", "residual_weight"):
        if not isinstance(added[name], float) or np.isnan(added[name]):
            raise ValueError(f"{name} is no number")
