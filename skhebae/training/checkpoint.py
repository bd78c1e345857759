"""Files from which an interrupted fit resumes as if nothing had happened."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skhebae.distributed import SINGLE, Group
from skhebae.exceptions import CheckpointError, CheckpointWarning
from skhebae.files import (
    check_integer,
    file_kind,
    read_document,
    remove_leftovers,
    write_document,
)

#: Suffix of the checkpoint before the last, for when the last is damaged.
BEFORE = ".before"

#: Training time between two files, as a multiple of the time to write one: safety may cost 5 %.
COST = 20.0

#: Minimum seconds of training between two files within an epoch: what an interruption may cost.
WITHIN_EPOCH = 120.0

#: Since version 2 a file may hold an unfinished epoch; since version 3 it has a digest, and its
#: identity covers all rows, labels, size factors and earlier weights.
FORMAT, FORMAT_VERSION = "skhebae checkpoint", 3

#: What the trial of a linear path may have found: `skhebae.fitted.gate.Verdict`.
N_VERDICTS = 3

#: Characters of a value that an error message shows.
SHOWN_VALUE = 80

State = dict[str, Any]


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

    Raises
    ------
    FileNotFoundError
        If the folder of `path` does not exist.
    CheckpointError
        If `path`, or where the file before it would be, is a folder, a FIFO or a device.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        identity: dict[str, Any],
        group: Group = SINGLE,
    ) -> None:
        self._path = Path(path)
        # A link is written through, so the file before is beside what it points to.
        self._before = Path(os.path.realpath(path) + BEFORE)
        self._identity = identity
        self._group = group
        self.facts: dict[str, Any] = {}
        self._next, self._last = 0.0, time.perf_counter()
        self._damage: str | None = None
        self._failed = False
        if group.rank == 0:
            self._prepare()

    def _prepare(self) -> None:
        """Check that there may be files at the paths, and remove those of killed writers."""
        if not self._path.parent.is_dir():
            raise FileNotFoundError(
                f"checkpoint={str(self._path)!r} is in a folder that does not exist. Create "
                f"{str(self._path.parent)!r} first."
            )
        for path in (self._path, self._before):
            kind = file_kind(path)
            if kind is not None:
                raise CheckpointError(f"checkpoint={str(path)!r} is {kind}. Name a file.")
            remove_leftovers(path)

    def read(self) -> State | None:
        """Return the last state that is intact, or None; `confirm` it before it is used.

        Raises
        ------
        CheckpointError
            If it belongs to another fit, or was not written by skhebae.
        """
        state, self._damage = self._group.from_first(self._read)
        return state

    def _read(self) -> tuple[State | None, str | None]:
        """Return the last state that is intact, and what is wrong with one after it."""
        if not self._path.exists():
            return (self._read_before(None) if self._before.exists() else None), None
        try:
            return self._state_in(self._path), None
        except CheckpointError:
            raise
        except Exception as error:  # whatever comes of a document that is not what it should be
            damage = f"{str(self._path)!r} is damaged or was not written by skhebae"
            damage = f"{damage} ({describe_damage(error)})"
            return self._read_before(damage), damage

    def confirm(self, state: State, check: Callable[[State], None]) -> State:
        """Return a state that was read if it suits the fit, else that of the file before.

        Parameters
        ----------
        state : dict
        check : callable
            Raises a ValueError that says what is wrong with a state.

        Raises
        ------
        CheckpointError
            If neither suits.

        Warns
        -----
        CheckpointWarning
            If the last file is damaged and the one before it is used.
        """
        problem = self._problem(state, check)
        if problem is not None:
            if self._damage is not None:
                raise no_way_back(self._damage)
            damage = f"{str(self._path)!r} holds a state that is damaged ({problem})"
            other = self._group.from_first(lambda: self._read_before(damage))
            if other["seed"] != state["seed"] or self._problem(other, check) is not None:
                raise no_way_back(damage)
            state, self._damage = other, damage
        if self._damage is not None and self._group.rank == 0:
            warnings.warn(
                f"{self._damage}. Training resumes from the checkpoint before it.",
                CheckpointWarning,
                stacklevel=4,
            )
        return state

    def _problem(self, state: State, check: Callable[[State], None]) -> str | None:
        """Return the first problem that any process has with a state."""
        problem = None
        try:
            check(state)
        except Exception as error:  # as above
            problem = describe_damage(error)
        return next((text for text in self._group.gather(problem) if text is not None), None)

    def _read_before(self, damage: str | None) -> State:
        """Return the state in the file before the last."""
        if not self._before.exists():
            raise no_way_back(damage)
        try:
            return self._state_in(self._before)
        except CheckpointError:
            raise
        except Exception as error:  # as above
            own = f"{str(self._before)!r} is damaged ({describe_damage(error)})"
            raise no_way_back(damage or own) from error

    def _state_in(self, path: Path) -> State:
        """Return the state in a file, after checking that it belongs to this fit.

        Raises
        ------
        ValueError
            If the file is damaged.
        CheckpointError
            If it is another fit's, or not a checkpoint.
        """
        document = read_document(path)
        if document is None or document.get("format") != FORMAT:
            raise CheckpointError(f"{str(path)!r} is not a checkpoint. Name another file.")
        version = document["version"]
        check_integer(version, "its version", 1)
        if version != FORMAT_VERSION:
            other = "a newer" if version > FORMAT_VERSION else "an older"
            raise CheckpointError(
                f"{str(path)!r} was written by {other} skhebae. Use that, or delete the file to "
                "start over."
            )
        identity, state = document.get("identity"), document.get("state")
        if "digest" not in document:
            raise ValueError("it has lost its digest")
        if not isinstance(identity, dict) or not isinstance(state, dict):
            raise ValueError("it has no state of a fit")
        self._check_identity(path, identity)
        check_integer(state.get("seed"), "its seed", 0, 2**31)
        # Of the trial of a linear path, where there was one.
        check_integer(state.get("verdict", 0), "its verdict", 0, N_VERDICTS)
        return state

    def _check_identity(self, path: Path, saved: dict[str, Any]) -> None:
        """Raise unless a file belongs to this fit."""
        if saved == self._identity:
            return
        keys = sorted({*saved, *self._identity})
        differing = [k for k in keys if saved.get(k) != self._identity.get(k)]
        shown = ", ".join(
            f"{k:.80} ({saved.get(k)!r:.{SHOWN_VALUE}} there, "
            f"{self._identity.get(k)!r:.{SHOWN_VALUE}} here)"
            for k in differing
        )
        raise CheckpointError(
            f"{str(path)!r} belongs to another fit, which differs in {shown}. Delete it to "
            "start over, or name another file."
        )

    def is_due(self, *, within_epoch: bool = False) -> bool:
        """Whether the last file is old enough for another to cost little."""

        def now_is_late() -> bool:
            now = time.perf_counter()
            return now >= self._next and (not within_epoch or now >= self._last + WITHIN_EPOCH)

        return self._group.from_first(now_is_late)

    def write(self, state: State) -> None:
        """Write a state.

        Warns
        -----
        CheckpointWarning
            The first time that it cannot be written; training goes on.
        """
        self._group.from_first(lambda: self._write(state))

    def _write(self, state: State) -> None:
        start = time.perf_counter()
        document = {
            "format": FORMAT,
            "version": FORMAT_VERSION,
            "identity": self._identity,
            "state": {**state, **self.facts},
        }
        try:
            # A damaged file does not take the place of the one that the fit resumed from.
            write_document(self._path, document, keep=None if self._damage else BEFORE)
            self._damage = None
        except OSError as error:
            if not self._failed:
                warnings.warn(
                    f"checkpoint={str(self._path)!r} cannot be written ({error}). Training goes "
                    "on, and tries again later.",
                    CheckpointWarning,
                    stacklevel=4,
                )
            self._failed = True
        self._last = time.perf_counter()
        self._next = self._last + COST * (self._last - start)


def describe_damage(error: Exception) -> str:
    """Return the part of a message that says what is wrong with a file."""
    return str(error) if isinstance(error, ValueError) else repr(error)


def no_way_back(damage: str | None) -> CheckpointError:
    """Return the error for a damaged file where none before it is intact."""
    return CheckpointError(
        f"{damage}, and there is no earlier checkpoint to fall back on. Delete it to start over."
    )


def as_arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy tensors from any device into arrays that training does not change."""
    return {name: np.array(tensor.detach().cpu().numpy()) for name, tensor in tensors.items()}


def as_tensors(arrays: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Invert `as_arrays`, on the CPU."""
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
