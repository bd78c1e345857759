"""Model files: JSON and safetensors, with no code in them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from skhebae.exceptions import ModelFileError
from skhebae.files import file_kind, read_document, remove_leftovers, write_document

FORMAT = "skhebae"
#: Raised when a file written by this version cannot be read by the one before. Since version 2
#: files have a digest.
FORMAT_VERSION = 2


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

    Raises
    ------
    IsADirectoryError, ModelFileError
        If `path` is a folder, or something else that is not a file.
    OSError
        If the file cannot be written; names `path`.
    """
    found = file_kind(path)
    if found is not None:
        error = IsADirectoryError if Path(path).is_dir() else ModelFileError
        raise error(f"{str(path)!r} is {found}, and no model can be saved there. Name a file.")
    document = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "class": kind,
        "params": params,
        "fitted": fitted,
    }
    remove_leftovers(path)
    write_document(path, document)


def read_model(path: str | os.PathLike[str], kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read parameters and fitted state from `path`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ModelFileError
        If the file is damaged, foreign, newer, of another class, or no file at all.
    """
    if not Path(path).exists() or Path(path).is_dir():
        what = "is a folder, not a model file" if Path(path).is_dir() else "is not there"
        raise FileNotFoundError(f"No model file to load: {str(path)!r} {what}.")
    try:
        document = read_document(path)
    except ValueError as error:
        raise ModelFileError(
            f"{str(path)!r} is not a readable model file: it is truncated, damaged, or was not "
            f"written by save() ({error})."
        ) from error
    if document is None:
        raise ModelFileError(f"{str(path)!r} is a safetensors file, but not one of skhebae's.")
    return check_document(path, document, kind)


def check_document(
    path: str | os.PathLike[str], document: dict[str, Any], kind: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return parameters and fitted state of a document, whose parts they must be.

    Raises
    ------
    ModelFileError
        If it is foreign, newer, of another class or not complete.
    """
    foreign = not {"format", "version", "class", "params", "fitted"} <= document.keys()
    # Of an array, a comparison would be an array too.
    if foreign or not isinstance(document["format"], str) or document["format"] != FORMAT:
        raise ModelFileError(f"{str(path)!r} is a safetensors file, but not one of skhebae's.")
    version, found = document["version"], document["class"]
    if type(version) is not int or not isinstance(found, str):
        raise ModelFileError(f"{str(path)!r} has no version and class of a model: it is damaged.")
    if not 1 <= version <= FORMAT_VERSION:
        raise ModelFileError(
            f"{str(path)!r} has format version {version}, but this skhebae reads 1 to "
            f"{FORMAT_VERSION}. Upgrade skhebae."
        )
    if version > 1 and "digest" not in document:
        raise ModelFileError(f"{str(path)!r} has lost its digest: it is damaged.")
    if found != kind:
        raise ModelFileError(f"{str(path)!r} holds a {found:.80}; use {found:.80}.load.")
    params, fitted = document["params"], document["fitted"]
    parts = [params, fitted]
    if isinstance(fitted, dict):
        names = ("_weights", "_architecture", "_scaling", "_moments", "_mixture")
        parts += [fitted.get(name) for name in names]
    if not all(isinstance(part, dict) for part in parts):
        raise ModelFileError(f"{str(path)!r} holds no fitted {kind}: it is damaged.")
    return params, fitted
