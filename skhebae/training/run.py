"""The state of a training, as one record that a checkpoint can hold."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil
from typing import Any, NamedTuple

import torch
from torch import Tensor

from skhebae.distributed import SINGLE, Group
from skhebae.model import Autoencoder
from skhebae.networks import global_state, set_global_state
from skhebae.objectives import Objective
from skhebae.training.adam import Adam
from skhebae.training.checkpoint import as_arrays, as_tensors


class Generators(NamedTuple):
    """Sources of random numbers.

    Attributes
    ----------
    order : torch.Generator
        On the CPU, for the order of the rows.
    noise : torch.Generator
        On the model's device, for all that a step draws. With several processes, for what
        no other process has to know.
    shared : torch.Generator or None
        With several processes, for what is drawn for a whole minibatch; in the same state in all.
    """

    order: torch.Generator
    noise: torch.Generator
    shared: torch.Generator | None = None

    def by_name(self) -> dict[str, torch.Generator]:
        """Return those that are there, by name."""
        return {name: own for name, own in self._asdict().items() if own is not None}


@dataclass(eq=False)
class Run:
    """A model in training.

    Attributes
    ----------
    model : Autoencoder
    objective : Objective
    generators : Generators
    weight_decay : float
        Decoupled decay of the weight matrices, not of biases or noise variances.
    compiles : bool
        Whether the objective goes through torch's compiler.
    uses_global_state : bool
        Whether the user's modules may draw from the global random state, as dropout does.
    group : Group
        The processes that train this model together, each on its own rows.
    stays_linear : bool
        Whether the perceptrons beside a linear path add nothing to it.
    first_epoch : int
        Epochs that the model was trained for before.
    optimizer : Adam
    n_steps : int
        Steps taken.
    epoch : Tensor of shape ()
        Epochs that the model was trained for, with the part of the present one. On its device,
        so that a captured step reads it anew.
    """

    model: Autoencoder
    objective: Objective
    generators: Generators
    weight_decay: float = 0.0
    compiles: bool = False
    uses_global_state: bool = False
    group: Group = SINGLE
    stays_linear: bool = False
    first_epoch: int = 0
    optimizer: Adam = field(init=False)
    n_steps: int = field(init=False, default=0)
    epoch: Tensor = field(init=False)

    def __post_init__(self) -> None:
        # The linear path is to explain what it can; the prior is on what comes on top of it.
        paths = ("encoder.path.weight", "decoder.path.weight")
        free = [own for name, own in self.model.named_parameters() if name in paths]
        self.optimizer = Adam(self.model.parameters(), self.weight_decay, free)
        self.epoch = torch.tensor(
            float(self.first_epoch), dtype=torch.float32, device=self.model.device
        )

    def move_to(self, epoch: float) -> None:
        """Say how many epochs of this training are done, with the part of the present one."""
        self.epoch.fill_(self.first_epoch + epoch)

    def settles_at(self, n_epochs: int | None) -> int:
        """Return the first epoch of this training from which on the loss itself is the same.

        `n_epochs` is what the training may take; None in a stream.
        """
        self.objective = self.objective.scheduled(n_epochs, self.first_epoch)
        return max(0, ceil(self.objective.settling_epochs) - self.first_epoch)

    def state(self) -> dict[str, Any]:
        """Return all that the next step depends on, as arrays and numbers."""
        moments = self.optimizer.state()
        generators = {name: own.get_state() for name, own in self.generators.by_name().items()}
        if self.uses_global_state:
            generators |= global_state(self.model.device)
        return {
            "parameters": as_arrays(dict(self.model.named_parameters())),
            "buffers": as_arrays(dict(self.model.named_buffers())),
            "moments": {str(i): as_arrays(own) for i, own in moments.items()},
            "generators": collect_by_rank(self.group, as_arrays(generators)),
            "n_steps": self.n_steps,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        parameters, buffers = (as_tensors(state[name]) for name in ("parameters", "buffers"))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                parameter.copy_(parameters[name])
            for name, buffer in self.model.named_buffers():
                # Files of earlier versions lack constants that were not kept then.
                buffer.copy_(buffers.get(name, buffer))
        self.optimizer.restore({int(i): as_tensors(own) for i, own in state["moments"].items()})
        generators = as_tensors(select_own(self.group, state["generators"]))
        for name, generator in self.generators.by_name().items():
            generator.set_state(generators[name])
        if self.uses_global_state:
            set_global_state(generators, self.model.device)
        self.n_steps = state["n_steps"]


def collect_by_rank(group: Group, value: dict[str, Any]) -> dict[str, Any]:
    """Collect, for a file, what each process holds for itself."""
    if group.size == 1:
        return value
    return {str(rank): own for rank, own in enumerate(group.gather(value))}


def select_own(group: Group, values: dict[str, Any]) -> dict[str, Any]:
    """Return this process's part of what `collect_by_rank` collected."""
    return values if group.size == 1 else values[str(group.rank)]
