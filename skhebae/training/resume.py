"""Checks of a saved state of training before it is used."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch

from skhebae.files import check_integer, check_like
from skhebae.training.checkpoint import State
from skhebae.training.loop import HISTORY_KEYS
from skhebae.training.run import Run, select_own
from skhebae.training.step import LossTerms


class StateCheck:
    """The structure that a saved state must have to suit a run.

    All processes make it together, and each calls it on its own.

    Parameters
    ----------
    run : Run
        Ready to train from the start.
    n_epochs : int
    n_minibatches : int
        Per epoch.
    """

    def __init__(self, run: Run, n_epochs: int, n_minibatches: int) -> None:
        self._group = run.group
        self._trainer = run.state()
        self._n_epochs, self._n_minibatches = n_epochs, n_minibatches
        self._weights = {k: v.cpu().numpy() for k, v in run.model.state_dict().items()}
        generators = run.generators.by_name()
        # Modules of the user's draw from the generators of the process.
        self._devices = {"global": torch.device("cpu"), "device": run.model.device}
        self._devices |= {name: own.device for name, own in generators.items()}

    def __call__(self, state: State) -> None:
        """Check a state.

        Raises
        ------
        ValueError
            Naming what is wrong. Other errors of a state that is no state at all may escape.
        """
        known = {"trainer", "stopper", "history", "converged", "ended", "seed"}
        if set(state) - {"unfinished", "verdict"} != known:
            raise ValueError("it has other parts than a state of training")
        template = dict(self._trainer)
        # Files of earlier versions lack constants that were not kept then.
        buffers = template["buffers"]
        template["buffers"] = {k: buffers[k] for k in state["trainer"]["buffers"] if k in buffers}
        check_like(state["trainer"], template, "trainer")
        generators = select_own(self._group, state["trainer"]["generators"])
        for name, saved in generators.items():
            check_generator(saved, self._devices[name])
        stopper = {"best": 0.0, "reference": 0.0, "waited": 0, "weights": {}}
        if state["stopper"]["weights"]:
            stopper["weights"] = self._weights
        check_like(state["stopper"], stopper, "stopper")
        for name in ("converged", "ended"):
            check_like(state[name], True, name)
        self._check_history(state["history"])
        if "unfinished" in state:
            self._check_unfinished(select_own(self._group, state["unfinished"]))

    def _check_history(self, history: Any) -> None:
        check_like(history, {key: [] for key in HISTORY_KEYS}, "history")
        for values in history.values():
            if len(values) != len(history["loss"]) or len(values) > self._n_epochs:
                raise ValueError("the history has other epochs than those of training")
            for value in values:
                check_like(value, 0.0, "a number of the history")

    def _check_unfinished(self, own: dict[str, Any]) -> None:
        check_integer(own["left"], "what is left of the noise", 0)
        if not (isinstance(own["seconds"], float) and math.isfinite(own["seconds"])):
            raise ValueError("the seconds of the epoch are no number")
        tensors = own["tensors"]
        check_generator(tensors["order"], torch.device("cpu"))
        if "before" in tensors:
            check_generator(tensors["before"], torch.device("cpu"))
        terms = tensors["terms"]
        n_done, rest = divmod(len(terms), len(LossTerms._fields))
        check_like(terms, np.empty(len(terms), dtype=np.float32), "the terms of the loss")
        if rest or not 0 < n_done < self._n_minibatches:
            raise ValueError("the epoch has other minibatches than those of training")


def check_generator(state: np.ndarray, device: torch.device) -> None:
    """Check that a state is one of a generator on a device.

    Raises
    ------
    ValueError
        If it is not.
    """
    try:
        torch.Generator(device).set_state(torch.from_numpy(np.array(state)))
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"a random state is none ({str(error).splitlines()[0]:.80})") from error
