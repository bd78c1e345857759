"""Checks of a packed `FittedAutoencoder` that comes from a file.

They come before anything is built of it. Sizes that a file claims are compared with the arrays
that it holds, so that a small file cannot ask for much memory.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from skhebae.files import check_floats, check_integer
from skhebae.fitted.axes import CodeAxes
from skhebae.fitted.build import Architecture, count_weights
from skhebae.fitted.record import TrainingRecord
from skhebae.likelihoods import find_likelihood
from skhebae.networks import ACTIVATIONS
from skhebae.tilted_prior import LARGEST_TILT

#: Largest deviation from 1 of the sum of a mixture's weights.
ROUNDING = 1e-6


def check_packed(packed: dict[str, Any]) -> None:
    """Check what `FittedAutoencoder.unpack` is to be given, apart from names of weights.

    Raises
    ------
    ValueError, TypeError, KeyError
        Naming what is wrong.
    """
    architecture = Architecture.unpack(packed["_architecture"])
    check_architecture(architecture)
    d = architecture.n_components
    check_moments(packed["_moments"], d)
    check_mixture(packed["_mixture"], d)
    check_floats(packed["_noise_covariance"], "the noise covariance", (d, d))
    if "_axes" in packed:
        CodeAxes.check(packed["_axes"], d, architecture.n_features)
    scaling = find_likelihood(architecture.likelihood).scaling_class.unpack(packed["_scaling"])
    scaling.check(architecture.n_features)
    check_batches(packed.get("batches_"), architecture.n_batches)
    check_sizes(architecture, packed["_weights"])
    check_integer(packed["_seed"], "the seed", 0)
    check_history(packed["history_"])
    if not isinstance(packed.get("_fills_linearly", False), bool):
        raise ValueError("_fills_linearly is no boolean")
    if "training_" in packed:
        TrainingRecord.check(packed["training_"])
    if not isinstance(packed.get("anndata_", {}), dict):
        raise ValueError("anndata_ is not a dict")


def check_architecture(architecture: Architecture) -> None:
    """Check the types and ranges of the fields.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    for name, low in (("n_features", 1), ("n_components", 1), ("n_scales", 0), ("n_batches", 0)):
        check_integer(getattr(architecture, name), name, low)
    for size in architecture.hidden_layer_sizes:
        check_integer(size, "a hidden layer's size", 1)
    if architecture.activation not in ACTIVATIONS:
        raise ValueError(f"activation {architecture.activation!r:.80} is unknown")
    for name in ("encode_batch", "linear_path"):
        if not isinstance(getattr(architecture, name), bool):
            raise ValueError(f"{name} is neither true nor false")
    tilt = architecture.tilt
    if tilt is not None and not (isinstance(tilt, float) and 0.0 <= tilt <= LARGEST_TILT):
        raise ValueError(f"tilt {tilt!r:.80} is no number between 0 and {LARGEST_TILT}")
    if architecture.image_shape is not None:
        for size in architecture.image_shape:
            check_integer(size, "a number in image_shape", 1)
        if prod(architecture.image_shape) != architecture.n_features:
            raise ValueError("image_shape has another number of features than n_features")


def check_sizes(architecture: Architecture, weights: dict[str, Any]) -> None:
    """Check that the networks are not larger than the weights that are there for them.

    Raises
    ------
    ValueError
        If they are.
    """
    for name, array in weights.items():
        if not isinstance(array, np.ndarray):
            raise ValueError(f"the weights {name[:80]!r} are {type(array).__name__}, not an array")
    there = sum(array.size for array in weights.values())
    wanted = count_weights(architecture)
    # Outputs of an encoder of the user's are not counted; a layer has a weight for each.
    if max(wanted, architecture.n_scales) > there + architecture.n_components**2:
        raise ValueError(f"its networks have {wanted} weights, and {there} are there")


def check_moments(moments: dict[str, Any], d: int) -> None:
    """Check the fields of `CodeMoments` in `d` dimensions.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    n_rows = moments["n_rows"]
    if not isinstance(n_rows, float):  # a float is a sum of weights
        check_integer(n_rows, "the number of rows", 1)
    elif not (np.isfinite(n_rows) and n_rows > 0.0):
        raise ValueError(f"the summed weight of the rows is {n_rows}, not a positive number")
    check_floats(moments["mean"], "the mean of the codes", (d,))
    for name in ("covariance", "spread"):
        check_floats(moments[name], f"the {name} of the codes", (d, d))


def check_mixture(mixture: dict[str, Any], d: int) -> None:
    """Check the fields of `CodeMixture` in `d` dimensions.

    Raises
    ------
    ValueError
        Naming what is wrong.
    """
    k = len(mixture["weights"])
    check_floats(mixture["weights"], "the mixture's weights", (k,))
    check_floats(mixture["means"], "the mixture's means", (k, d))
    check_floats(mixture["covariances"], "the mixture's covariances", (k, d, d))
    if mixture["weights"].min() < 0.0 or abs(mixture["weights"].sum() - 1.0) > ROUNDING:
        raise ValueError("the mixture's weights are no shares")


def check_batches(batches: Any, n_batches: int) -> None:
    """Check that there is one label per experimental batch.

    Raises
    ------
    ValueError
        If there is not.
    """
    labels = np.empty(0) if batches is None else batches
    if not isinstance(labels, np.ndarray) or labels.shape != (n_batches,):
        raise ValueError(f"there are not as many labels as batches, {n_batches}")


def check_history(history: Any) -> None:
    """Check that each term has one number per epoch.

    Raises
    ------
    ValueError
        If it has not.
    """
    if not isinstance(history, dict) or "loss" not in history:
        raise ValueError("the history has no loss")
    for values in history.values():
        if not isinstance(values, list) or not all(isinstance(value, float) for value in values):
            raise ValueError("the history has something else than numbers")
        if len(values) != len(history["loss"]):
            raise ValueError("the history's terms have different numbers of epochs")
