"""Minibatches one after the other, on their way to where they are needed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data.streams import one_ahead


class InTurn(ABC):
    """Rows whose minibatches are read when they are asked for, or by a thread before that."""

    @abstractmethod
    def take(self, indices: NDArray[np.intp]) -> Tensor:
        """Return rows by their indices, on the training device."""

    def in_turn(self, minibatches: Sequence[NDArray[np.intp]]) -> Iterator[Tensor]:
        """Take several minibatches, one after the other.

        For a GPU a thread reads the next meanwhile; a CPU has no core to spare for it.
        """
        if len(minibatches) == 0:
            return
        first = self.take(minibatches[0])
        rest = map(self.take, minibatches[1:])
        yield from chain([first], one_ahead(rest) if first.device.type == "cuda" else rest)


def sent(rows: NDArray[np.float32], device: torch.device) -> Tensor:
    """Rows on `device`; the host does not wait for a GPU to have them."""
    tensor = torch.from_numpy(rows)
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
