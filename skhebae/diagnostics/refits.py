"""Fits of one estimator at several values of a parameter, each on every fold of some rows."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import partial
from numbers import Integral, Real
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.model_selection import KFold, ShuffleSplit

from skhebae._sklearn import take_rows

Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]

#: Largest seed that fits numpy and torch.
SEEDS = 2**31 - 1


def count_rows(X: Any) -> int:
    """Return the number of rows of a table."""
    return int(X.shape[0] if hasattr(X, "shape") else len(X))


def divide(X: Any, n_rows: int, cv: Any, rng: np.random.RandomState) -> Folds:
    """Return the training and held-out rows of each fold; two rows are the least to fit to."""
    seed = int(rng.randint(SEEDS))
    if hasattr(cv, "split"):
        return [(np.asarray(train), np.asarray(test)) for train, test in cv.split(X)]
    if isinstance(cv, Integral) and int(cv) >= 2:
        if n_rows < max(int(cv), 3):
            raise ValueError(f"X has {n_rows} rows, too few for cv={cv}. Pass a smaller cv.")
        return list(KFold(int(cv), shuffle=True, random_state=seed).split(np.empty(n_rows)))
    if isinstance(cv, Real) and 0.0 < float(cv) < 1.0:
        if n_rows < 3 or n_rows - math.ceil(float(cv) * n_rows) < 2:
            raise ValueError(
                f"X has {n_rows} rows, and cv={cv} leaves fewer than 2 to fit to. Pass a smaller "
                "cv, or more rows."
            )
        return list(ShuffleSplit(1, test_size=float(cv), random_state=seed).split(np.empty(n_rows)))
    raise ValueError(
        f"cv={cv!r} must be a number of folds >= 2, a share of rows between 0 and 1, or a splitter."
    )


def list_fits(
    estimator: Any,
    X: Any,
    parameter: str,
    values: Any,
    folds: Folds,
    score: str,
    n_generated: int,
    rng: np.random.RandomState,
) -> list[Any]:
    """Return one fit per fold and value, the values of a fold beside one another."""
    tasks = []
    for train, test in folds:
        seed = int(rng.randint(SEEDS))
        for value in np.asarray(values).tolist():
            settings = {parameter: value}
            if estimator.random_state is None and parameter != "random_state":
                settings["random_state"] = seed
            model = clone(estimator).set_params(**settings)
            tasks.append(delayed(_fit_and_score)(model, X, train, test, score, n_generated, seed))
    return tasks


def _fit_and_score(
    model: Any,
    X: Any,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    score: str,
    n_generated: int,
    seed: int,
) -> tuple[float, float, float]:
    """Fit to the training rows of a fold and return the three likelihoods, as in `CURVES`."""
    mean = partial(_mean_score, model, score)
    rows = take_rows(X, train)
    model.fit(rows)
    found = mean(rows), mean(take_rows(X, test))
    generated = model.sample(n_generated, noise=True, random_state=seed)
    if isinstance(generated, np.ndarray):
        # Columns of arrays have no names, and a model that knows some would warn of its own rows.
        vars(model).pop("feature_names_in_", None)
    return *found, mean(generated)


def _mean_score(model: Any, score: str, rows: Any) -> float:
    """Return the mean over rows of a method of a fitted model."""
    return float(np.mean(getattr(model, score)(rows), dtype=np.float64))


def run_fits(tasks: list[Any], n_jobs: int | None, verbose: int, name: str) -> list[Any]:
    """Run tasks, and return their results in order; with a bar if asked for."""
    results: Iterable[Any] = Parallel(n_jobs=n_jobs, return_as="generator")(tasks)
    if verbose > 0:
        from tqdm.auto import tqdm

        results = tqdm(results, total=len(tasks), desc=name, unit="fit")
    return list(results)
