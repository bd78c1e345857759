"""What one process has of a minibatch, and what it needs of the others' part."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, distributed
from torch.nn import functional


class Part(ABC):
    """What one process has of a minibatch."""

    @abstractmethod
    def n_rows(self, own: int) -> int:
        """Rows of the minibatch in all processes, `own` being in this one."""

    @abstractmethod
    def gather(self, rows: Tensor) -> Tensor:
        """Rows (B, ...) of all processes for those of this one, gradients included."""

    @abstractmethod
    def own(self, rows: Tensor) -> Tensor:
        """Invert `gather`: what of the rows of all processes is this one's."""

    @abstractmethod
    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw standard normal numbers for the rows of all processes, as wide as `like`."""

    @abstractmethod
    def mean(self, values: Tensor) -> Tensor:
        """Of one value a row, (): a number whose mean over processes is the mean over rows."""

    @abstractmethod
    def average(self, value: Tensor) -> Tensor:
        """Average what processes measured on their rows, in proportion to the rows."""


class Whole(Part):
    """All of the minibatch, of the only process."""

    def n_rows(self, own: int) -> int:
        """Return them."""
        return own

    def gather(self, rows: Tensor) -> Tensor:
        """Return them."""
        return rows

    def own(self, rows: Tensor) -> Tensor:
        """Return them."""
        return rows

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from `generator`."""
        return torch.randn(like.shape, generator=generator, device=like.device)

    def mean(self, values: Tensor) -> Tensor:
        """Mean over rows, ()."""
        return values.mean()

    def average(self, value: Tensor) -> Tensor:
        """Return it."""
        return value


WHOLE = Whole()


class Share(Part):
    """The rows that a process of several has; those of rank 0 come first.

    Sizes are known beforehand from the rows of each process, so that no step has to
    ask for them, nor wait for a GPU to answer.

    Parameters
    ----------
    sizes : sequence of int
        Rows of each process; 0 is one.
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

    def n_rows(self, own: int) -> int:
        """Count those of all processes."""
        return self._total

    def gather(self, rows: Tensor) -> Tensor:
        """Gather them, by `GatherRows`."""
        result: Tensor = GatherRows.apply(rows, self._sizes, self._slice)  # type: ignore[no-untyped-call]
        return result

    def own(self, rows: Tensor) -> Tensor:
        """Return the slice of this process."""
        return rows[self._slice]

    def draw(self, like: Tensor, generator: torch.Generator) -> Tensor:
        """Draw from the generator that all processes have alike, not from their own.

        So that the noise of a minibatch does not depend on how many share it.
        """
        shape = (self._total, *like.shape[1:])
        return torch.randn(shape, generator=self._generator, device=like.device)

    def mean(self, values: Tensor) -> Tensor:
        """Sum over the rows of this process, by the mean number of rows in a process, ()."""
        return values.sum() * (len(self._sizes) / self._total)

    def average(self, value: Tensor) -> Tensor:
        """Sum of the values, each times its share in the rows."""
        result = value * (self._sizes[self._rank] / self._total)
        distributed.all_reduce(result)
        return result


class GatherRows(torch.autograd.Function):
    """Rows of all processes from those of each, with gradients.

    Each process has its own loss of the gathered rows, and what its own rows contribute
    to the losses of the others comes back by a sum over processes. The mean of the
    gradients over processes, as DistributedDataParallel takes it, is then that of the
    mean of the losses. Were the rows of others constants, a loss that all processes
    share would have that gradient divided by their number.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, sizes: tuple[int, ...], own: slice) -> Tensor:
        """Concatenate them; all are sent as long as the longest."""
        ctx.own = own
        short = max(sizes) - len(rows)
        padded = functional.pad(rows, (0,) * (2 * rows.ndim - 1) + (short,)).contiguous()
        parts = [torch.empty_like(padded) for _ in sizes]
        distributed.all_gather(parts, padded)
        return torch.cat([part[:n] for part, n in zip(parts, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Sum over processes, and take the slice of this one."""
        total = gradients[0].clone(memory_format=torch.contiguous_format)
        distributed.all_reduce(total)
        return total[ctx.own], None, None
