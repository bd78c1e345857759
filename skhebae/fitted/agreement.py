"""Agreement between the processes of a fit before they train."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed

from skhebae.data import Table
from skhebae.distributed import SINGLE, Group, TorchGroup
from skhebae.exceptions import DistributedWarning, warn_caller
from skhebae.fitted.labels import shown

#: Characters of a value that an error message shows.
SHOWN_VALUE = 80


def find_group(parameter: bool | str, device: torch.device) -> Group:
    """Turn the parameter `distributed` into the group of processes that fit together.

    Parameters
    ----------
    parameter : bool or "auto"
    device : torch.device
        Where this process computes.

    Raises
    ------
    ValueError
        If a group is asked for and there is none.

    Warns
    -----
    DistributedWarning
        If several processes were launched but do not know of each other.
    """
    if not parameter:
        return SINGLE
    initialised = distributed.is_available() and distributed.is_initialized()
    if initialised and distributed.get_world_size() > 1:
        return TorchGroup(device)
    cure = 'call torch.distributed.init_process_group("gloo") ("nccl" for GPUs) before fit'
    if parameter is True:
        what = "it has one process" if initialised else "none is initialised"
        raise ValueError(
            f"distributed=True needs a process group of torch.distributed, but {what}. In every "
            f"process of torchrun {cure}, or use distributed='auto'."
        )
    launched = os.environ.get("WORLD_SIZE", "")
    if not initialised and launched.isdecimal() and int(launched) > 1:
        warn_caller(
            f"{launched} processes were launched (WORLD_SIZE), but no process group of "
            f"torch.distributed is initialised, so each fits a model of its own. To fit one model, "
            f"{cure}. To fit several, set distributed=False.",
            DistributedWarning,
        )
    return SINGLE


def is_alone(parameter: bool | str) -> bool:
    """Whether this process fits on its own, by the parameter `distributed`."""
    initialised = distributed.is_available() and distributed.is_initialized()
    return not (parameter and initialised and distributed.get_world_size() > 1)


def check_same(described: dict[str, Any], group: Group) -> None:
    """Raise unless all processes describe their fits in the same way.

    Raises
    ------
    ValueError
        Naming what differs.
    """
    for rank, other in enumerate(group.gather(described)):
        for name in sorted({*described, *other}):
            here, there = described.get(name), other.get(name)
            if here != there:
                raise ValueError(
                    f"Processes of one fit disagree on {name}: {str(here)[:SHOWN_VALUE]} in rank "
                    f"{group.rank}, {str(there)[:SHOWN_VALUE]} in rank {rank}. Give all of them "
                    "the same estimator and tables with the same columns."
                )


def check_total_rows(table: Table, min_samples: int) -> None:
    """Raise if all processes together have fewer than `min_samples` rows.

    Raises
    ------
    ValueError
        With the rows of each process, or the sum of their weights.
    """
    n_rows = table.group.gather(len(table))
    if sum(n_rows) < min_samples:
        raise ValueError(
            f"Found array with {sum(n_rows)} sample(s) (rows of the processes: "
            f"{n_rows}) while a minimum of {min_samples} is required."
        )
    if table.weight is None:
        return
    if table.total_weight == 0.0:
        raise ValueError("sample_weight is zero in every row, so there is nothing to learn from.")
    if min_samples > 1 and table.total_weight < min_samples:
        raise ValueError(
            f"sample_weight adds up to {table.total_weight:.4g}, less than the minimum of "
            f"{min_samples} rows: weights count rows; scale them so that they add up to the number "
            "of rows."
        )


def agree_on_batches(table: Table) -> NDArray[Any]:
    """Return the sorted labels of the batches of all processes, perhaps none.

    A process without rows need not give any.

    Raises
    ------
    ValueError
        If some processes give labels and others do not, or text and numbers.
    """
    mine = None if table.batch is None or len(table) == 0 else np.unique(table.batch)
    given = [labels for labels, n in table.group.gather((mine, len(table))) if n > 0]
    parts = [labels for labels in given if labels is not None]
    if not parts:
        return np.empty(0)
    if len(parts) < len(given):
        raise ValueError(
            "batch= was given in some processes and not in others. Give every process the labels "
            "of its rows."
        )
    if len({labels.dtype == object for labels in parts}) > 1:
        raise ValueError(
            "batch has text in some processes and numbers in others: "
            f"{'; '.join(shown(labels) for labels in parts)}. Use one kind in all."
        )
    result: NDArray[Any] = np.unique(np.concatenate(parts))
    return result


def agree_on_size_factors(table: Table) -> NDArray[np.float64] | None:
    """Return this process's size factors, after checking that all processes give them or none.

    A process without rows need not give any.

    Raises
    ------
    ValueError
        If some processes give size factors and others do not.
    """
    return agree_on_numbers(table, table.size_factor, "size_factor")


def agree_on_weights(table: Table) -> NDArray[np.float64] | None:
    """Return this process's weights, after checking that all processes give them or none.

    A process without rows need not give any.

    Raises
    ------
    ValueError
        If some processes give weights and others do not.
    """
    return agree_on_numbers(table, table.weight, "sample_weight")


def agree_on_numbers(
    table: Table, own: NDArray[np.float64] | None, name: str
) -> NDArray[np.float64] | None:
    """Return this process's numbers, if all processes that have rows give theirs or none does.

    Raises
    ------
    ValueError
        Otherwise; names the parameter `name`.
    """
    given = [has for has, n in table.group.gather((own is not None, len(table))) if n > 0]
    if any(given) and not all(given):
        raise ValueError(
            f"{name}= was given in some processes and not in others. Give every process those of "
            "its rows."
        )
    if len(table) == 0:
        return np.empty(0) if any(given) else None
    return own


def seed_of_rank(seed: int, rank: int) -> int:
    """Return the seed for what a process draws for itself; that of rank 0 is `seed`."""
    if rank == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(rank,)).generate_state(1)[0])
