"""Documents with arrays in one safetensors file, written whole or not at all.

The arrays are tensors of the file, everything else a JSON document in its metadata.
Reading executes nothing.
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

#: Key of the document in the file's metadata.
KEY = "skhebae"

Arrays = dict[str, NDArray[Any]]


def write_document(
    path: str | os.PathLike[str], document: dict[str, Any], *, keep: str | None = None
) -> None:
    """Write to a file of its own first; then put it in place.

    Parameters
    ----------
    path : path-like
        Overwritten if it exists.
    document : dict
        Of what JSON has, tuples and arrays.
    keep : str, optional
        Suffix under which the file that was there is kept.

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"No folder {str(path.parent)!r} to save {path.name!r} in.")
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
    """Read what `write_document` wrote; None for a foreign safetensors file.

    Raises
    ------
    ValueError
        If the file is truncated, damaged or no safetensors file.
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
        raise ValueError(f"no array {error}") from error


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
