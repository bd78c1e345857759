"""Fitted state as plain arrays, and model files of JSON and safetensors."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch

from skhebae.data import CountScaling, FeatureScaling, Scaling
from skhebae.estimators.assembly import build_model
from skhebae.estimators.latent import CodeMixture, CodeMoments
from skhebae.exceptions import ModelFileError
from skhebae.files import Arrays, read_document, write_document
from skhebae.model import Architecture, Autoencoder

FORMAT = "skhebae"
#: Raised when a file written by this version cannot be read by the one before.
FORMAT_VERSION = 1

#: Private fitted attributes of a packed state, and those made of arrays.
PRIVATE = {
    "_architecture",
    "_mixture",
    "_moments",
    "_noise_covariance",
    "_scaling",
    "_seed",
    "_sklearn_output_config",
    "_weights",
}
PARTS: dict[str, Callable[..., Any]] = {
    "_scaling": lambda **parts: (CountScaling if "proportions" in parts else FeatureScaling)(
        **parts
    ),
    "_moments": CodeMoments,
    "_mixture": CodeMixture,
}


def pack(state: dict[str, Any]) -> dict[str, Any]:
    """Replace our own objects in an estimator's ``__dict__`` by dicts of arrays.

    Pickles then hold no torch object, so they load without a GPU, and skops
    needs to trust no class but the estimator.
    """
    packed = {k: v for k, v in state.items() if k not in ("_model", "_optimizer_state")}
    if "_model" in state:
        weights = state["_model"].state_dict()
        packed["_weights"] = {k: v.detach().cpu().numpy() for k, v in weights.items()}
        packed["_architecture"] = state["_architecture"]._asdict()
        for name in PARTS:
            part = state[name].now() if name == "_mixture" else state[name]
            packed[name] = {f.name: getattr(part, f.name) for f in fields(part)}
    return packed


def unpack(packed: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Invert `pack`, with the networks rebuilt on `device`."""
    state = {k: v for k, v in packed.items() if k != "_weights"}
    if "_weights" in packed:
        architecture = dict(packed["_architecture"])
        for name in ("hidden_layer_sizes", "image_shape"):
            if architecture.get(name) is not None:
                architecture[name] = tuple(architecture[name])
        state["_architecture"] = Architecture(**architecture)
        for name, part in PARTS.items():
            state[name] = part(**packed[name])
        state["_model"] = rebuild(
            state["_architecture"], state["_scaling"], packed["_weights"], device
        )
    return state


def rebuild(
    architecture: Architecture, scaling: Scaling, weights: Arrays, device: torch.device
) -> Autoencoder:
    """Make a model in evaluation mode around saved weights."""
    model = build_model(architecture, scaling, torch.Generator())
    # A copy: arrays from a file or a memory-mapped pickle may be read-only.
    model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    return model.to(device).eval()


def write(
    path: str | os.PathLike[str], kind: str, params: dict[str, Any], state: dict[str, Any]
) -> None:
    """Write a packed estimator to `path`, whole or not at all.

    Parameters
    ----------
    path : path-like
    kind : str
        Class name.
    params : dict
        Constructor parameters; must be representable in JSON.
    state : dict
        Packed state of a fitted estimator.
    """
    # What `fit` assigns, and the user's set_output; not what else hangs on the object.
    fitted = {k: v for k, v in state.items() if k in PRIVATE or k.endswith("_")}
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "class": kind,
        "params": params,
        "fitted": fitted,
    }
    write_document(path, document)


def read(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read parameters and packed state from `path`.

    Raises
    ------
    ModelFileError
        If the file is truncated, foreign, newer or of another class.
    """
    if not Path(path).is_file():
        what = "is a folder, not a model file" if Path(path).is_dir() else "is not there"
        raise FileNotFoundError(f"No model file to load: {str(path)!r} {what}.")
    try:
        document = read_document(path)
    except ValueError as error:
        raise ModelFileError(
            f"{str(path)!r} is not a readable model file: truncated, damaged, or not "
            f"written by save() ({error})."
        ) from error
    keys = {"format", "version", "class", "params", "fitted"}
    if document is None or not keys <= document.keys():
        raise ModelFileError(f"{str(path)!r} is a safetensors file, but not one of skhebae's.")
    if not isinstance(document["version"], int) or document["version"] > FORMAT_VERSION:
        raise ModelFileError(
            f"{str(path)!r} has format version {document['version']}, this skhebae reads up to "
            f"{FORMAT_VERSION}; upgrade skhebae."
        )
    if document["class"] != kind:
        raise ModelFileError(
            f"{str(path)!r} holds a {document['class']}; use {document['class']}.load."
        )
    params, fitted = document["params"], document["fitted"]
    if not isinstance(params, dict) or not isinstance(fitted, dict) or "_weights" not in fitted:
        raise ModelFileError(f"{str(path)!r} holds no fitted {kind}: damaged.")
    return params, fitted
