"""Saving an epoch before its end, and going on in it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from skhebae.engine.checkpoint import Checkpoint, as_arrays, as_tensors
from skhebae.engine.parallel import of_all_ranks, of_rank
from skhebae.noise import NoisePool
from skhebae.processes import ALONE, Processes

#: Minibatches after which several processes ask the first whether it is time to save.
ASK_STEPS = 64


class UnfinishedEpoch:
    """What an epoch depends on beside the state of its trainer.

    The order of its rows follows from the generator's state before they were shuffled,
    the pool of noise from the generator's state before that was drawn.

    Parameters
    ----------
    checkpoint : Checkpoint
    state : callable
        Gives the state of training, to which that of the epoch is added.
    saved : dict or None
        The state of this epoch when it was interrupted, if it was.
    processes : Processes, optional
        Those of the fit; each has an order, a pool and loss terms of its own.

    Attributes
    ----------
    terms : list of Tensor
        Loss terms of the minibatches that are done.
    start : float
        Time when the epoch began; later by as much as an interruption took.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        state: Callable[[], dict[str, Any]],
        saved: dict[str, Any] | None,
        processes: Processes = ALONE,
    ) -> None:
        saved = None if saved is None else of_rank(processes, saved)
        self._checkpoint, self._state, self._saved = checkpoint, state, saved
        self._processes = processes
        self.start = time.perf_counter() - (0.0 if saved is None else saved["seconds"])
        self.terms: list[Tensor] = []

    def begin(self, order: torch.Generator, pool: NoisePool | None, device: torch.device) -> None:
        """Go back to the saved state, before the rows are shuffled."""
        if self._saved is not None:
            tensors = as_tensors(self._saved["tensors"])
            order.set_state(tensors["order"])
            if pool is not None:
                pool.restore(tensors, self._saved["left"])
            self.terms = list(tensors["terms"].to(device))
        self._order, self._pool = order.get_state(), pool

    def save(self, n_done: int) -> None:
        """Write the state if it is time to, after so many minibatches, but not the last."""
        if self._processes.size > 1 and n_done % ASK_STEPS > 0:
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
        unfinished = of_all_ranks(self._processes, saved)
        self._checkpoint.write({**self._state(), "unfinished": unfinished})
