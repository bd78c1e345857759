"""Documents with arrays, each stored in one safetensors file that is written atomically.

Arrays become tensors of the file, and everything else becomes a JSON document in its
metadata. Reading a file executes no code.
"""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

#: Key of the JSON document in the file's metadata.
KEY = "skhebae"

Arrays = dict[str, NDArray[Any]]


def write_document(
    path: str | os.PathLike[str], document: dict[str, Any], *, keep: str | None = None
) -> None:
    """Write a document to a temporary file and then move it into place.

    Parameters
    ----------
    path : path-like
        File to write; an existing file is overwritten.
    document : dict
        Values that JSON can express, tuples and arrays, nested in dicts and lists.
    keep : str, optional
        Suffix to append to the name of an existing file to keep it. By default, it
        is not kept.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"No folder {str(path.parent)!r} to save {path.name!r} in. Create it first."
        )
    arrays: Arrays = {}
    plain = {name: _to_json(value, name, arrays) for name, value in document.items()}
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        save_file(arrays, temporary, metadata={KEY: json.dumps(plain)})
        if keep is not None and path.exists():
            os.replace(path, path.with_name(path.name + keep))
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def read_document(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read a document that `write_document` wrote.

    Returns
    -------
    dict or None
        None for a safetensors file that `write_document` did not write.

    Raises
    ------
    ValueError
        If the file cannot be opened, is truncated or damaged, or is not a
        safetensors file.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            document = json.loads((file.metadata() or {}).get(KEY, "null"))
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if not isinstance(document, dict):
            return None
        return {name: _from_json(value, arrays) for name, value in document.items()}
    except (SafetensorError, json.JSONDecodeError, OSError) as error:
        raise ValueError(str(error)) from error
    except KeyError as error:
        raise ValueError(f"The array {error} is missing") from error


def _to_json(value: Any, name: str, arrays: Arrays) -> Any:
    """Move the arrays in `value` to `arrays`, and convert the rest to JSON."""
    if isinstance(value, dict):
        return {k: _to_json(v, f"{name}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        # np.ascontiguousarray would turn a 0-d array into a 1-d one.
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
