"""What a fit was asked for and what it chose, which weights do not tell."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from numbers import Integral, Real
from typing import Any

import numpy as np
import sklearn
import torch

from skhebae.data import Table
from skhebae.fitted.build import factory_name
from skhebae.fitted.parameters import Parameters
from skhebae.training import Run, Schedule

#: Parameters that a fit resolves, and so may be "auto" or name code of the user's.
RESOLVED = (
    "n_components",
    "likelihood",
    "linear_path",
    "row_share",
    "tilt",
    "max_iter",
    "batch_size",
    "learning_rate_init",
    "weight_decay",
    "input_noise",
    "input_dropout",
    "precision",
    "device",
)

#: Longest text in a record that comes from a file.
LONGEST_TEXT = 1000


@dataclass(frozen=True, eq=False)
class TrainingRecord:
    """What a fit was asked for and what it chose. All fields hold JSON values.

    Attributes
    ----------
    asked : dict
        Parameters that a fit resolves, as they were set, by name.
    used : dict
        What training used for those that the fitted networks do not show, by name.
    n_processes : int
        Processes that trained together.
    n_missing : list of int or None
        Number of rows in which each column has no value, over all calls of `partial_fit`; None
        where no value was missing.
    fitted_with, saved_with : dict or None
        Versions of Python and of libraries by name, at the last fit and at `save`.
    """

    asked: dict[str, Any]
    used: dict[str, Any]
    n_processes: int = 1
    n_missing: list[int] | None = None
    fitted_with: dict[str, str] | None = None
    saved_with: dict[str, str] | None = None

    def pack(self) -> dict[str, Any]:
        """Return the fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> TrainingRecord:
        """Invert `pack`."""
        return cls(**packed)

    def saved(self) -> TrainingRecord:
        """Return a copy that says with which versions it is saved."""
        return replace(self, saved_with=versions())

    @staticmethod
    def check(packed: Any) -> None:
        """Check a packed record that comes from a file.

        Raises
        ------
        ValueError, TypeError
            Naming what is wrong.
        """
        if not isinstance(packed, dict):
            raise ValueError("the record of training is not a dict")
        record = TrainingRecord.unpack(packed)
        for name in ("asked", "used", "fitted_with", "saved_with"):
            values = getattr(record, name)
            if values is None and name.endswith("_with"):
                continue
            if not isinstance(values, dict) or not all(map(is_plain, values.values())):
                raise ValueError(f"{name} in the record of training is no dict of plain values")
        counts = [record.n_processes, *([] if record.n_missing is None else record.n_missing)]
        if not all(type(count) is int and count >= 0 for count in counts):
            raise ValueError("the record of training has a count that is none")


def is_plain(value: object) -> bool:
    """Whether a value is one that a record may hold."""
    if isinstance(value, str):
        return len(value) <= LONGEST_TEXT
    return value is None or isinstance(value, bool | int | float)


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that results depend on."""
    from skhebae import __version__

    return {
        "skhebae": __version__,
        "torch": str(torch.__version__),
        "scikit-learn": str(sklearn.__version__),
        "numpy": str(np.__version__),
        "python": platform.python_version(),
    }


def record_training(
    parameters: Parameters,
    table: Table,
    run: Run,
    schedule: Schedule,
    earlier: TrainingRecord | None,
    *,
    partial: bool,
) -> TrainingRecord:
    """Record a fit, together with all processes.

    Parameters
    ----------
    parameters : Parameters
    table : Table
    run, schedule
        As trained.
    earlier : TrainingRecord or None
        That of the calls that this one continues, whose missing values count too.
    partial : bool
        Whether this is a part of a stream.
    """
    given = parameters.get_params(deep=False)
    n_missing = None
    if table.has_missing:
        n_missing = (sum(table.group.gather(len(table))) - table.observed_counts).tolist()
    if earlier is not None and earlier.n_missing is not None:
        before = np.array(earlier.n_missing)
        n_missing = (before if n_missing is None else before + np.array(n_missing)).tolist()
    used: dict[str, Any] = {
        "max_iter": None if partial else schedule.n_epochs,
        "batch_size": schedule.batch_size,
        "learning_rate_init": float(schedule.learning_rate),
        "weight_decay": float(run.weight_decay),
        "input_noise": float(schedule.input_noise),
        "input_dropout": float(schedule.input_dropout),
        "precision": str(run.model.training_dtype).removeprefix("torch."),
        "device": device_name(run.model.device),
    }
    return TrainingRecord(
        asked={name: plain(given[name]) for name in RESOLVED if name in given},
        used=used,
        n_processes=table.group.size,
        n_missing=n_missing,
        fitted_with=versions(),
    )


def device_name(device: torch.device) -> str:
    """Return how a record names a device, with the model of a GPU."""
    if device.type != "cuda":
        return device.type
    return f"cuda ({torch.cuda.get_device_name(device)})"


def plain(value: Any) -> Any:
    """Return a parameter's value as a record keeps it."""
    if isinstance(value, Mapping):
        return "a family per column"
    if callable(value) or (value is not None and not isinstance(value, str | Real)):
        return str(factory_name(value))[:LONGEST_TEXT]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, Integral):
        return int(value)
    return float(value) if isinstance(value, Real) else value
