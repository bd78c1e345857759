"""The rows of a minibatch that one process holds, and access to those of the others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import torch
from torch import Tensor, distributed
from torch.nn import functional


class Shard(ABC):
    """The part of a minibatch that one process holds.

    Attributes
    ----------
    total_weight : float or None
        Summed weights of the rows of the minibatch in all processes, where they were added up
        beforehand, so that no step has to wait for a GPU to answer.
    """

    total_weight: float | None = None

    def weighing(self, total_weight: float) -> Self:
        """Return a copy that knows the summed weights of the minibatch in all processes."""
        result = copy(self)
        result.total_weight = total_weight
        return result

    @abstractmethod
    def total_rows(self, n_own: int) -> int:
        """Count the rows of the minibatch in all processes; this one has `n_own`."""

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """Collect the rows (B, ...) of all processes; gradients flow back to each."""

    @abstractmethod
    def own(self, rows: Tensor) -> Tensor:
        """Select this process's rows from gathered ones: the inverse of `gather`."""

    @abstractmethod
    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw standard normal numbers for the rows of all processes, as wide as `like`."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """Reduce one value per row to a scalar whose average over processes is the mean, ()."""

    @abstractmethod
    def average(self, value: Tensor) -> Tensor:
        """Average what each process measured on its rows, weighted by their number."""

    @abstractmethod
    def total(self, value: Tensor) -> Tensor:
        """Add up what each process measured on its rows."""


class WholeMinibatch(Shard):
    """All rows of a minibatch, in a single process."""

    def total_rows(self, n_own: int) -> int:
        """Return `n_own`."""
        return n_own

    def gather(self, rows: Tensor) -> Tensor:
        """Return `rows`."""
        return rows

    def own(self, rows: Tensor) -> Tensor:
        """Return `rows`."""
        return rows

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw from `generator`."""
        return torch.randn(like.shape, generator=generator, dtype=like.dtype, device=like.device)

    def mean(self, values: Tensor) -> Tensor:
        """Average over rows, ()."""
        return values.mean()

    def average(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value

    def total(self, value: Tensor) -> Tensor:
        """Return `value`."""
        return value


WHOLE = WholeMinibatch()


class GroupShard(Shard):
    """The rows that one of several processes holds; those of rank 0 come first.

    The sizes follow from the number of rows in each process, so no step has to ask for them or
    wait for a GPU to answer.

    Parameters
    ----------
    sizes : sequence of int
        Rows per process, 0 included.
    rank : int
    generator : torch.Generator
        In the same state in all processes.
    """

    def __init__(self, sizes: Sequence[int], rank: int, generator: torch.Generator) -> None:
        self._sizes = tuple(sizes)
        self._rank = rank
        self._generator = generator
        self._total = sum(sizes)
        start = sum(sizes[:rank])
        self._slice = slice(start, start + sizes[rank])

    def total_rows(self, n_own: int) -> int:
        """Count the rows of all processes."""
        return self._total

    def gather(self, rows: Tensor) -> Tensor:
        """Collect the rows of all processes by `GatherRows`."""
        result: Tensor = GatherRows.apply(rows, self._sizes, self._slice)  # type: ignore[no-untyped-call]
        return result

    def own(self, rows: Tensor) -> Tensor:
        """Return the slice of this process."""
        return rows[self._slice]

    def draw(self, like: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw from the generator whose state all processes share, not from their own.

        The noise of a minibatch then does not depend on how many processes share it.
        """
        shape = (self._total, *like.shape[1:])
        return torch.randn(shape, generator=self._generator, dtype=like.dtype, device=like.device)

    def mean(self, values: Tensor) -> Tensor:
        """Divide the sum over this process's rows by the mean number of rows per process, ()."""
        return values.sum() * (len(self._sizes) / self._total)

    def average(self, value: Tensor) -> Tensor:
        """Sum the values of all processes, each times its share of the rows."""
        result = value * (self._sizes[self._rank] / self._total)
        distributed.all_reduce(result)
        return result

    def total(self, value: Tensor) -> Tensor:
        """Sum the values of all processes."""
        result = value.clone()
        distributed.all_reduce(result)
        return result


class GatherRows(torch.autograd.Function):
    """Gather the rows of all processes, with gradients.

    Each process has its own loss of the gathered rows. The contribution of its rows to the
    losses of the others comes back as a sum over processes. The mean of the gradients over
    processes, which DistributedDataParallel takes, is then the gradient of the mean loss. If the
    rows of other processes were constants, the gradient of a loss that all processes share would
    be too small by a factor of their number.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...], own: slice) -> Tensor:
        """Concatenate the rows; each process sends as many as the longest shard has."""
        ctx.own = own
        short = max(sizes) - len(rows)
        padded = functional.pad(rows, (0,) * (2 * rows.ndim - 1) + (short,)).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Sum over processes and return this process's slice."""
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.own], None, None
