"""Labels of batches and size factors, as the user gives them, checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhebae.data import CountScaling, Covariates, Scaling
from skhebae.data.scaling import Matrix

#: In the place of a label: the mean over all batches.
AVERAGE = "average"

#: Labels an error message shows.
SHOWN = 5


def as_labels(batch: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Check one label a row: integers, numbers or strings, (n_rows,).

    Raises
    ------
    ValueError
        If they are not one a row, or some are missing.
    """
    labels = np.asarray(batch)
    if labels.ndim != 1 or len(labels) != n_rows:
        raise ValueError(
            f"batch has shape {labels.shape}, but X has {n_rows} rows; give one label a row."
        )
    if labels.dtype.kind in "biuf":
        missing = np.isnan(labels) if labels.dtype.kind == "f" else np.zeros(n_rows, dtype=bool)
    else:
        labels = labels.astype(object)
        missing = np.array([not isinstance(label, str) for label in labels])
    if missing.any():
        row = int(np.flatnonzero(missing)[0])
        raise ValueError(
            f"batch has {int(missing.sum())} labels that are missing or neither text nor a number, "
            f"the first in row {row}: {labels[row]!r}; give every row one, for example 'unknown'."
        )
    return labels


def batch_index(batch: ArrayLike, batches: NDArray[Any], n_rows: int) -> NDArray[np.intp]:
    """Index of each row's label in the sorted labels of `fit`.

    Raises
    ------
    ValueError
        If there are labels that `fit` did not see.
    """
    labels = as_labels(batch, n_rows)
    same_kind = (labels.dtype.kind == "O") == (batches.dtype.kind == "O")
    unseen = np.setdiff1d(labels, batches) if same_kind else np.unique(labels)
    if len(unseen):
        raise ValueError(
            f"batch has {len(unseen)} labels that fit did not see: {shown(unseen)}; it saw "
            f"{shown(batches)}. Where a batch may be left open, {AVERAGE!r} is the mean over all."
        )
    return np.searchsorted(batches, labels)


def shown(labels: NDArray[Any]) -> str:
    """Show the first few labels in a message."""
    text = ", ".join(repr(label) for label in labels[:SHOWN].tolist())
    return text + (", ..." if len(labels) > SHOWN else "")


def checked_size_factor(size_factor: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """One positive, finite size factor a row, (n_rows,).

    Raises
    ------
    ValueError
        Otherwise.
    """
    factors = np.asarray(size_factor, dtype=np.float64)
    if factors.ndim == 0:
        factors = np.full(n_rows, factors)
    if factors.shape != (n_rows,):
        raise ValueError(
            f"size_factor has shape {factors.shape}, but there are {n_rows} rows; give one number "
            "a row."
        )
    bad = ~(np.isfinite(factors) & (factors > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"size_factor is {factors[row]} in row {row}; it must be finite and > 0: leave out "
            "rows without counts."
        )
    return factors


def covariates_of(
    n_rows: int,
    batch: ArrayLike | None,
    size_factor: NDArray[np.float64] | None,
    batches: NDArray[Any],
    scaling: Scaling,
    table: Matrix | None,
) -> Covariates:
    """Put together what the decoder is told about rows besides their codes.

    Parameters
    ----------
    n_rows : int
    batch : array-like of shape (n_rows,) or None
        Labels.
    size_factor : ndarray of shape (n_rows,) or None
        Checked; None takes the totals of `table`, and without one their median in `fit`.
    batches : ndarray
        Sorted labels of `fit`, perhaps none.
    scaling : Scaling
        Of the rows of `fit`.
    table : {ndarray, CSR} of shape (n_rows, n_features) or None

    Raises
    ------
    ValueError
        If `batch` is missing, superfluous or has unseen labels, or `size_factor` is superfluous.
    """
    if batch is None and len(batches):
        raise ValueError(
            "The estimator was fitted with batch=, so it needs batch= here too: one label a row of "
            f"{shown(batches)}; where rows are decoded from codes, one for all, or {AVERAGE!r}."
        )
    if batch is not None and not len(batches):
        raise ValueError(
            "The estimator was fitted without batch=, so it cannot tell batches apart; leave "
            "batch= out, or pass it to fit."
        )
    index = None if batch is None else batch_index(batch, batches, n_rows)
    log_size = None
    if isinstance(scaling, CountScaling):
        log_size = scaling.log_size(n_rows, table, size_factor)
    elif size_factor is not None:
        raise ValueError(
            "size_factor= is the exposure of counts, which this likelihood does not have; use "
            "likelihood='negative_binomial', or leave size_factor= out."
        )
    return Covariates(index, len(batches), log_size)
