"""The record of what one step of training, or of inference, knows about its rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional

from skhebae.distributed import WHOLE, Shard
from skhebae.noise import InputDropout, InputNoise

#: Fields of a `Minibatch` that hold one entry per row.
ROW_FIELDS = ("x", "batch", "log_size", "mask", "weight")


@dataclass(frozen=True, eq=False)
class Minibatch:
    """Rows, with everything that is known about them.

    Attributes
    ----------
    x : Tensor of shape (B, p)
        Standardised rows, float32.
    batch : Tensor of int of shape (B,), optional
        Index of each row's experimental batch.
    log_size : Tensor of shape (B,), optional
        Logarithm of each row's exposure, for counts.
    mask : Tensor of bool of shape (B, p), optional
        True where an entry is observed. None means that all are.
    weight : Tensor of shape (B,), optional
        How many rows each one stands for, in means over rows and in the moments of codes. None
        means 1.
    shard : Shard
        Which rows of the whole minibatch these are.
    generator : torch.Generator, optional
        Source of the noise of codes.
    input_noise : InputNoise, optional
        Noise added to the rows that the encoder sees.
    input_dropout : InputDropout, optional
        Hides further entries from the encoder.
    """

    x: Tensor
    batch: Tensor | None = None
    log_size: Tensor | None = None
    mask: Tensor | None = None
    weight: Tensor | None = None
    shard: Shard = WHOLE
    generator: torch.Generator | None = None
    input_noise: InputNoise | None = None
    input_dropout: InputDropout | None = None

    def __len__(self) -> int:
        return len(self.x)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with other values in some fields."""
        # By hand: dataclasses.replace takes as long as a few operations of a small step.
        return type(self)(**{**self.__dict__, **changes})

    def row_tensors(self) -> dict[str, Tensor]:
        """Return the tensors that hold one entry per row, by field, without absent ones."""
        fields = self.__dict__
        return {name: fields[name] for name in ROW_FIELDS if fields[name] is not None}

    def map_rows(self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to each tensor that holds one entry per row."""
        return self.replace(**{k: function(v) for k, v in self.row_tensors().items()})

    def to(self, device: torch.device) -> Self:
        """Move the rows to a device; return the minibatch itself on a CPU."""
        if device.type == "cpu":
            return self
        return self.map_rows(lambda tensor: tensor.to(device))

    def padded(self, n_rows: int) -> Self:
        """Append zeros until there are `n_rows` rows."""
        short = n_rows - len(self)
        if short == 0:
            return self
        return self.map_rows(lambda t: functional.pad(t, (0,) * (2 * t.ndim - 1) + (short,)))

    def gather(self, rows: Tensor) -> Tensor:
        """Collect values of rows from all processes, with gradients."""
        return self.shard.gather(rows)

    def own(self, rows: Tensor) -> Tensor:
        """Select this process's rows: the inverse of `gather`."""
        return self.shard.own(rows)

    def draw(self, like: Tensor) -> Tensor:
        """Draw standard normal numbers for the rows of all processes, as wide as `like`."""
        return self.shard.draw(like, self.generator)

    def mean(self, values: Tensor) -> Tensor:
        """Average one value per row, (), by weights if rows have any.

        With several processes, see `Shard.mean`.
        """
        if self.weight is None:
            return self.shard.mean(values)
        return self.shard.mean(values * self.weight) * (self.total_rows() / self.total_weight())

    def total_rows(self) -> int:
        """Count the rows of the minibatch in all processes."""
        return self.shard.total_rows(len(self))

    def total_weight(self) -> float:
        """Add up the weights of the rows in all processes: their number, an int, without any."""
        if self.weight is None:
            return self.total_rows()
        if self.shard.total_weight is not None:
            return self.shard.total_weight
        return float(self.shard.total(self.weight.sum()))

    def gathered_weight(self) -> Tensor | None:
        """Return the weights of the rows of all processes, (B,), as `gather` does; or None."""
        return None if self.weight is None else self.gather(self.weight)
