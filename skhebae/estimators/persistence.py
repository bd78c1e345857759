"""Fitted state as plain arrays, and model files of JSON and safetensors.

A model file is one safetensors file: the arrays as tensors, everything else
as a JSON document in the file's metadata. Reading it executes nothing.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from skhebae.data import CountScaling, FeatureScaling, Scaling
from skhebae.estimators.assembly import build_model
from skhebae.estimators.latent import CodeMixture, CodeMoments
from skhebae.exceptions import ModelFileError
from skhebae.model import Architecture, Autoencoder

FORMAT = "skhebae"
#: Raised when a file written by this version cannot be read by the one before.
FORMAT_VERSION = 1

Arrays = dict[str, NDArray[Any]]

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
            part = state[name]
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
    arrays: Arrays = {}
    # What `fit` assigns, and the user's set_output; not what else hangs on the object.
    fitted = {k: v for k, v in state.items() if k in PRIVATE or k.endswith("_")}
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "class": kind,
        "params": _to_json(params, "params", arrays),
        "fitted": _to_json(fitted, "fitted", arrays),
    }
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"No folder {str(path.parent)!r} to save {path.name!r} in.")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        save_file(arrays, temporary, metadata={FORMAT: json.dumps(document)})
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


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
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            document = json.loads(metadata.get(FORMAT, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ModelFileError(
            f"{str(path)!r} is not a readable model file: truncated, damaged, or not "
            f"written by save() ({error})."
        ) from error
    keys = {"format", "version", "class", "params", "fitted"}
    if not isinstance(document, dict) or not keys <= document.keys():
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
    try:
        params = _from_json(document["params"], arrays)
        fitted = _from_json(document["fitted"], arrays)
    except KeyError as error:
        raise ModelFileError(f"{str(path)!r} lacks the array {error}: damaged.") from error
    if not isinstance(params, dict) or not isinstance(fitted, dict) or "_weights" not in fitted:
        raise ModelFileError(f"{str(path)!r} holds no fitted {kind}: damaged.")
    return params, fitted


def _to_json(value: Any, name: str, arrays: Arrays) -> Any:
    """Move arrays out of `value` into `arrays`, and make the rest JSON."""
    if isinstance(value, dict):
        return {k: _to_json(v, f"{name}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        # Not ascontiguousarray, which gives a number an axis.
        arrays[name] = np.array(value, order="C")
        return {"$array": name}
    if isinstance(value, np.ndarray):
        return {"$strings": [str(item) for item in value]}
    if isinstance(value, tuple):
        items = enumerate(value)
        return {"$tuple": [_to_json(item, f"{name}.{i}", arrays) for i, item in items]}
    if isinstance(value, list):
        return [_to_json(item, f"{name}.{i}", arrays) for i, item in enumerate(value)]
    if isinstance(value, np.generic):
        return value.item()
    return value


def _from_json(value: Any, arrays: Arrays) -> Any:
    """Invert `_to_json`."""
    if isinstance(value, list):
        return [_from_json(item, arrays) for item in value]
    if not isinstance(value, dict):
        return value
    if "$array" in value:
        return arrays[value["$array"]]
    if "$strings" in value:
        return np.array(value["$strings"], dtype=object)
    if "$tuple" in value:
        return tuple(_from_json(item, arrays) for item in value["$tuple"])
    return {k: _from_json(v, arrays) for k, v in value.items()}
