"""Novelty scores of a fitted autoencoder by name: of rows alone, and against its reference."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skhebae.data import Matrix, Minibatch
from skhebae.fitted.autoencoder import FittedAutoencoder
from skhebae.fitted.axes import apply_matrix
from skhebae.fitted.measure import encode_with_spread
from skhebae.fitted.reference import (
    MOST_NUMBERS,
    MOST_ROWS,
    Nearest,
    Reference,
    choose_weight,
    code_scale,
    describe,
    find_point,
    group_rows,
)
from skhebae.model import Autoencoder
from skhebae.novelty import (
    ROW_SCORES,
    RowPosterior,
    bhattacharyya_distances,
    code_of,
    mixture_surprise,
    negative_bound,
)
from skhebae.posterior import jacobian_numbers

FloatArray = NDArray[np.float64]

#: Scores that compare a row with rows of `fit`, or with their mean score.
NEIGHBOURS, LATENT, BHATTACHARYYA = "neighbours", "latent_distance", "bhattacharyya"
CODE_DENSITY, JOINT, TYPICALITY = "code_density", "joint", "typicality"
SCORES = (NEIGHBOURS, LATENT, BHATTACHARYYA, CODE_DENSITY, JOINT, TYPICALITY, *ROW_SCORES)

#: What "auto" is: chosen once, on many tables (docs/novelty.md).
AUTO = NEIGHBOURS


def novelty_scores(
    fitted: FittedAutoencoder,
    score: str,
    X: Matrix,
    batch: ArrayLike | None = None,
    size_factor: ArrayLike | None = None,
    *,
    reference: Reference,
    typical: float = 0.0,
) -> FloatArray:
    """Score rows, (n,); higher is stranger.

    Parameters
    ----------
    fitted : FittedAutoencoder
    score : str
        One of `SCORES`.
    X, batch, size_factor
        As of `FittedAutoencoder.score`.
    reference : Reference
    typical : float
        Mean of "bound" over rows like those of `fit`, for "typicality".
    """
    function = row_score(fitted, score, reference, typical)
    width = jacobian_numbers(fitted.model)
    scores = fitted.map_minibatches(function, X, batch, size_factor, numbers_per_row=width)
    return scores.astype(np.float64)


def row_score(
    fitted: FittedAutoencoder, score: str, reference: Reference, typical: float
) -> Callable[[Minibatch], Tensor]:
    """Return the function of a minibatch that a name stands for."""
    if score == NEIGHBOURS:
        return lambda minibatch: (
            find_nearest(fitted, reference, minibatch).squares.sum(dim=1).sqrt()
        )
    if score == LATENT:
        return partial(latent_distance, fitted, reference)
    if score == BHATTACHARYYA:
        return partial(bhattacharyya, fitted, reference)
    if score == CODE_DENSITY:
        return partial(code_surprise, fitted)
    if score == JOINT:
        return partial(joint_surprise, fitted)
    if score == TYPICALITY:
        bound = partial(row_value, fitted, negative_bound)
        return lambda minibatch: (bound(minibatch) - typical).abs()
    return partial(row_value, fitted, ROW_SCORES[score])


def row_value(
    fitted: FittedAutoencoder,
    function: Callable[[Autoencoder, Minibatch, RowPosterior], Tensor],
    minibatch: Minibatch,
) -> Tensor:
    """Apply one of `ROW_SCORES` to rows and their trained posteriors, (n,)."""
    posterior = RowPosterior(*fitted.trained_posterior(minibatch))
    return function(fitted.model, minibatch, posterior)


def find_nearest(fitted: FittedAutoencoder, reference: Reference, minibatch: Minibatch) -> Nearest:
    """Find the point of the reference nearest to each row."""
    described = describe(fitted, minibatch, reference.residual_weight)
    return reference.nearest(described, minibatch.mask)


def whitened_code(fitted: FittedAutoencoder, minibatch: Minibatch) -> Tensor:
    """Return the principal code of each row in units of its prior, (n, d)."""
    code = code_of(fitted.model, minibatch)
    return (
        code if fitted.axes is None else apply_matrix(code, fitted.axes.whitened.outward_on(code))
    )


def reference_codes(fitted: FittedAutoencoder, reference: Reference, like: Tensor) -> Tensor:
    """Return the whitened codes of the points of the reference, (m, d)."""
    points = reference.points[:, : fitted.n_components]
    codes = points / code_scale(fitted, reference.residual_weight)
    return torch.from_numpy(codes).to(like)


def latent_distance(
    fitted: FittedAutoencoder, reference: Reference, minibatch: Minibatch
) -> Tensor:
    """Return the distance of the whitened code to the nearest of the reference, (n,)."""
    code = whitened_code(fitted, minibatch)
    points = reference_codes(fitted, reference, code)
    return find_point(code, points).squares.sum(dim=1).sqrt()


def bhattacharyya(fitted: FittedAutoencoder, reference: Reference, minibatch: Minibatch) -> Tensor:
    """Return the least Bhattacharyya distance of the posterior to those of the reference, (n,)."""
    assert reference.variances is not None
    code = whitened_code(fitted, minibatch)
    points = reference_codes(fitted, reference, code)
    variances = torch.from_numpy(np.array(reference.variances)).to(code)
    own = code_variances(fitted, minibatch)
    return bhattacharyya_distances(code, own, points, variances).amin(dim=1)


def code_variances(fitted: FittedAutoencoder, minibatch: Minibatch) -> Tensor:
    """Return the posterior variances of whitened codes, (n, d); tiny for points."""
    if minibatch.mask is None:
        spread = encode_with_spread(fitted.model, fitted.objective, minibatch).chunk(2, dim=1)[1]
        factor = fitted.noise.to(spread).factors(spread)
    else:
        _, factor = fitted.trained_posterior(minibatch)
        if fitted.axes is not None:
            matrix = torch.from_numpy(fitted.axes.whitened.outward).to(factor)
            factor = matrix.T @ factor
    return factor.square().sum(dim=2).clamp_min(torch.finfo(factor.dtype).tiny ** 0.5)


def code_surprise(fitted: FittedAutoencoder, minibatch: Minibatch) -> Tensor:
    """Return minus the log-density of the code under the mixture of those of `fit`, (n,), nats."""
    return mixture_surprise_of(fitted, code_of(fitted.model, minibatch))


def mixture_surprise_of(fitted: FittedAutoencoder, code: Tensor) -> Tensor:
    """Return minus the log-density of codes (n, d) under the mixture, (n,), nats."""
    mixture = fitted.mixture.now()
    weights, means, covariances = (
        torch.from_numpy(np.array(part)).to(code.device)
        for part in (mixture.weights, mixture.means, mixture.covariances)
    )
    return mixture_surprise(code, weights, means, torch.linalg.cholesky(covariances))


def joint_surprise(fitted: FittedAutoencoder, minibatch: Minibatch) -> Tensor:
    """Return ``-log p(x | mu) - log q(mu)``, q the mixture of the codes of `fit`, (n,), nats.

    Minus the bound of a point, with the mixture as prior.
    """
    code = code_of(fitted.model, minibatch)
    return mixture_surprise_of(fitted, code) - fitted.model.log_prob(minibatch, code)


def fit_reference(
    fitted: FittedAutoencoder,
    X: Matrix,
    batch: ArrayLike | None,
    size_factor: ArrayLike | None,
    seed: int,
    *,
    needs_variances: bool,
) -> Reference:
    """Compress rows of `fit` to a few hundred points.

    Parameters
    ----------
    fitted : FittedAutoencoder
    X, batch, size_factor
        Some rows of `fit`, as of `FittedAutoencoder.score`.
    seed : int
    needs_variances : bool
        Whether posteriors are compared too.
    """

    def evaluate(minibatch: Minibatch) -> Tensor:
        described = describe(fitted, minibatch, 1.0)
        if not needs_variances:
            return described
        return torch.cat([described, code_variances(fitted, minibatch)], dim=1)

    width = jacobian_numbers(fitted.model)
    rows = fitted.map_minibatches(evaluate, X, batch, size_factor, numbers_per_row=width)
    described, variances = np.split(rows, [fitted.n_components + fitted.n_features], axis=1)
    weight = choose_weight(described, fitted.n_components)
    described[:, fitted.n_components :] *= weight
    described[:, : fitted.n_components] *= code_scale(fitted, weight) / code_scale(fitted, 1.0)
    groups, points = group_rows(np.ascontiguousarray(described), seed)
    if not needs_variances:
        return Reference(points, weight)
    counts = np.bincount(groups, minlength=len(points))[:, None]
    logs = np.zeros((len(points), variances.shape[1]))
    np.add.at(logs, groups, np.log(variances))
    return Reference(points, weight, np.exp(logs / counts).astype(np.float32))


def reference_rows(n_rows: int, n_features: int) -> int:
    """Return how many rows of a table the reference is made of."""
    return max(2, min(n_rows, MOST_ROWS, MOST_NUMBERS // n_features))
