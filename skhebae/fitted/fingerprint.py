"""The fingerprint by which a checkpoint recognises its fit."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import partial
from numbers import Integral
from typing import Any

import numpy as np

from skhebae.data import Scaling, Table
from skhebae.fitted.parameters import Parameters, changes_result

#: Rows of the table that count one by one; the others count by their means and deviations.
FIRST_ROWS = 100


def describe_parameters(parameters: Parameters) -> dict[str, str]:
    """Describe the parameters that change what is learned.

    A `random_state` that is not an integer differs each time, and is left out.
    """
    values = changes_result(parameters)
    if not isinstance(values["random_state"], Integral):
        del values["random_state"]
    return {name: describe(value) for name, value in values.items()}


def fingerprint(
    parameters: Parameters, table: Table, scaling: Scaling, n_done: int
) -> dict[str, Any]:
    """Describe a fit: its parameters, its rows, the epochs before it and its processes."""
    group, X = table.group, table.X
    digest = hashlib.sha256()
    for field in fields(scaling):  # type: ignore[arg-type]
        digest.update(np.ascontiguousarray(getattr(scaling, field.name)).tobytes())
    first = np.ascontiguousarray(scaling.standardise(X[:FIRST_ROWS])).tobytes()
    # The first rows of each process, which is to have the same rows again.
    for part in group.gather(first if group.size == 1 else hash_rows(first, len(table))):
        digest.update(part)
    return {
        "estimator": type(parameters).__name__,
        **describe_parameters(parameters),
        "n_samples": table.total_rows,
        "n_features": table.n_features,
        "rows": digest.hexdigest()[:16],
        "epochs before": n_done,
        "processes": group.size,
    }


def hash_rows(rows: bytes, n_rows: int) -> bytes:
    """Return a short digest of the first rows of a process that has `n_rows`."""
    return hashlib.sha256(rows + str(n_rows).encode()).digest()


def describe(value: object) -> str:
    """Return a text that is the same in every process; for a function, its name."""
    if isinstance(value, partial):
        given = [describe(part) for part in (value.func, *value.args)]
        given += [f"{name}={describe(part)}" for name, part in sorted(value.keywords.items())]
        return f"partial({', '.join(given)})"
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)
