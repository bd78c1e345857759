"""What codes and each feature add to the distance of rows from their reference points."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skhebae.data import Matrix, Minibatch
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.reference import Nearest, Reference, code_matrix, describe
from skhebae.novelty import code_of
from skhebae.posterior import jacobian_numbers


def strangeness_parts(
    fitted: FittedAutoencoder,
    reference: Reference,
    X: Matrix,
    batch: ArrayLike | None,
    size_factor: ArrayLike | None,
    *,
    apart: bool,
) -> NDArray[np.float64]:
    """Return `parts_of_rows` of a table, (n, 1 + q).

    Parameters
    ----------
    fitted : FittedAutoencoder
    reference : Reference
    X, batch, size_factor
        As of `FittedAutoencoder.score`.
    apart : bool
        As of `parts_of_rows`.
    """

    def evaluate(minibatch: Minibatch) -> Tensor:
        return parts_of_rows(fitted, reference, minibatch, apart=apart)

    width = jacobian_numbers(fitted.model)
    parts = fitted.map_minibatches(evaluate, X, batch, size_factor, numbers_per_row=width)
    return parts.astype(np.float64)


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
    model_codes = points @ np.linalg.inv(code_matrix(fitted, reference.residual_weight))
    other = torch.from_numpy(model_codes).to(code)[nearest.point]
    here, there = (fitted.model.decode_rows(z, minibatch) for z in (code, other))
    likelihood = fitted.likelihood
    change = likelihood.residual(likelihood.mean(here), there).double().square()
    if minibatch.mask is not None:
        change = change.where(minibatch.mask, 0.0)
    total = change.sum(dim=1, keepdim=True)
    equal = torch.full_like(change, 1.0 / change.shape[1])
    return torch.where(total > 0.0, change / total, equal)
