"""Minibatches in order, read ahead where that saves time, and their way to a device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data.minibatch import Minibatch
from skhebae.data.streams import one_ahead


class MinibatchReader(ABC):
    """Reads minibatches when they are asked for, or one ahead in a thread.

    Attributes
    ----------
    weight : ndarray of shape (n_samples,) or None
        How many rows each row stands for; None where each stands for itself.
    """

    weight: NDArray[np.float64] | None = None

    @abstractmethod
    def take(self, indices: NDArray[np.intp]) -> Minibatch:
        """Return rows by their indices, on the training device."""

    def in_turn(self, minibatches: Sequence[NDArray[np.intp]]) -> Iterator[Minibatch]:
        """Take several minibatches in order.

        For a GPU a thread reads the next one meanwhile. A CPU has no core to spare for that.
        """
        if len(minibatches) == 0:
            return
        first = self.take(minibatches[0])
        rest = map(self.take, minibatches[1:])
        yield from chain([first], one_ahead(rest) if first.x.device.type == "cuda" else rest)


def send(minibatch: Minibatch, device: torch.device) -> Minibatch:
    """Move a minibatch to `device`; the host does not wait for a GPU to receive it."""
    if device.type == "cpu":
        return minibatch

    def moved(tensor: Tensor) -> Tensor:
        if device.type != "cuda":
            return tensor.to(device)
        return tensor.pin_memory().to(device, non_blocking=True)

    return minibatch.map_rows(moved)
