"""By what a checkpoint knows the fit it is of."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from numbers import Integral
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator

from skhebae.data.scaling import Matrix, Scaling

#: Parameters that may differ: they do not change what is learned.
FREE = ("verbose", "device", "warm_start")

#: Rows of the table that count one by one; the others count by their means and deviations.
FIRST_ROWS = 100


def identity_of(
    estimator: BaseEstimator, X: Matrix, scaling: Scaling, n_done: int
) -> dict[str, Any]:
    """Describe a fit: its parameters, its rows, and the epochs before it.

    A `random_state` that is no integer is different each time, and left out.
    """
    params = estimator.get_params(deep=False)
    if not isinstance(params["random_state"], Integral):
        del params["random_state"]
    described = {k: named(v) for k, v in params.items() if k not in FREE}
    digest = hashlib.sha256()
    for field in fields(scaling):  # type: ignore[arg-type]
        digest.update(np.ascontiguousarray(getattr(scaling, field.name)).tobytes())
    digest.update(np.ascontiguousarray(scaling.standardise(X[:FIRST_ROWS])).tobytes())
    return {
        "estimator": type(estimator).__name__,
        **described,
        "n_samples": int(X.shape[0]),
        "n_features": int(X.shape[1]),
        "rows": digest.hexdigest()[:16],
        "epochs before": n_done,
    }


def named(value: object) -> str:
    """Return a text that is the same in every process: of a function its name."""
    return getattr(value, "__qualname__", type(value).__name__) if callable(value) else repr(value)
