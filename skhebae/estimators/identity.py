"""By what a checkpoint knows the fit it is of."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skhebae.data.scaling import Matrix, Scaling
from skhebae.processes import ALONE, Processes

#: Parameters that may differ: they do not change what is learned.
FREE = ("verbose", "device", "warm_start", "distributed")

#: Rows of the table that count one by one; the others count by their means and deviations.
FIRST_ROWS = 100


def parameters_of(estimator: BaseEstimator) -> dict[str, str]:
    """Describe the parameters that change what is learned.

    A `random_state` that is no integer is different each time, and left out.
    """
    params = estimator.get_params(deep=False)
    if not isinstance(params["random_state"], Integral):
        del params["random_state"]
    return {k: named(v) for k, v in params.items() if k not in FREE}


def identity_of(
    estimator: BaseEstimator,
    X: Matrix,
    scaling: Scaling,
    n_done: int,
    processes: Processes = ALONE,
) -> dict[str, Any]:
    """Describe a fit: its parameters, its rows, the epochs before it and its processes."""
    digest = hashlib.sha256()
    for field in fields(scaling):  # type: ignore[arg-type]
        digest.update(np.ascontiguousarray(getattr(scaling, field.name)).tobytes())
    first = np.ascontiguousarray(scaling.standardise(X[:FIRST_ROWS])).tobytes()
    # The first of each process: its rows, and no other's, are to be the same.
    for part in processes.gather(first if processes.size == 1 else hash_of(first, X.shape[0])):
        digest.update(part)
    return {
        "estimator": type(estimator).__name__,
        **parameters_of(estimator),
        "n_samples": sum(processes.gather(int(X.shape[0]))),
        "n_features": int(X.shape[1]),
        "rows": digest.hexdigest()[:16],
        "epochs before": n_done,
        "processes": processes.size,
    }


def hash_of(rows: bytes, n_rows: int) -> bytes:
    """Short for the first rows of a process that has so many."""
    return hashlib.sha256(rows + str(n_rows).encode()).digest()


def named(value: object) -> str:
    """Return a text that is the same in every process: of a function its name."""
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)
