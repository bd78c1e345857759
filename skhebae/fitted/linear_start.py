"""The start of training: networks whose linear path is principal component analysis."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor

from skhebae.data import (
    Minibatch,
    Rows,
    Scaling,
    SideInformation,
    Table,
    counted_rows,
    open_rows,
    take_chunks,
)
from skhebae.distributed import Group
from skhebae.likelihoods import Likelihood
from skhebae.networks import Decoder, Encoder, decoder_path
from skhebae.training import Run

#: Numbers in the rows that components are computed from, at most, in all processes.
START_NUMBERS = 2**24

#: Bytes per number while components are computed, which takes copies.
COPY_BYTES = 16

#: Rows per chunk while they are collected, and a sparse table is made dense.
CHUNK_ROWS = 1024

#: A component whose deviation is smaller than this share of the first one's counts as none.
SMALLEST_DEVIATION, TINY = 1e-3, 1e-30

#: Length of the encoder's weights for a component that the rows do not have.
SMALL_WEIGHT = 1e-2


class PrincipalComponents(NamedTuple):
    """Principal components of what the encoder sees.

    Attributes
    ----------
    mean : ndarray of shape (p,), float64
    directions : ndarray of shape (k, p), float64
        Orthonormal rows, by decreasing deviation; k is at most the rank.
    deviations : ndarray of shape (k,), float64
        Standard deviation of the rows along each.
    residual : float
        Mean variance of a feature that they leave.
    """

    mean: NDArray[np.float64]
    directions: NDArray[np.float64]
    deviations: NDArray[np.float64]
    residual: float


def collect_inputs(
    encoder_input: Callable[[Minibatch], Tensor],
    rows: Rows,
    indices: NDArray[np.intp],
    n_features: int,
    group: Group,
) -> NDArray[np.float32]:
    """Return what the encoder sees of rows, or of rows spread evenly over them, (m, p).

    In several processes, or where rows have weights, of rows with the mean and the scatter of
    those of all.
    """
    n_numbers = min(START_NUMBERS, rows.kept_bytes // COPY_BYTES)
    wanted = max(1, n_numbers // (n_features * group.size))
    chosen = rows.ordered(indices[:: max(1, -(-len(indices) // wanted))])
    inputs = np.empty((len(chosen), n_features), dtype=np.float32)
    done = 0
    with torch.no_grad():
        for chunk, minibatch in take_chunks(rows, chosen, CHUNK_ROWS):
            inputs[done : done + len(chunk)] = encoder_input(minibatch).cpu().numpy()
            done += len(chunk)
    return merge_inputs(inputs, group, None if rows.weight is None else rows.weight[chosen])


def merge_inputs(
    own: NDArray[np.float32], group: Group, weight: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Return rows with the mean and the scatter of the rows of all processes, (m, p).

    Each process sends at most p + 1 rows: the triangle of the QR decomposition of its centred rows
    has their scatter, and is shifted to have their mean. Where rows have weights (n,), in all
    processes, both are weighted.
    """
    if group.size == 1 and weight is None:
        return own
    parts = [part for part in group.gather(compress(own, weight)) if part[0] > 0]
    counts = np.array([n for n, _, _ in parts], dtype=np.float64)
    means = np.stack([mean for _, mean, _ in parts])
    mean = counts @ means / counts.sum()
    between = np.sqrt(counts)[:, None] * (means - mean)
    scatter = np.concatenate([between, *(triangle for _, _, triangle in parts)])
    # Rows and their mirror images have mean 0, and twice their scatter.
    rows = np.concatenate([scatter, -scatter]) / 2.0**0.5
    # As many as there were, for a variance with the divisor n - 1.
    rows *= ((len(rows) - 1.0) / max(1.0, counts.sum() - 1.0)) ** 0.5
    shifted: NDArray[np.float32] = (mean + rows).astype(np.float32)
    return shifted


def compress(
    inputs: NDArray[np.float32], weight: NDArray[np.float64] | None = None
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Return the number of rows, or their weight; their mean (p,); a matrix with their scatter."""
    n_rows, p = inputs.shape
    if n_rows == 0:
        return 0, np.zeros(p), np.zeros((0, p))
    if weight is None:
        total: float = n_rows
        mean: NDArray[np.float64] = inputs.mean(axis=0, dtype=np.float64)
        scatter: NDArray[np.float64] = inputs - mean
    else:
        total = float(weight.sum())
        mean = weight @ inputs / total
        scatter = np.sqrt(weight)[:, None] * (inputs - mean)
    if n_rows > p:
        scatter = np.asarray(np.linalg.qr(scatter, mode="r"))
    return total, mean, scatter


def principal_components(
    inputs: NDArray[np.float32], n_components: int, seed: int
) -> PrincipalComponents:
    """Compute the leading principal components of rows (m, p)."""
    if len(inputs) < 2 or (inputs == inputs[0]).all():
        none = np.empty((0, inputs.shape[1]))
        return PrincipalComponents(inputs[0].astype(np.float64), none, np.empty(0), 0.0)
    k = min(n_components, *inputs.shape)
    pca = PCA(k, random_state=seed).fit(inputs)
    variances = np.asarray(pca.explained_variance_, dtype=np.float64)
    deviations = np.sqrt(variances.clip(min=0.0))
    found = deviations > SMALLEST_DEVIATION * max(deviations.max(initial=0.0), TINY)
    return PrincipalComponents(
        np.asarray(pca.mean_, dtype=np.float64),
        np.asarray(pca.components_, dtype=np.float64)[found],
        deviations[found],
        (float(inputs.var(axis=0, dtype=np.float64, ddof=1).sum()) - variances[found].sum())
        / inputs.shape[1],
    )


def count_components(
    likelihood_class: type[Likelihood], scaling: Scaling, table: Table, share: float
) -> int:
    """Return how many components explain a `share` of the variance of what the encoder sees.

    As scikit-learn's PCA does, the fewest whose share is larger.
    """
    likelihood = likelihood_class.from_scaling(scaling)
    n_features = len(scaling.location)
    varies = torch.ones(n_features, dtype=torch.float32, device="cpu")
    varies[torch.from_numpy(np.array(scaling.constant))] = 0.0

    def encoder_input(minibatch: Minibatch) -> Tensor:
        x, seen = minibatch.x * varies, minibatch.mask
        if seen is None:
            return likelihood.encoder_input(x) * varies
        x = likelihood.encoder_input(likelihood.with_usual_values(x, seen))
        return x.where(seen, 0.0) * varies

    inputs = collect_inputs(
        encoder_input,
        open_rows(table.X, scaling, torch.device("cpu"), SideInformation(weight=table.weight)),
        table.counted,
        n_features,
        table.group,
    )
    if (inputs == inputs[0]).all():
        return 1
    count: int = table.group.from_first(lambda: int(PCA(share).fit(inputs).n_components_))
    return count


def start_linear(run: Run, rows: Rows, seed: int, indices: NDArray[np.intp] | None = None) -> None:
    """Let a model start as principal component analysis of what the encoder sees.

    Encoder ``mu(x) = W (x - m)`` and decoder ``V z`` with ``W = diag(1 / s) P^T`` and ``V = P
    diag(s)``: m the mean of the rows, the columns of P the leading principal directions and s
    the standard deviations along them. Codes beyond the rank of the rows start small and random,
    and are not decoded yet.

    Parameters
    ----------
    run : Run
        Its built-in networks are changed in place, the same in all processes.
    rows : Rows
        Of this process.
    seed : int
    indices : ndarray of int, optional
        Of the rows to look at; by default all.
    """
    model, group = run.model, run.group
    encoder, path = model.encoder, decoder_path(model.decoder)
    assert isinstance(encoder, Encoder)
    assert path is not None
    d, p = model.n_components, model.n_features
    chosen = counted_rows(rows) if indices is None else indices
    with group.agreement():  # where a process cannot read its rows
        # Components of expected values would lack what is unknown about them.
        generator = torch.Generator(model.device).manual_seed(seed)
        inputs = collect_inputs(
            lambda minibatch: model.encoder_input(minibatch, generator), rows, chosen, p, group
        )
    # Machines may round differently.
    found = group.from_first(lambda: principal_components(inputs, d, seed))
    if model.varies is not None:
        # Rounding must not move what is constant.
        found.directions[:, model.varies.cpu().numpy() == 0.0] = 0.0
    rest = np.random.RandomState(seed).standard_normal((d - len(found.deviations), p))
    # Codes that had to grow to the size of the prior's draws would all go the same way.
    deviations = found.deviations / model.prior.deviation
    encode = found.directions / deviations[:, None]
    decode = found.directions.T * deviations
    weight = np.concatenate([encode, SMALL_WEIGHT * rest / p**0.5])
    start, mean, loadings = (
        torch.from_numpy(array.astype(np.float32)).to(model.device)
        for array in (weight, found.mean, np.pad(decode, ((0, 0), (0, len(rest)))))
    )
    encoder.start_linear(start, mean)
    with torch.no_grad():
        path.weight.zero_()
        path.weight[:, :d] = model.likelihood.linear_loadings(loadings)
    if isinstance(model.decoder, Decoder):
        model.decoder.stay_linear()
        model.decoder.start_bias(model.likelihood.initial_bias())
    if run.objective.row_weight > 0.0:
        # Noise of codes that is paid for depends on that of features from the first step.
        model.likelihood.start_residual(found.residual)
