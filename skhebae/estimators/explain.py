"""What makes rows strange, column by column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skhebae.data import Matrix, Minibatch, Scaling
from skhebae.estimators.base import BaseAutoencoder
from skhebae.fitted import FittedAutoencoder
from skhebae.fitted.reference import Nearest, Reference, describe, half_scale
from skhebae.novelty import code_of
from skhebae.posterior import jacobian_numbers

if TYPE_CHECKING:
    import pandas

FloatArray = NDArray[np.float64]

#: Name of the column for what codes contribute.
CODE = "code"


def explain_rows(
    estimator: BaseAutoencoder,
    reference: Reference,
    X: Any,
    rows: Matrix,
    batch: ArrayLike | None,
    size_factor: ArrayLike | None,
    *,
    apart: bool,
) -> pandas.DataFrame:
    """Return the shares of columns in the squared distance of rows to their nearest points.

    Parameters
    ----------
    estimator : BaseAutoencoder
    reference : Reference
    X : table
        As the user gave it, for its index.
    rows : Matrix
        The same, validated.
    batch, size_factor : optional
    apart : bool
        Whether codes get a column of their own.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ImportError(
            "explain returns a data frame, which needs pandas. Install it with pip install pandas."
        ) from error
    fitted = estimator.fitted_

    def evaluate(minibatch: Minibatch) -> Tensor:
        return parts_of_rows(fitted, reference, minibatch, apart=apart)

    width = jacobian_numbers(fitted.model)
    parts = fitted.map_minibatches(evaluate, rows, batch, size_factor, numbers_per_row=width)
    of_columns = sum_per_column(parts[:, 1:], fitted.scaling)
    names = column_names(estimator, of_columns.shape[1])
    if apart:
        of_columns = np.column_stack([of_columns, parts[:, 0]])
        names.append(CODE)
    total = of_columns.sum(axis=1, keepdims=True)
    # A row at a reference point is not strange in any column.
    shares = np.divide(of_columns, total, out=np.zeros_like(of_columns), where=total > 0.0)
    return pd.DataFrame(shares, columns=names, index=getattr(X, "index", None))


def parts_of_rows(
    fitted: FittedAutoencoder, reference: Reference, minibatch: Minibatch, *, apart: bool
) -> Tensor:
    """Return what codes and each feature add to the squared distance, (n, 1 + q), in double.

    If codes do not stay `apart`, their part is divided among the features, and 0 itself.
    """
    code = code_of(fitted.model, minibatch)
    nearest = reference.nearest(
        describe(fitted, minibatch, reference.residual_weight, code), minibatch.mask
    )
    d = fitted.n_components
    of_code, of_features = nearest.squares[:, :d], nearest.squares[:, d:]
    together = of_code.sum(dim=1, keepdim=True)
    if apart:
        return torch.cat([together, of_features], dim=1)
    shares = code_shares(fitted, reference, minibatch, code, nearest)
    return torch.cat([torch.zeros_like(together), of_features + together * shares], dim=1)


def code_shares(
    fitted: FittedAutoencoder,
    reference: Reference,
    minibatch: Minibatch,
    code: Tensor,
    nearest: Nearest,
) -> Tensor:
    """Return the shares of features in what a step from the nearest point's code changes, (n, q).

    Changes count in the units of residuals.
    """
    points = np.asarray(reference.points[:, : fitted.n_components], dtype=np.float64)
    model_codes = points @ np.linalg.inv(half_scale(fitted))
    other = torch.from_numpy(model_codes).to(code)[nearest.point]
    here, there = (fitted.model.decode_rows(z, minibatch) for z in (code, other))
    likelihood = fitted.likelihood
    change = likelihood.residual(likelihood.mean(here), there).double().square()
    if minibatch.mask is not None:
        change = change.where(minibatch.mask, 0.0)
    total = change.sum(dim=1, keepdim=True)
    equal = torch.full_like(change, 1.0 / change.shape[1])
    return torch.where(total > 0.0, change / total, equal)


def sum_per_column(parts: NDArray[Any], scaling: Scaling) -> FloatArray:
    """Add up the parts of features (n, q) per column of the table, (n, p)."""
    wide = np.asarray(parts, dtype=np.float64)
    if scaling.columns is None:
        return wide
    n_columns = len(scaling.columns)
    # A row of which one column is known: the features that it sets are those of the column.
    known = np.where(np.eye(n_columns, dtype=bool), 0.0, np.nan)
    owns = ~np.isnan(scaling.standardise(known))
    result: FloatArray = wide @ owns.T.astype(np.float64)
    return result


def column_names(estimator: BaseAutoencoder, n_columns: int) -> list[Any]:
    """Return the names of the columns of the table."""
    columns = estimator.fitted_.columns
    if columns is not None:
        return list(columns.names)
    names = getattr(estimator, "feature_names_in_", None)
    return [f"x{j}" for j in range(n_columns)] if names is None else list(names)
