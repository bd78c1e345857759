"""Saving an epoch before its end, and resuming it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skhebae.distributed import SINGLE, Group
from skhebae.noise import InputNoise, NoisePool
from skhebae.training.checkpoint import Checkpoint, as_arrays, as_tensors
from skhebae.training.run import collect_by_rank, select_own

#: Minibatches after which several processes ask the first whether it is time to save.
ASK_STEPS = 64


class UnfinishedEpoch:
    """State of an epoch in addition to that of its run.

    The order of its rows follows from the generator's state before they were shuffled, and the
    pool of noise from the generator's state before it was drawn.

    Parameters
    ----------
    checkpoint : Checkpoint
    state : callable
        Returns the state of training, to which that of the epoch is added.
    saved : dict or None
        The state of this epoch when it was interrupted, if it was.
    group : Group, optional
        Each process has an order, a pool and loss terms of its own.

    Attributes
    ----------
    terms : list of Tensor
        Loss terms of the minibatches that are done.
    start : float
        Time when the epoch began, without the time of the interruption.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        state: Callable[[], dict[str, Any]],
        saved: dict[str, Any] | None,
        group: Group = SINGLE,
    ) -> None:
        saved = None if saved is None else select_own(group, saved)
        self._checkpoint, self._state, self._saved = checkpoint, state, saved
        self._group = group
        self.start = time.perf_counter() - (0.0 if saved is None else saved["seconds"])
        self.terms: list[Tensor] = []

    def begin(self, order: torch.Generator, noise: InputNoise | None, device: torch.device) -> None:
        """Go back to the saved state, before the rows are shuffled."""
        source = None if noise is None else noise.source
        self._pool = source if isinstance(source, NoisePool) else None
        if self._saved is not None:
            tensors = as_tensors(self._saved["tensors"])
            order.set_state(tensors["order"])
            if self._pool is not None:
                self._pool.restore(tensors, self._saved["left"])
            self.terms = list(tensors["terms"].to(device))
        self._order = order.get_state()

    def save(self, n_done: int) -> None:
        """Write the state after `n_done` minibatches, if it is time to."""
        if self._group.size > 1 and n_done % ASK_STEPS > 0:
            return
        if not self._checkpoint.is_due(within_epoch=True):
            return
        tensors = {"order": self._order, "terms": torch.stack(self.terms)}
        left = 0
        if self._pool is not None:
            drawn, left = self._pool.state()
            tensors |= drawn
        seconds = time.perf_counter() - self.start
        saved = {"tensors": as_arrays(tensors), "left": left, "seconds": seconds}
        unfinished = collect_by_rank(self._group, saved)
        self._checkpoint.write({**self._state(), "unfinished": unfinished})
