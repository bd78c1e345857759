"""What the encoder sees in place of missing entries, measured before or after training."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from skhebae.data import Rows, take_chunks
from skhebae.fitted.geometry import CodeRegression
from skhebae.linear_fill import TINY, Factors, LinearFill, fit_factors, start_factors
from skhebae.training import Run

#: Factors, and products in one step of expectation maximisation.
MOST_FACTORS, PRODUCTS = 20, 2**28

#: Rows per chunk while they are collected.
CHUNK_ROWS = 1024


def fit_fill(run: Run, rows: Rows, indices: NDArray[np.intp]) -> LinearFill:
    """Fit factor analysis to what the encoder sees of rows with missing entries.

    With more factors than most tables need, as those that rows do not show vanish. On rows spread
    evenly over those of all processes, each of which ends with the same.

    Parameters
    ----------
    run : Run
        With an untrained model.
    rows : Rows
        Of this process.
    indices : ndarray of int
        Of the rows to learn from.
    """
    model, group = run.model, run.group
    n_factors = min(MOST_FACTORS, model.n_features)
    wanted = max(1, PRODUCTS // (model.n_features * n_factors**2 * group.size))
    width = 2 * model.n_features + 1
    parts = [np.empty((0, width), dtype=np.float32)]
    with group.agreement(), torch.no_grad():  # where a process cannot read its rows
        chosen = rows.ordered(indices[:: max(1, -(-len(indices) // wanted))])
        for _, minibatch in take_chunks(rows, chosen, CHUNK_ROWS):
            seen, weight = minibatch.mask, minibatch.weight
            assert seen is not None
            inputs = model.encoder_input(minibatch)
            counts = torch.ones_like(inputs[:, 0]) if weight is None else weight
            own = torch.cat([inputs, seen.to(inputs), counts[:, None].to(inputs)], dim=1)
            parts.append(own.cpu().numpy())
    together = np.concatenate(group.gather(np.concatenate(parts))).astype(np.float64)
    p = model.n_features
    x, mask, weights = (
        torch.from_numpy(together[:, columns]) for columns in (slice(p), slice(p, 2 * p), 2 * p)
    )

    def fit() -> Factors:
        return fit_factors(x, mask, start_factors(x, mask, n_factors), weights)

    # Machines may round differently.
    return LinearFill(group.from_first(fit)).to(model.device)


def regressed_fill(regression: CodeRegression) -> LinearFill:
    """Make the fill of a model that was trained on complete rows, from its codes of them.

    Codes and what the encoder sees count as jointly Gaussian, features as independent given codes.
    """
    values, vectors = np.linalg.eigh(np.nan_to_num(regression.covariance))
    # The symmetric root, which does not depend on how equal eigenvalues are told apart.
    root = (vectors * np.sqrt(values.clip(min=0.0))) @ vectors.T
    loadings = regression.slope(noised=False).T @ root
    noise = regression.variances - np.square(loadings).sum(axis=1)
    least = max(1e-3 * float(regression.variances.mean()), TINY)
    parts = (regression.inputs_mean, loadings, noise.clip(min=least))
    return LinearFill(Factors(*(torch.from_numpy(np.nan_to_num(part)) for part in parts)))
