"""Checks of the labels of batches and the size factors that users pass."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: Stands in place of a label for the mean over all batches.
AVERAGE = "average"

#: Number of labels that an error message shows.
SHOWN = 5

#: Types of a number within an array of objects.
NUMBERS = (bool, int, float, np.bool_, np.integer, np.floating)


def check_labels(batch: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Check that there is one label per row, all text or all numbers, (n_rows,).

    Text becomes `str`, and numbers are compared by value: 1, 1.0 and True are one batch, and "1"
    is another.

    Returns
    -------
    ndarray of shape (n_rows,)
        Objects for text.

    Raises
    ------
    ValueError
        If there is not one per row, some are missing, or they are something else.
    """
    # numpy would turn a list of text and numbers into text.
    labels = np.array(batch, dtype=object) if isinstance(batch, list | tuple) else np.asarray(batch)
    if labels.ndim != 1 or len(labels) != n_rows:
        raise ValueError(
            f"batch has shape {labels.shape}, but X has {n_rows} rows. Give one label per row."
        )
    masked = np.ma.getmaskarray(batch) if isinstance(batch, np.ma.MaskedArray) else None
    if labels.dtype.kind in "mM":  # as objects, some become integers
        refuse_missing(labels, np.ones(n_rows, dtype=bool))
    if labels.dtype.kind not in "biuf":
        return check_objects(labels.astype(object), masked)
    missing = np.isnan(labels) if labels.dtype.kind == "f" else np.zeros(n_rows, dtype=bool)
    refuse_missing(labels, missing if masked is None else missing | masked)
    # Of the kinds that files can hold.
    kind = np.dtype(np.float64) if labels.dtype == np.longdouble else labels.dtype.newbyteorder("=")
    return labels.astype(kind, copy=False)


def check_objects(labels: NDArray[Any], masked: NDArray[np.bool_] | None) -> NDArray[Any]:
    """Check labels that are Python objects, as `check_labels` does."""
    is_text = np.array([isinstance(label, str) for label in labels], dtype=bool)
    # Not Number: a fraction or a decimal has no type of numpy's.
    is_number = np.array([isinstance(label, NUMBERS) and label == label for label in labels])
    is_number = is_number.astype(bool)  # also of no rows
    other = ~(is_text | is_number) if masked is None else ~(is_text | is_number) | masked
    refuse_missing(labels, other)
    if is_text.all():
        result = np.empty(len(labels), dtype=object)
        result[:] = [str(label) for label in labels]  # not numpy's str_
        return result
    if is_text.any():
        text, number = int(np.argmax(is_text)), int(np.argmax(is_number))
        raise ValueError(
            f"batch has text and numbers, such as {labels[text]!r} in row {text} and "
            f"{labels[number]!r} in row {number}. Make all of them text: "
            "[str(label) for label in batch]."
        )
    result = np.array(labels.tolist())
    if result.dtype.kind not in "biuf" or np.any(result != labels):
        raise ValueError(
            "batch has integers that are too large to compare with its other labels. Make all of "
            "them text: [str(label) for label in batch]."
        )
    return result


def refuse_missing(labels: NDArray[Any], bad: NDArray[np.bool_]) -> None:
    """Refuse labels that are missing, or neither text nor numbers.

    Raises
    ------
    ValueError
        Naming the first, and the cure.
    """
    if not bad.any():
        return
    row = int(np.flatnonzero(bad)[0])
    label = labels[row]
    cure = "Give every row a label, for example 'unknown'."
    if isinstance(label, bytes):
        cure = "Decode them: [label.decode() for label in batch]."
    elif isinstance(label, np.datetime64 | np.timedelta64) or (
        hasattr(label, "isoformat") and label == label  # not pandas' NaT
    ):
        cure = "Turn dates into text: [str(label) for label in batch]."
    raise ValueError(
        f"batch has {int(bad.sum())} labels that are missing or neither text nor a number, "
        f"the first in row {row}: {label!r}. {cure}"
    )


def check_new_labels(batch: ArrayLike, n_rows: int) -> NDArray[Any]:
    """Check labels of a fit, as `check_labels` does.

    Raises
    ------
    ValueError
        Also if one is the word for the mean over all batches.
    """
    labels = check_labels(batch, n_rows)
    if labels.dtype == object and (labels == AVERAGE).any():
        raise ValueError(
            f"batch has the label {AVERAGE!r}, which stands for the mean over all batches where "
            "codes are decoded. Call that batch something else."
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
    is_text, was_text = labels.dtype == object, batches.dtype == object
    same_kind = is_text == was_text
    unseen = np.setdiff1d(labels, batches) if same_kind else np.unique(labels)
    if len(unseen) == 0:
        return np.searchsorted(batches, labels)
    cure = f"Where no batch applies, {AVERAGE!r} decodes the mean over all."
    if not same_kind and np.isin(unseen.astype(str), batches.astype(str)).any():
        kinds = "text, not numbers" if was_text else "numbers, not text"
        cure = f"Its labels are {kinds}: use batch.astype({'str' if was_text else batches.dtype})."
    raise ValueError(
        f"batch has {len(unseen)} labels that fit did not see: {shown(unseen)}. It saw "
        f"{shown(batches)}. {cure}"
    )


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
    factors = numbers_of_rows(size_factor, "size_factor", n_rows, "there are")
    bad = ~(np.isfinite(factors) & (factors > 0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"size_factor is {factors[row]} in row {row}. It must be finite and > 0; leave "
            "out rows without counts."
        )
    return factors


def check_sample_weight(sample_weight: ArrayLike, n_rows: int) -> NDArray[np.float64]:
    """Check that there is one finite weight >= 0 per row, (n_rows,); one number is all of them.

    Raises
    ------
    ValueError
        Otherwise.
    """
    weight = numbers_of_rows(sample_weight, "sample_weight", n_rows, "X has")
    bad = ~(np.isfinite(weight) & (weight >= 0.0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ValueError(
            f"sample_weight is {weight[row]} in row {row}. It must be finite and >= 0; 0 leaves a "
            "row out."
        )
    return weight


def numbers_of_rows(given: ArrayLike, name: str, n_rows: int, counted: str) -> NDArray[np.float64]:
    """Return one number per row, (n_rows,), NaN where masked; a single one stands for all.

    Messages call it `name`, and say with `counted` whose rows there are.

    Raises
    ------
    ValueError
        If there are others, or what is given is no number.
    """
    if isinstance(given, np.ma.MaskedArray):
        given = np.ma.filled(given.astype(np.float64), np.nan)
    try:
        numbers = np.asarray(given)
        if numbers.dtype.kind in "cmMSU":
            raise TypeError(f"they are of type {numbers.dtype}")
        numbers = numbers.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{name} holds what is no number ({error}). Give one number per row."
        ) from error
    if numbers.ndim == 0:
        numbers = np.full(n_rows, numbers)
    if numbers.shape != (n_rows,):
        raise ValueError(
            f"{name} has shape {numbers.shape}, but {counted} {n_rows} rows. Give one number per "
            "row."
        )
    result: NDArray[np.float64] = numbers
    return result


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
