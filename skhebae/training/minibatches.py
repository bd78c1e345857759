"""Splitting an epoch into minibatches, over one process or several."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from skhebae.distributed import Group, Shard


class EpochPlan(NamedTuple):
    """The minibatches of an epoch, in order.

    Attributes
    ----------
    indices : list of ndarray of int
        This process's rows of each minibatch.
    shards : list of Shard
    sizes : list of float
        Rows of each minibatch in all processes, or their summed weights.
    """

    indices: list[NDArray[np.intp]]
    shards: list[Shard]
    sizes: list[float]


def count_minibatches(n_rows: int, batch_size: int, group: Group) -> int:
    """Return the minibatches of an epoch in which this process has `n_rows` rows."""
    return max(1, sum(group.gather(n_rows)) // (group.size * batch_size))


def plan_epoch(
    order: NDArray[np.intp],
    batch_size: int,
    group: Group,
    generator: torch.Generator,
    weight: NDArray[np.float64] | None = None,
) -> EpochPlan:
    """Split rows into minibatches of at least `batch_size` rows per process.

    The remainder is spread over all, so that no minibatch is small (a single row has no
    covariance), and every process holds its share of each. Fewer rows make one minibatch.

    Parameters
    ----------
    order : ndarray of int
        Rows of this process.
    batch_size : int
    group : Group
    generator : torch.Generator
        For the noise of whole minibatches, in the same state in all processes.
    weight : ndarray of shape (n_samples,), optional
        Weights of the rows of this process; given in all processes or in none.
    """
    counts = group.gather(len(order))
    n_minibatches = max(1, sum(counts) // (group.size * batch_size))
    shards = group.shards(counts, n_minibatches, generator)
    indices = np.array_split(order, n_minibatches)
    if weight is None:
        rows = [shard.total_rows(len(own)) for shard, own in zip(shards, indices, strict=True)]
        return EpochPlan(indices, shards, list(rows))
    parts = group.gather([float(weight[own].sum()) for own in indices])
    sizes = [sum(together) for together in zip(*parts, strict=True)]
    shards = [shard.weighing(size) for shard, size in zip(shards, sizes, strict=True)]
    return EpochPlan(indices, shards, sizes)


def average_over_processes(group: Group, means: dict[str, float]) -> dict[str, float]:
    """Average each number over processes."""
    together = group.gather(list(means.values()))
    return dict(zip(means, np.mean(together, axis=0).tolist(), strict=True))
