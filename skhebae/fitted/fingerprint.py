"""The fingerprint by which a checkpoint recognises its fit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skhebae.data import Matrix, Scaling, StoredTable, Table
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.parameters import Parameters, changes_result

#: Rows that are hashed at a time.
CHUNK_ROWS = 4096

#: Digits of a hash that a fingerprint keeps.
DIGITS = 16


def describe_parameters(parameters: Parameters) -> dict[str, str]:
    """Describe the parameters that change what is learned.

    A `random_state` that is not an integer differs each time, and is left out.
    """
    values = changes_result(parameters)
    if not isinstance(values["random_state"], Integral):
        del values["random_state"]
    return {name: describe(value) for name, value in values.items()}


def fingerprint(
    parameters: Parameters,
    table: Table,
    scaling: Scaling,
    batches: NDArray[Any],
    earlier: FittedAutoencoder | None,
    device: str,
) -> dict[str, Any]:
    """Describe all that a fit depends on.

    Parameters
    ----------
    parameters : Parameters
    table : Table
        Its rows count one by one, in their order, with their labels, size factors and weights. A
        table outside memory is read once for it.
    scaling : Scaling
    batches : ndarray
        Sorted labels of all processes.
    earlier : FittedAutoencoder or None
        The fit that this one continues.
    device : str
        Type of the device, on whose random numbers the fit depends.
    """
    group = table.group
    own = (
        hash_rows(table.X),
        hash_labels(table.batch),
        *(hash_arrays([of]) for of in (table.size_factor, table.weight)),
    )
    # In the order of processes, each of which is to have the same rows again.
    rows, labels, factors, row_weights = (
        "".join(parts) for parts in zip(*group.gather(own), strict=True)
    )
    measured = leaves(scaling.pack())
    weights = {} if earlier is None else earlier.model.state_dict()
    has_factors = any(group.gather(table.size_factor is not None))
    return {
        "estimator": type(parameters).__name__,
        **describe_parameters(parameters),
        "n_samples": table.total_rows,
        "n_features": table.n_features,
        "rows": shorten(rows, hash_arrays(measured)),
        "batch": f"{len(batches)} labels, {shorten(labels)}" if len(batches) else None,
        "size_factor": shorten(factors) if has_factors else None,
        **({} if table.weight is None else {"sample_weight": shorten(row_weights)}),
        "epochs before": 0 if earlier is None else len(earlier.history["loss"]),
        "weights before": hash_arrays(v.cpu().numpy() for v in weights.values())[:DIGITS],
        "processes": group.size,
        "device": device,
    }


def leaves(packed: Any) -> Iterator[Any]:
    """Yield the arrays and other values of packed parts, in their order."""
    if isinstance(packed, dict | list):
        for value in packed.values() if isinstance(packed, dict) else packed:
            yield from leaves(value)
    else:
        yield packed


def hash_rows(X: Matrix) -> str:
    """Return a digest of all rows in their order, and of how they are stored."""
    # Rows are read in another order from a table outside memory.
    kind = "stored" if isinstance(X, StoredTable) else "sparse" if sparse.issparse(X) else "dense"
    digest = hashlib.sha256(f"{kind} {X.shape}".encode())
    for chunk in chunks_of(X):
        for part in parts_of(chunk):
            update(digest, part)
    return digest.hexdigest()


def chunks_of(X: Matrix) -> Iterator[Matrix]:
    """Yield the rows of a table, some at a time."""
    if isinstance(X, StoredTable):
        yield from X.blocks()
        return
    for rows in gen_batches(X.shape[0], CHUNK_ROWS):
        yield X[rows]


def parts_of(chunk: Matrix) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a chunk of rows, the same whatever its type of indices."""
    if not sparse.issparse(chunk):
        yield np.asarray(chunk)
        return
    yield np.diff(chunk.indptr).astype(np.int64)
    yield chunk.indices.astype(np.int64)
    yield chunk.data


def hash_labels(labels: NDArray[Any] | None) -> str:
    """Return a digest of the labels of rows in their order."""
    if labels is None:
        return hash_arrays([None])
    values, index = np.unique(labels, return_inverse=True)
    return shorten(repr(values.tolist()), hash_arrays([index.ravel()]))


def hash_arrays(arrays: Iterable[NDArray[Any] | None]) -> str:
    """Return a digest of arrays; some may be lacking."""
    digest = hashlib.sha256()
    for array in arrays:
        if array is None:
            digest.update(b"None")
        else:
            update(digest, np.asarray(array))
    return digest.hexdigest()


def update(digest: Any, array: NDArray[Any]) -> None:
    """Add an array's data type, shape and bytes to a digest."""
    digest.update(f"{array.dtype.str} {array.shape}".encode())
    digest.update(np.ascontiguousarray(array).data)


def shorten(*texts: str) -> str:
    """Return a short digest of texts."""
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:DIGITS]


def describe(value: object) -> str:
    """Return a text that is the same in every process; for a function, its name."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return f"array {hash_arrays([value])[:DIGITS]}"  # its text would leave out numbers
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, partial):
        given = [describe(part) for part in (value.func, *value.args)]
        given += [f"{name}={describe(part)}" for name, part in sorted(value.keywords.items())]
        return f"partial({', '.join(given)})"
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)
