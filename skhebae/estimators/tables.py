"""Checking a table at the door: an ndarray or CSR matrix, finite, fit for its likelihood."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_non_negative, validate_data

from skhebae.data import StoredTable, is_mapped, is_stored, is_stream
from skhebae.data.scaling import Matrix
from skhebae.estimators.assembly import COUNTS

#: Larger counts are no counts: float32 has not their digits by far.
LARGEST_COUNT = 1e9


def validated_table(
    estimator: BaseEstimator,
    X: ArrayLike | Matrix,
    likelihood: str,
    *,
    reset: bool,
    min_samples: int,
) -> Matrix:
    """Check a table: an ndarray or CSR matrix, finite, of the right width.

    Parameters
    ----------
    estimator : estimator
        Whose features it must have, or with `reset`, gets.
    X : {array-like, sparse matrix} of shape (n_samples, n_features)
    likelihood : str
        Whose values it must have.
    reset : bool
    min_samples : int
        Fewest rows.

    Raises
    ------
    TypeError
        If it is a stream of tables.
    ValueError
        Naming what is wrong and the cure.
    """
    if is_stream(X):
        raise TypeError(
            f"X is a {type(X).__name__}, which gives one table after the other; partial_fit takes "
            "such a stream, every other method one table: call it with each, or with np.asarray."
        )
    validate = validated_stored if is_outside(estimator, X) else validated_rows
    return validate(estimator, X, likelihood, reset=reset, min_samples=min_samples)


def is_outside(estimator: BaseEstimator, X: Any) -> bool:
    """Whether a table stays outside memory; a memory map does if it exceeds `window_mb`."""
    if is_mapped(X):
        return bool(4 * X.size > 1e6 * estimator.window_mb)  # as float32
    return isinstance(X, StoredTable) or is_stored(X)


def opened(estimator: BaseEstimator, X: Any) -> Any:
    """Return a table outside memory as an object that remembers what it was checked for."""
    outside = is_outside(estimator, X) and not isinstance(X, StoredTable)
    return StoredTable(X) if outside else X


def validated_rows(
    estimator: BaseEstimator,
    X: ArrayLike | Matrix,
    likelihood: str,
    *,
    reset: bool,
    min_samples: int,
) -> Matrix:
    """`validated_table` of a table in memory."""
    try:
        table = validate_data(
            estimator,
            as_numpy(X),
            reset=reset,
            accept_sparse="csr",
            dtype="numeric",
            ensure_min_samples=min_samples,
        )
    except ValueError as error:
        if "contains NaN" not in str(error):
            raise
        raise ValueError(
            "Input X contains NaN: missing values are not supported yet. Fill them in first, "
            f"for example make_pipeline(SimpleImputer(), {type(estimator).__name__}())."
        ) from error
    if table.dtype.kind == "O":
        try:
            table = table.astype(np.float64)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"X has columns that are not numbers ({error}); encode them first, for example "
                "with OneHotEncoder in a ColumnTransformer."
            ) from error
    if table.dtype.kind not in "fiub":
        raise ValueError(
            f"X has dtype {table.dtype}, which is not a number; convert it first, for example "
            "dates to days since the first one."
        )
    if not getattr(table, "has_canonical_format", True):
        # Entries stored twice count as their sum everywhere, and scipy's
        # min and max must not sum them up in the caller's own matrix.
        table = table.copy()
        table.sum_duplicates()
    if table.shape[0] == 0:  # of one of several processes
        return table
    if likelihood == "bernoulli":
        low, high = table.min(), table.max()
        if low < 0 or high > 1:
            raise ValueError(
                f"likelihood='bernoulli' needs X within [0, 1], got values from {low:.4g} to "
                f"{high:.4g} (negative values in data are not a probability); rescale X with "
                "MinMaxScaler(clip=True), or use likelihood='gaussian'."
            )
    if likelihood in COUNTS:
        check_counts(table, likelihood)
    return table


def validated_stored(
    estimator: BaseEstimator, X: Any, likelihood: str, *, reset: bool, min_samples: int
) -> StoredTable:
    """`validated_table` of a table outside memory, a block at a time."""
    table: StoredTable = opened(estimator, X)
    # Of a table that was checked before, its features are still to be those of the estimator.
    some, counts = [table[:min_samples]], likelihood in COUNTS
    for block in some if likelihood in table.checked else table.blocks(summed=counts):
        validated_rows(estimator, block, likelihood, reset=reset, min_samples=min_samples)
        reset, min_samples = False, 1  # of the first block alone
    table.checked.add(likelihood)
    return table


def check_counts(table: Matrix, likelihood: str) -> None:
    """Raise unless every entry is an integer >= 0.

    Raises
    ------
    ValueError
        Naming an entry that is none, and where counts may be.
    """
    check_non_negative(table, f"likelihood={likelihood!r}")
    values = table.data if sparse.issparse(table) else table
    bad = are_broken(values)
    if bad.any():
        raise ValueError(
            f"likelihood={likelihood!r} needs counts, integers >= 0, but X has "
            f"{bad.sum() / max(1, values.size):.0%} of its entries broken numbers, such as "
            f"{values[bad].flat[0]:.6g}: log-normalised or scaled? Pass the raw counts (of an "
            "AnnData often layers['counts'] or .raw), or use likelihood='gaussian'."
        )
    if values.size and values.max() > LARGEST_COUNT:
        raise ValueError(
            f"likelihood={likelihood!r} takes counts up to {LARGEST_COUNT:.0e}, but X has "
            f"{values.max():.4g}."
        )


def are_broken(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Which numbers are not integers; none, of an integer type."""
    if values.dtype.kind != "f":
        return np.zeros(0, dtype=bool)
    broken: NDArray[np.bool_] = values != np.rint(values)
    return broken


def as_numpy(X: ArrayLike | Matrix) -> ArrayLike | Matrix:
    """Turn a torch tensor into an array; leave anything else alone."""
    if not isinstance(X, torch.Tensor):
        return X
    if X.layout != torch.strided:
        raise TypeError(
            f"X is a torch tensor of layout {X.layout}; pass X.to_dense(), or a scipy CSR matrix."
        )
    tensor = X.float() if X.dtype == torch.bfloat16 else X
    return tensor.numpy(force=True)
