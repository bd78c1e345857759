"""Documents with arrays, each stored in one safetensors file that is written atomically.

Arrays become tensors of the file, and everything else becomes a JSON document in its
metadata. Reading a file executes no code. The document begins with a SHA-256 digest of all bytes
of the file, its own digits counted as zeros, which is checked before anything else is read.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load

from skhebae.files.writing import file_kind, write_file

#: Key of the JSON document in the file's metadata.
KEY = "skhebae"

#: Key of the digest in the document, and the digits that stand for it while it is computed.
DIGEST, BLANK = "digest", b"0" * 64

#: What stands before the digits. They are in the document and not in metadata of their own,
#: which safetensors writes in random order: a model then always has the same bytes.
MARK = rb'"{\"digest\": \"'

#: Bytes from which a digest is computed in a thread, which takes a tenth of a millisecond.
BESIDE = 500_000

#: Longest header that safetensors reads.
LONGEST_HEADER = 100_000_000

#: Characters of an error of another library that a message repeats.
SHOWN = 200

#: Names that safetensors has for data types.
DTYPES = {
    "bool": "BOOL",
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
}

Buffer = Any  # bytes, a memoryview or a contiguous array; Python 3.12 has the type
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
    TypeError
        If an array has a data type that files cannot hold.
    """
    arrays: Arrays = {}
    plain: dict[str, Any] = {DIGEST: BLANK.decode()}
    for name, value in document.items():
        if name != DIGEST:
            plain[name] = _to_json(value, name, arrays)
    head, body = _lay_out(json.dumps(plain), arrays)
    start = find_digest(head)
    assert start is not None
    with _digest_of([head, *body]) as digest:
        write_file(path, [head, *body], keep=keep, late=(start, digest))


def _lay_out(text: str, arrays: Arrays) -> tuple[bytes, list[NDArray[Any]]]:
    """Return the header of a safetensors file and the arrays that follow it, in order.

    `safetensors.numpy.save` returns the same in one piece, which takes the memory of a second
    model and more time than writing it.
    """
    header: dict[str, Any] = {"__metadata__": {KEY: text}}
    # Wide numbers first, as safetensors has them, so that all are aligned.
    names = sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name))
    end = 0
    for name in names:
        array, begin = arrays[name], end
        end += array.nbytes
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [begin, end],
        }
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw, [arrays[name] for name in names]


def find_digest(raw: bytes) -> int | None:
    """Return where the digits of the digest begin; None in files of before there was one."""
    place = raw.find(MARK, 0, 8 + int.from_bytes(raw[:8], "little"))
    return None if place < 0 else place + len(MARK)


@contextmanager
def _digest_of(parts: Sequence[Buffer]) -> Iterator[Callable[[], bytes]]:
    """Yield a function that returns the digest, which is computed beside the block if that pays."""
    if sum(memoryview(part).nbytes for part in parts) < BESIDE:
        yield partial(compute_digest, parts)
        return
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(compute_digest, parts).result


def compute_digest(parts: Sequence[Buffer]) -> bytes:
    """Compute the digest of a file in parts, with zeros in the place of the digest."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest().encode()


def blank_digest(raw: bytes, start: int) -> list[Buffer]:
    """Return the parts of a file with zeros in the place of its digest."""
    view = memoryview(raw)
    return [view[:start], BLANK, view[start + len(BLANK) :]]


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
    if start is None:
        document, arrays = _split(raw)
    else:
        with _digest_of(blank_digest(raw, start)) as digest:
            try:
                document, arrays = _split(raw)
            finally:
                if digest() != raw[start : start + len(BLANK)]:
                    raise ValueError("its digest is not that of its bytes")
    if document is None:
        return None
    if (DIGEST in document) != (start is not None):
        raise ValueError("its digest is not where it should be")
    return {name: _from_json(value, arrays) for name, value in document.items()}


def _split(raw: bytes) -> tuple[dict[str, Any] | None, Arrays]:
    """Return the JSON document of a file, if it has one, and its arrays."""
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    document = json.loads(header.get("__metadata__", {}).get(KEY, "null"))
    if not isinstance(document, dict):
        return None, {}
    return document, load(raw)


def _to_json(value: Any, name: str, arrays: Arrays) -> Any:
    """Move the arrays in `value` to `arrays`, and convert the rest to JSON."""
    if isinstance(value, dict):
        return {k: _to_json(v, f"{name}.{k}", arrays) for k, v in value.items()}
    if isinstance(value, np.ndarray) and value.dtype != object:
        if value.dtype.name not in DTYPES:
            raise TypeError(f"{name} has dtype {value.dtype}, which a file cannot hold.")
        # Not np.ascontiguousarray, which would turn a 0-d array into a 1-d one.
        arrays[name] = np.asarray(value, dtype=value.dtype.newbyteorder("<"), order="C")
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
