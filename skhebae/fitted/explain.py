"""What makes rows strange: the parts of their distance to the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Minibatch, Scaling
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.reference import Nearest, Reference, describe, half_scale
from skhebae.novelty import code_of

FloatArray = NDArray[np.float64]


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
