"""Model files: JSON and safetensors, with no code in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skhebae.exceptions import ModelFileError
from skhebae.files import read_document, write_document

FORMAT = "skhebae"
#: Raised when a file written by this version cannot be read by the one before.
FORMAT_VERSION = 1


def write_model(
    path: str | os.PathLike[str], kind: str, params: dict[str, Any], fitted: dict[str, Any]
) -> None:
    """Write a packed estimator to `path`, completely or not at all.

    Parameters
    ----------
    path : path-like
    kind : str
        Class name.
    params : dict
        Constructor parameters, as JSON values and tuples.
    fitted : dict
        Fitted state, as JSON values, tuples and arrays.
    """
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "class": kind,
        "params": params,
        "fitted": fitted,
    }
    write_document(path, document)


def read_model(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read parameters and fitted state from `path`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
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
            f"{str(path)!r} is not a readable model file: it is truncated, damaged, or was not "
            f"written by save() ({error})."
        ) from error
    keys = {"format", "version", "class", "params", "fitted"}
    if document is None or not keys <= document.keys():
        raise ModelFileError(f"{str(path)!r} is a safetensors file, but not one of skhebae's.")
    if not isinstance(document["version"], int) or document["version"] > FORMAT_VERSION:
        raise ModelFileError(
            f"{str(path)!r} has format version {document['version']}, but this skhebae reads up to "
            f"{FORMAT_VERSION}. Upgrade skhebae."
        )
    if document["class"] != kind:
        raise ModelFileError(
            f"{str(path)!r} holds a {document['class']}; use {document['class']}.load."
        )
    params, fitted = document["params"], document["fitted"]
    if not isinstance(params, dict) or not isinstance(fitted, dict) or "_weights" not in fitted:
        raise ModelFileError(f"{str(path)!r} holds no fitted {kind}: it is damaged.")
    return params, fitted
