"""Checks of the labels of batches and the size factors that users pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Stands in place of a label for the mean over all batches.
AVERAGE = "average"

#: Number of labels that an error message shows.
SHOWN = 5


def check_labels(batch: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Check that there is one label per row, a number or a string, (n_rows,).

    Raises
    ------
    ValueError
        If there is not one per row, or some are missing.
    """
    labels = np.asarray(batch)
    if labels.ndim != 1 or len(labels) != n_rows:
        raise ValueError(
            f"batch has shape {labels.shape}, but X has {n_rows} rows. Give one label per row."
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
            f"the first in row {row}: {labels[row]!r}. Give every row a label, for example "
            "'unknown'."
        )
    return labels


def batch_index(batch: ArrayLike, batches: NDArray[Any], n_rows: int) -> NDArray[np.intp]:
    """Return the index of each row's label in the sorted labels of `fit`.

    Raises
    ------
    ValueError
        If there are labels that `fit` did not see.
    """
    labels = check_labels(batch, n_rows)
    same_kind = (labels.dtype.kind == "O") == (batches.dtype.kind == "O")
    unseen = np.setdiff1d(labels, batches) if same_kind else np.unique(labels)
    if len(unseen):
        raise ValueError(
            f"batch has {len(unseen)} labels that fit did not see: {shown(unseen)}. It saw "
            f"{shown(batches)}. Where no batch applies, {AVERAGE!r} decodes the mean over all."
        )
    return np.searchsorted(batches, labels)


def shown(labels: NDArray[Any]) -> str:
    """Join the first few labels for a message."""
    text = ", ".join(repr(label) for label in labels[:SHOWN].tolist())
    return text + (", ..." if len(labels) > SHOWN else "")


def check_size_factor(size_factor: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Check that there is one positive, finite size factor per row, (n_rows,).

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
            f"size_factor has shape {factors.shape}, but there are {n_rows} rows. Give one number "
            "per row."
        )
    bad = ~(np.isfinite(factors) & (factors > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"size_factor is {factors[row]} in row {row}. It must be finite and > 0; leave "
            "out rows without counts."
        )
    return factors


def resolve_batch(
    batch: ArrayLike | None, batches: NDArray[Any], n_rows: int
) -> NDArray[np.intp] | None:
    """Turn labels into indices of the sorted labels of `fit`; None if `fit` had none.

    Raises
    ------
    ValueError
        If `batch` is missing, superfluous or has labels that `fit` did not see.
    """
    if batch is None and len(batches):
        raise ValueError(
            "The estimator was fitted with batch=, so it needs batch= here too: one label per row, "
            f"of {shown(batches)}. Where rows are decoded from codes, one label for all rows or "
            f"{AVERAGE!r} will do."
        )
    if batch is not None and not len(batches):
        raise ValueError(
            "The estimator was fitted without batch=, so it cannot tell batches apart. Leave "
            "batch= out, or pass it to fit."
        )
    return None if batch is None else batch_index(batch, batches, n_rows)
