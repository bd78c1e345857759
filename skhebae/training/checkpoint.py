"""Files from which an interrupted fit resumes as if nothing had happened."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skhebae.distributed import SINGLE, Group
from skhebae.exceptions import CheckpointError, CheckpointWarning
from skhebae.files import read_document, write_document

#: Suffix of the checkpoint before the last, for when the last is damaged.
BEFORE = ".before"

#: Training time between two files, as a multiple of the time to write one: safety may cost 5 %.
COST = 20.0

#: Minimum seconds of training between two files within an epoch: what an interruption may cost.
WITHIN_EPOCH = 120.0

#: Since version 2 a file may hold an unfinished epoch.
FORMAT, FORMAT_VERSION = "skhebae checkpoint", 2


class Checkpoint:
    """The file of one fit, and the one before it.

    Parameters
    ----------
    path : path-like
    identity : dict
        What must agree for the file to belong to the same fit, as JSON values.
    group : Group, optional
        Its first process reads and writes, and all call the methods together.

    Attributes
    ----------
    facts : dict
        Added to every state that is written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: dict[str, Any],
        group: Group = SINGLE,
    ) -> None:
        self._path = Path(path)
        self._identity = identity
        self._group = group
        self.facts: dict[str, Any] = {}
        self._next, self._last = 0.0, time.perf_counter()
        if group.rank == 0 and not self._path.parent.is_dir():
            raise FileNotFoundError(
                f"checkpoint={str(path)!r} is in a folder that does not exist. Create "
                f"{str(self._path.parent)!r} first."
            )

    def read(self) -> dict[str, Any] | None:
        """Return the last state that was written completely, or None.

        Raises
        ------
        CheckpointError
            If it belongs to another fit, or was not written by skhebae.

        Warns
        -----
        CheckpointWarning
            If the last file is damaged and the one before it is used.
        """
        return self._group.from_first(self._read)

    def _read(self) -> dict[str, Any] | None:
        before = self._path.with_name(self._path.name + BEFORE)
        damage = None
        for path in (self._path, before):
            if not path.exists():
                continue
            try:
                document = read_document(path)
            except ValueError as error:
                damage = (
                    damage or f"{str(path)!r} is truncated or was not written by skhebae ({error})"
                )
                continue
            state = self._checked(path, document)
            if damage:
                warnings.warn(
                    f"{damage}. Training resumes from the checkpoint before it.",
                    CheckpointWarning,
                    stacklevel=4,
                )
            return state
        if damage:
            raise CheckpointError(
                f"{damage}, and there is no earlier checkpoint to fall back on. Delete it to start "
                "over."
            )
        return None

    def _checked(self, path: Path, document: dict[str, Any] | None) -> dict[str, Any]:
        """Return the state in a document, after checking that it belongs to this fit."""
        if document is None or document.get("format") != FORMAT:
            raise CheckpointError(f"{str(path)!r} is not a checkpoint. Name another file.")
        if document["version"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{str(path)!r} was written by a newer skhebae. Upgrade, or delete it."
            )
        saved = {"processes": 1, **document["identity"]}  # older files name no processes
        if saved != self._identity:
            keys = sorted({*saved, *self._identity})
            differing = [k for k in keys if saved.get(k) != self._identity.get(k)]
            shown = ", ".join(
                f"{k} ({saved.get(k)!r} there, {self._identity.get(k)!r} here)" for k in differing
            )
            raise CheckpointError(
                f"{str(path)!r} belongs to another fit, which differs in {shown}. Delete it to "
                "start over, or name another file."
            )
        state: dict[str, Any] = document["state"]
        return state

    def is_due(self, *, within_epoch: bool = False) -> bool:
        """Whether the last file is old enough for another to cost little."""

        def now_is_late() -> bool:
            now = time.perf_counter()
            return now >= self._next and (not within_epoch or now >= self._last + WITHIN_EPOCH)

        return self._group.from_first(now_is_late)

    def write(self, state: dict[str, Any]) -> None:
        """Write a state."""
        self._group.from_first(lambda: self._write(state))

    def _write(self, state: dict[str, Any]) -> None:
        start = time.perf_counter()
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "identity": self._identity,
            "state": {**state, **self.facts},
        }
        write_document(self._path, document, keep=BEFORE)
        self._last = time.perf_counter()
        self._next = self._last + COST * (self._last - start)


def as_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy tensors from any device into arrays that training does not change."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Invert `as_arrays`, on the CPU."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
