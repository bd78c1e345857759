"""What the processes of a fit have to agree on before they train."""

from __future__ import annotations

import os
import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from skhebae.estimators.covariates import shown
from skhebae.exceptions import DistributedWarning
from skhebae.processes import ALONE, Group, Processes

#: Differences that an error message shows.
SHOWN_VALUE = 80


def processes_of(parameter: bool | str, device: torch.device) -> Processes:
    """Turn the parameter `distributed` into the processes of a fit.

    Parameters
    ----------
    parameter : bool or "auto"
    device : torch.device
        Where this process computes.

    Raises
    ------
    ValueError
        If there must be several, and are not.

    Warns
    -----
    DistributedWarning
        If several were launched that know nothing of each other.
    """
    if not parameter:
        return ALONE
    initialised = distributed.is_available() and distributed.is_initialized()
    if initialised and distributed.get_world_size() > 1:
        return Group(device)
    cure = 'call torch.distributed.init_process_group("gloo") ("nccl" for GPUs) before fit'
    if parameter is True:
        what = "it has one process" if initialised else "none is initialised"
        raise ValueError(
            f"distributed=True needs a process group of torch.distributed, but {what}; {cure} in "
            "every process of torchrun, or use distributed='auto'."
        )
    launched = os.environ.get("WORLD_SIZE", "")
    if not initialised and launched.isdecimal() and int(launched) > 1:
        warnings.warn(
            f"{launched} processes were launched (WORLD_SIZE), but no process group of "
            f"torch.distributed is initialised, so each fits a model of its own: {cure}, or set "
            "distributed=False if that is what you want.",
            DistributedWarning,
            stacklevel=6,  # the call of fit, through scikit-learn's wrapper
        )
    return ALONE


def check_same(described: dict[str, Any], processes: Processes) -> None:
    """Raise unless all processes describe their fits alike.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    for rank, other in enumerate(processes.gather(described)):
        for name in sorted({*described, *other}):
            here, there = described.get(name), other.get(name)
            if here != there:
                raise ValueError(
                    f"the processes of one fit differ in {name}: {str(here)[:SHOWN_VALUE]} here, "
                    f"{str(there)[:SHOWN_VALUE]} in rank {rank}; give all the same estimator and "
                    "tables of the same columns."
                )


def total_rows(n_rows: int, min_samples: int, processes: Processes) -> int:
    """Rows of all processes together.

    Raises
    ------
    ValueError
        If they are fewer than `min_samples`.
    """
    counts = processes.gather(n_rows)
    if sum(counts) < min_samples:
        raise ValueError(
            f"Found array with {sum(counts)} sample(s) (rows of the processes: {counts}) while a "
            f"minimum of {min_samples} is required."
        )
    return sum(counts)


def all_labels(labels: NDArray[Any] | None, n_rows: int, processes: Processes) -> NDArray[Any]:
    """Sorted labels of the batches of all processes, perhaps none.

    A process without rows need not give any.

    Raises
    ------
    ValueError
        If some processes give labels and others not, or text and numbers.
    """
    mine = None if labels is None or n_rows == 0 else np.unique(labels)
    given = [of for of, n in processes.gather((mine, n_rows)) if n > 0]
    parts = [of for of in given if of is not None]
    if not parts:
        return np.empty(0)
    if len(parts) < len(given):
        raise ValueError(
            "batch= was given in some processes and not in others; give every process the labels "
            "of its rows."
        )
    if len({of.dtype.kind == "O" for of in parts}) > 1:
        raise ValueError(
            "batch has text in some processes and numbers in others: "
            f"{'; '.join(shown(of) for of in parts)}."
        )
    result: NDArray[Any] = np.unique(np.concatenate(parts))
    return result


def all_or_no_factors(
    factors: NDArray[np.float64] | None, n_rows: int, processes: Processes
) -> NDArray[np.float64] | None:
    """Check that all processes have size factors, or none; return those of this one.

    A process without rows need not give any.

    Raises
    ------
    ValueError
        If some have and others not.
    """
    given = [has for has, n in processes.gather((factors is not None, n_rows)) if n > 0]
    if any(given) and not all(given):
        raise ValueError(
            "size_factor= was given in some processes and not in others; give every process those "
            "of its rows."
        )
    if n_rows == 0:
        return np.empty(0) if any(given) else None
    return factors


def seed_of_rank(seed: int, rank: int) -> int:
    """Seed of what each process draws for itself; that of rank 0 is `seed`."""
    if rank == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(rank,)).generate_state(1)[0])
