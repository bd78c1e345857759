"""How long training lasts, and when it stops early."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from skhebae.model import Autoencoder
from skhebae.training.checkpoint import as_arrays, as_tensors


@dataclass(frozen=True)
class Schedule:
    """How long to train, and when to stop early.

    Attributes
    ----------
    n_epochs : int
    batch_size : int
    learning_rate : float
        At the start.
    tol : float
        Smallest improvement of the loss that counts, in nats.
    n_iter_no_change : int
        Epochs of patience.
    input_noise : float
        Standard deviation of the noise added to the encoder's standardised input.
    input_dropout : float
        Share of the observed entries that are hidden from the encoder.
    decay : {"linear", "constant"} or callable
        Down to 0 over `n_epochs`, not at all, or by the factor that the callable
        returns for an epoch, counted from 0.
    stop_on_plateau : bool
        Whether a flat training loss ends the training.
    is_part : bool
        Whether further trainings will follow, as parts of a stream.
    """

    n_epochs: int
    batch_size: int
    learning_rate: float
    tol: float = 0.0
    n_iter_no_change: int = 10
    input_noise: float = 0.0
    input_dropout: float = 0.0
    decay: str | Callable[[int], float] = "linear"
    stop_on_plateau: bool = False
    is_part: bool = False

    def rate(self, epoch: int, done: float) -> float:
        """Return the learning rate when a share `done` of `epoch` is over.

        Raises
        ------
        ValueError
            If the user's factor is not a number >= 0.
        """
        if self.decay == "constant":
            return self.learning_rate
        if not callable(self.decay):
            return self.learning_rate * (1.0 - (epoch + done) / self.n_epochs)
        factor = self.decay(epoch)
        if not isinstance(factor, Real) or not 0.0 <= float(factor) < float("inf"):
            raise ValueError(
                f"learning_rate={self.decay!r} returned {factor!r} for epoch {epoch}. It must "
                "return a factor for learning_rate_init, a finite number >= 0."
            )
        return self.learning_rate * float(factor)


def is_flat(losses: list[float], window: int, tol: float) -> bool:
    """Whether the mean loss of the last `window` epochs improved by less than `tol`.

    Windows are compared rather than single epochs, whose loss is noisy.
    """
    if len(losses) < 2 * window:
        return False
    improvement = np.mean(losses[-2 * window : -window]) - np.mean(losses[-window:])
    # A rising loss is not flat either: the falling learning rate may reverse it.
    return bool(abs(improvement) < tol)


class EarlyStopping:
    """Keeps the best weights, and counts epochs without improvement."""

    def __init__(self, model: Autoencoder, patience: int, tol: float) -> None:
        self._model = model
        self._patience = patience
        self._tol = tol
        self._best = self._reference = float("inf")
        self._weights: dict[str, Tensor] = {}
        self._waited = 0

    def update(self, loss: float) -> bool:
        """Record an epoch's validation loss; return True when patience has run out."""
        if loss < self._best:
            self._best = loss
            self._weights = {k: v.clone() for k, v in self._model.state_dict().items()}
        if loss < self._reference - self._tol:
            self._reference, self._waited = loss, 0
        else:
            self._waited += 1
        return self._waited >= self._patience

    def restore(self) -> None:
        """Put the best weights back into the model."""
        if self._weights:
            self._model.load_state_dict(self._weights)

    def state(self) -> dict[str, Any]:
        """Return all that later updates depend on, as arrays and numbers."""
        return {
            "best": self._best,
            "reference": self._reference,
            "waited": self._waited,
            "weights": as_arrays(self._weights),
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go back to a `state`."""
        self._best, self._reference = state["best"], state["reference"]
        self._waited = state["waited"]
        self._weights = as_tensors(state["weights"])
