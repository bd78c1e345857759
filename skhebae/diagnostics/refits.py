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
from skhebae.fitted.progress import find_tqdm

Folds = list[tuple[NDArray[np.intp], NDArray[np.intp]]]

#: Largest seed that fits numpy and torch.
SEEDS = 2**31 - 1


def count_rows(X: Any) -> int:
    """Return the number of rows of a table."""
    return int(X.shape[0] if hasattr(X, "shape") else len(X))


def divide(X: Any, n_rows: int, cv: Any, rng: np.random.RandomState) -> Folds:
    """Return the training rows, at least two, and the held-out rows, at least one, of each fold."""
    splitter = _splitter(cv, n_rows, int(rng.randint(SEEDS)))
    folds = [(np.asarray(train), np.asarray(test)) for train, test in splitter.split(X)]
    fewest = min((len(train) for train, _ in folds), default=0)
    if fewest < 2 or min(len(test) for _, test in folds) < 1:
        raise ValueError(
            f"cv={cv!r} leaves {fewest} of {n_rows} rows to fit to, and needs to leave at least 2. "
            "Pass another cv, or more rows."
        )
    return folds


def _splitter(cv: Any, n_rows: int, seed: int) -> Any:
    """Return what splits rows: folds by their number, one share of rows, or an object as it is."""
    if hasattr(cv, "split"):
        return cv
    if isinstance(cv, Integral) and int(cv) >= 2:
        if n_rows < int(cv):
            raise ValueError(f"X has {n_rows} rows, too few for cv={cv}. Pass a smaller cv.")
        return KFold(int(cv), shuffle=True, random_state=seed)
    if isinstance(cv, Real) and 0.0 < float(cv) < 1.0:
        # Rounding up may leave no row to fit to, which is for the caller to refuse.
        n_test = max(1, min(math.ceil(float(cv) * n_rows), n_rows - 1))
        return ShuffleSplit(1, test_size=n_test, random_state=seed)
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
        results = find_tqdm()(results, total=len(tasks), desc=name, unit="fit")
    return list(results)
