"""Documents with arrays, each stored in one safetensors file that is written atomically.

Arrays become tensors of the file, and everything else becomes a JSON document in its
metadata. Reading a file executes no code. The document begins with a SHA-256 digest of all bytes
of the file, its own digits counted as zeros, which is checked before anything else is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from skhebae.files.writing import file_kind, write_file

#: Key of the JSON document in the file's metadata.
KEY = "skhebae"

#: Key of the digest in the document, and the digits that stand for it while it is computed.
DIGEST, BLANK = "digest", b"0" * 64

#: What stands before the digits. They are in the document and not in metadata of their own,
#: which safetensors writes in random order: a model then always has the same bytes.
MARK = rb'"{\"digest\": \"'

#: Longest header that safetensors reads.
LONGEST_HEADER = 100_000_000

#: Characters of an error of another library that a message repeats.
SHOWN = 200

Arrays = dict[str, NDArray[Any]]


def write_document(
    path: str | os.PathLike[str], document: dict[str, Any], *, keep: str | None = None
) -> None:
    """Write a document, completely or not at all, as `write_file` does.

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
    OSError
        If the file cannot be written; names `path`.
    """
    arrays: Arrays = {}
    plain: dict[str, Any] = {DIGEST: BLANK.decode()}
    for name, value in document.items():
        if name != DIGEST:
            plain[name] = _to_json(value, name, arrays)
    write_file(path, seal(save(arrays, metadata={KEY: json.dumps(plain)})), keep=keep)


def seal(raw: bytes) -> list[bytes | memoryview]:
    """Return the parts of a file with the right digest in the place of whatever is there."""
    start = find_digest(raw)
    assert start is not None
    view = memoryview(raw)
    return [view[:start], compute_digest(raw, start), view[start + len(BLANK) :]]


def find_digest(raw: bytes) -> int | None:
    """Return where the digits of the digest begin; None in files of before there was one."""
    place = raw.find(MARK, 0, 8 + int.from_bytes(raw[:8], "little"))
    return None if place < 0 else place + len(MARK)


def compute_digest(raw: bytes, start: int) -> bytes:
    """Compute the digest of a file whose digits begin at `start`."""
    view = memoryview(raw)
    digest = hashlib.sha256(view[:start])
    digest.update(BLANK)
    digest.update(view[start + len(BLANK) :])
    return digest.hexdigest().encode()


def read_document(path: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Read a document that `write_document` wrote.

    Returns
    -------
    dict or None
        None for a safetensors file that `write_document` did not write. It has the key
        "digest" if the file has one, which then is right.

    Raises
    ------
    ValueError
        If the file cannot be opened, is truncated or damaged, or is not a
        safetensors file.
    """
    # Whatever json, safetensors and numpy make of a damaged file: also RecursionError,
    # KeyError, OverflowError, UnicodeDecodeError...
    try:
        return _unpack(_read_whole(path))
    except Exception as error:
        text = str(error) if isinstance(error, ValueError | OSError) else repr(error)
        raise ValueError(text[:SHOWN]) from error


def _read_whole(path: str | os.PathLike[str]) -> bytes:
    """Read a file, but only if it is as long as its header says."""
    kind = file_kind(path)
    if kind is not None:
        raise ValueError(f"it is {kind}")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if length > min(size - 8, LONGEST_HEADER):
            raise ValueError(f"its {size} bytes hold no header of {length}")
        entries = json.loads(file.read(length))
        ends = [entry["data_offsets"][1] for key, entry in entries.items() if key[:2] != "__"]
        wanted = 8 + length + max(ends, default=0)
        if size != wanted:
            raise ValueError(f"it has {size} bytes, and its header says {wanted}")
        file.seek(0)
        return file.read()


def _unpack(raw: bytes) -> dict[str, Any] | None:
    """Check the digest of a file, and put the arrays back into its document."""
    start = find_digest(raw)
    if start is not None and compute_digest(raw, start) != raw[start : start + len(BLANK)]:
        raise ValueError("its digest is not that of its bytes")
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    document = json.loads(header.get("__metadata__", {}).get(KEY, "null"))
    if not isinstance(document, dict):
        return None
    if (DIGEST in document) != (start is not None):
        raise ValueError("its digest is not where it should be")
    arrays: Arrays = load(raw)
    return {name: _from_json(value, arrays) for name, value in document.items()}


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
        return _strings(value["$strings"])
    if "$tuple" in value:
        return tuple(_from_json(item, arrays) for item in value["$tuple"])
    return {k: _from_json(v, arrays) for k, v in value.items()}


def _strings(items: Any) -> NDArray[Any]:
    """Return a list of strings as an array of objects."""
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise ValueError("an array of strings holds something else")
    return np.array(items, dtype=object)
