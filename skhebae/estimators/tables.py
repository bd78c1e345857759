"""Checking a table at the door: an ndarray or CSR matrix of numbers that its likelihood accepts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import validate_data

from skhebae._sklearn import BaseEstimator
from skhebae.data import (
    Checked,
    Columns,
    Matrix,
    StoredTable,
    Table,
    is_mapped,
    is_stored,
    is_stream,
)
from skhebae.distributed import Group
from skhebae.estimators.mixed import find_columns, read_frame
from skhebae.estimators.recognise import SHOWN, as_table, explained
from skhebae.fitted import FittedAutoencoder
from skhebae.fitted.agreement import agree_on_weights, check_same, check_total_rows
from skhebae.fitted.fingerprint import describe_parameters
from skhebae.fitted.labels import check_new_labels, check_sample_weight, check_size_factor
from skhebae.likelihoods import (
    Likelihood,
    find_likelihood,
    likelihood_name,
    resolve_likelihood,
)

if TYPE_CHECKING:
    from skhebae.estimators.base import BaseAutoencoder


def agreed_table(
    estimator: BaseAutoencoder,
    X: ArrayLike | Matrix,
    batch: ArrayLike | None,
    size_factor: ArrayLike | None,
    group: Group,
    earlier: FittedAutoencoder | None,
    checkpoint: object,
    min_samples: int = 2,
    sample_weight: ArrayLike | None = None,
) -> Table:
    """Validate this process's rows for a fit, and check that all processes agree on it.

    All processes together must have `min_samples` rows. Rows of weight 0 are left out of a table in
    memory.

    Raises
    ------
    TypeError, ValueError
        In all processes, if the rows of any are not usable or processes disagree.
    """
    with group.agreement():
        columns = earlier.columns if earlier is not None else None
        if earlier is None:
            columns = find_columns(X, estimator.likelihood, group)
        rows = validate_table(
            estimator,
            X,
            resolve_likelihood(estimator.likelihood, is_mixed=columns is not None)
            if earlier is None
            else earlier.architecture.likelihood,
            columns=columns,
            window_mb=estimator.window_mb,
            reset=earlier is None,
            min_samples=min_samples if group.size == 1 else 0,
        )
        names = getattr(estimator, "feature_names_in_", None)
        described = {
            "n_features": int(rows.shape[1]),
            "feature names": None if names is None else names.tolist(),
            "whether they are fitted": earlier is not None,
            "epochs before": 0 if earlier is None else len(earlier.history["loss"]),
            "whether checkpoint= is given": checkpoint is not None,
            **describe_parameters(estimator),
        }
        described.pop("random_state", None)  # that of rank 0 applies to all
        check_same(described, group)
        n_rows = int(rows.shape[0])
        labels = None if batch is None else check_new_labels(batch, n_rows)
        factors = None if size_factor is None else check_size_factor(size_factor, n_rows)
        weight = None if sample_weight is None else check_sample_weight(sample_weight, n_rows)
        table = Table(rows, labels, factors, group, weight, columns)
        table = replace(table, weight=agree_on_weights(table))
        check_total_rows(table, min_samples)
        if earlier is None and table.has_missing:
            refuse_empty_features(table, names)
        return without_weight_0(table)


def without_weight_0(table: Table) -> Table:
    """Leave rows of weight 0 out of a table in memory, and weights out where all are 1.

    Where a table is read from outside memory, those who read it pass over such rows.
    """
    weight = table.weight
    if weight is None:
        return table
    if not isinstance(table.X, StoredTable) and not weight.all():
        kept, group = np.flatnonzero(weight), table.group
        labels, factors = (
            None if of is None else of[kept] for of in (table.batch, table.size_factor)
        )
        weight = weight[kept]
        table = Table(table.X[kept], labels, factors, group, weight, table.columns)
    are_ones = all(table.group.gather(bool((weight == 1.0).all())))
    # A new record in every process, so that all have to ask again how many rows there are.
    return replace(table, weight=None if are_ones else weight)


def refuse_empty_features(table: Table, names: NDArray[Any] | None) -> None:
    """Raise if a feature has no value in any process.

    Raises
    ------
    ValueError
        Naming the feature.
    """
    empty = np.flatnonzero(table.observed_counts == 0)
    if len(empty):
        shown = [str(j) if names is None else repr(str(names[j])) for j in empty[:SHOWN]]
        raise ValueError(
            f"X has no value in column {', '.join(shown)}{', ...' if len(empty) > SHOWN else ''}, "
            "only NaN. Remove it."
        )


def validate_table(
    estimator: BaseEstimator,
    X: ArrayLike | Matrix,
    likelihood: str | type[Likelihood],
    *,
    window_mb: float,
    reset: bool,
    min_samples: int,
    columns: Columns | None = None,
) -> Matrix:
    """Check a table: an ndarray or CSR matrix, finite, of the right width.

    Parameters
    ----------
    estimator : estimator
        Its features are those that the table must have, or receives with `reset`.
    X : {array-like, sparse matrix} of shape (n_samples, n_features), or Checked
    likelihood : str or type of Likelihood
        Its values are those that the table must have.
    window_mb : float
        A larger memory map is read in blocks.
    reset : bool
    min_samples : int
        Smallest number of rows.
    columns : Columns, optional
        Those of a mixed frame, which is to be returned as numbers.

    Raises
    ------
    TypeError
        If it is a stream of tables.
    ValueError
        Naming what is wrong and the cure.
    """
    if columns is not None:
        return read_frame(estimator, X, columns, reset=reset, min_samples=min_samples)
    X = as_table(X, image_shape=getattr(estimator, "image_shape", None))
    if is_stream(X):
        raise TypeError(
            f"X is a {type(X).__name__}, which yields one table after another. partial_fit takes "
            "such a stream; every other method takes one table. Call it with each of them."
        )
    if is_outside_memory(X, window_mb):
        table = X if isinstance(X, StoredTable) else StoredTable(X)
        return validate_stored(estimator, table, likelihood, reset=reset, min_samples=min_samples)
    return validate_rows(estimator, X, likelihood, reset=reset, min_samples=min_samples)


def is_outside_memory(X: Any, window_mb: float) -> bool:
    """Whether a table stays outside memory; a memory map does if it exceeds `window_mb`."""
    if is_mapped(X):
        return bool(4 * X.size > 1e6 * window_mb)  # as float32
    return isinstance(X, StoredTable) or is_stored(X)


def validate_rows(
    estimator: BaseEstimator,
    X: ArrayLike | Matrix,
    likelihood: str | type[Likelihood],
    *,
    reset: bool,
    min_samples: int,
) -> Matrix:
    """Check a table in memory, as `validate_table` does."""
    family, name = find_likelihood(likelihood), likelihood_name(likelihood)
    checked: frozenset[str] = frozenset()
    if isinstance(X, Checked):
        X, checked = X.X, X.likelihoods
    try:
        # Infinities of both signs have no sum: the error says so, and numpy need not.
        with np.errstate(invalid="ignore"):
            table = validate_data(
                estimator,
                X,
                reset=reset,
                accept_sparse="csr",
                dtype="numeric",
                ensure_min_samples=min_samples,
                ensure_all_finite="allow-nan" if family.accepts_missing else True,
            )
        if table.dtype.kind == "O":
            table = table.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        message = explained(error, name, type(estimator).__name__)
        if message is None:
            raise
        raise (TypeError if isinstance(error, TypeError) else ValueError)(message) from error
    if table.dtype.kind not in "fiub":
        raise ValueError(
            f"X has dtype {table.dtype}, which is not a number. Convert it first, for example "
            "dates to days since the first one."
        )
    if not getattr(table, "has_canonical_format", True):
        # Entries stored twice count as their sum everywhere, and scipy's
        # min and max must not sum them up in the caller's own matrix.
        table = table.copy()
        table.sum_duplicates()
    if table.shape[0] > 0 and name not in checked:  # one of several processes may have no rows
        family.check(table, name)
    return table


def validate_stored(
    estimator: BaseEstimator,
    table: StoredTable,
    likelihood: str | type[Likelihood],
    *,
    reset: bool,
    min_samples: int,
) -> StoredTable:
    """Check a table outside memory one block at a time, as `validate_table` does.

    A table that was checked for the likelihood before is not read again, apart from the few rows
    that show whether its features are those of the estimator.
    """
    name = likelihood_name(likelihood)
    known = name in table.checked
    sums = find_likelihood(likelihood).needs_totals
    for block in [table[:min_samples]] if known else table.blocks(summed=sums):
        validate_rows(estimator, block, likelihood, reset=reset, min_samples=min_samples)
        reset, min_samples = False, 1  # these are for the first block
    table.checked.add(name)
    return table
