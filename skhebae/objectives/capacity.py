"""Capacity annealing: a divergence that is led along a line (Burgess et al., arXiv:1804.03599)."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from math import inf, log
from numbers import Integral, Real
from typing import Any, Self

import torch
from torch import Tensor

from skhebae.data import Minibatch
from skhebae.model import Autoencoder
from skhebae.objectives.base import Terms
from skhebae.objectives.vae import VAEObjective, bounded_log_var

#: Nats from the target over which the penalty bends from a parabola into straight lines, at the
#: first and the last epoch of a fit. Wide, it leaves a gap to the target; narrow, the noise of a
#: minibatch's divergence drowns the gradient of the reconstruction, unless steps are small by then.
FIRST_BEND, LAST_BEND = 300.0, 3.0

#: The same in a stream, which has no last epoch, and steps of one size.
STREAM_BEND = 10.0

#: By this share of the epochs the target stands still: the divergence needs the rest to settle.
LATEST_SHARE = 0.75


def bent_distance(excess: Tensor, bend: Tensor) -> Tensor:
    """Return ``sqrt(excess^2 + bend^2) - bend``: the absolute value, but smooth at 0.

    Its slope, ``excess / sqrt(excess^2 + bend^2)``, goes from -1 to 1 over a few `bend`. That of
    the absolute value jumps, so that every step near the target would overshoot it.
    """
    # Not by the difference of nearly equal numbers: float32 would lose a small distance.
    return excess.square() / ((excess.square() + bend.square()).sqrt() + bend)


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and no bool."""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_capacity(capacity: Sequence[Any]) -> tuple[float, float, float]:
    """Return (start, end, epochs) as a `CapacityObjective` takes them.

    Raises
    ------
    ValueError
        If they are none.
    """
    cure = "Give (start, end, epochs), for example (0, 20, 100) or (0.0, 20.0, 0.2)."
    if len(capacity) != 3:
        raise ValueError(f"capacity={capacity!r} has {len(capacity)} values. {cure}")
    for name, value in zip(("start", "end"), capacity, strict=False):
        if not is_number(value) or not 0.0 <= value < inf:
            raise ValueError(
                f"capacity={capacity!r} has the {name} {value!r}, which must be a finite number of "
                f"nats >= 0. {cure}"
            )
    epochs = capacity[2]
    is_count = isinstance(epochs, Integral)
    is_good = is_number(epochs) and (epochs >= 1 if is_count else 0.0 < epochs < 1.0)
    if not is_good:
        raise ValueError(
            f"capacity={capacity!r} has the epochs {epochs!r}, which must be an integer >= 1, or "
            f"a share of those of fit between 0 and 1. {cure}"
        )
    start, end = float(capacity[0]), float(capacity[1])
    return start, end, int(epochs) if is_count else float(epochs)


class CapacityObjective(VAEObjective):
    r"""Reconstruction plus the distance of the mean divergence from a capacity that rises.

    The loss is ``mean_i -log p(x_i | z_i) + weight * |mean_i KL(q(z | x_i) || p(z)) - C(t)|``,
    equation 8 of Burgess et al., "Understanding disentangling in beta-VAE", arXiv:1804.03599,
    with `bent_distance` for the absolute value. ``C(t)``, in nats, rises linearly from `start` to
    `end` during the first epochs of a model and stays there. The mean is over the whole
    minibatch, however many processes share it. The objective keeps no state: C and the bend
    follow from the epoch.

    Parameters
    ----------
    start, end : float
        First and last value of C, nats.
    epochs : int or float
        Epochs until C is `end`. A float is a share of the epochs of a fit. In a fit they are at
        most `LATEST_SHARE` of all. A stream counts the epochs of all calls.
    weight : float
        Weight of the distance.
    """

    def __init__(self, start: float, end: float, epochs: float, weight: float) -> None:
        # How much noise is optimal depends on C and the table. Codes count as if it were that of
        # the bound.
        super().__init__(beta=1.0)
        self.weight = weight
        self.start, self.end, self.epochs = start, end, epochs
        self.settling_epochs = float(epochs)
        self._first_epoch, self._n_epochs = 0, 0

    def __call__(self, model: Autoencoder, minibatch: Minibatch) -> Terms:
        """Evaluate the terms; the divergence has the value of rows without noise.

        Where training adds noise to what the encoder sees, codes diverge by another amount than
        after training. The gradient is that of the noisy rows, as without a capacity.
        """
        terms = super().__call__(model, minibatch)
        if minibatch.input_noise is None and minibatch.input_dropout is None:
            return terms
        assert terms.row_penalty is not None
        with torch.no_grad():
            clean = minibatch.replace(input_noise=None, input_dropout=None)
            mu, scales = model.encode(clean)
            difference = model.prior.diagonal_kl(mu, bounded_log_var(scales)) - terms.row_penalty
        return terms._replace(row_penalty=terms.row_penalty + difference)

    def scheduled(self, n_epochs: int | None, first_epoch: int = 0) -> Self:
        """Return the objective for a training: C is `end` where one continues a fit.

        Raises
        ------
        ValueError
            If `epochs` is a share, and nobody knows of what.
        """
        result = copy(self)
        result._first_epoch, result._n_epochs = first_epoch, n_epochs or 0
        own = self.epochs
        if n_epochs is None:
            if not isinstance(own, Integral):
                raise ValueError(
                    f"capacity=({self.start:g}, {self.end:g}, {own:g}) gives a share of the epochs "
                    "of fit, and partial_fit does not know how many will come. Give their number, "
                    f"for example capacity=({self.start:g}, {self.end:g}, 100)."
                )
        elif first_epoch > 0:
            result.settling_epochs = 0.0
        else:
            own = own if isinstance(own, Integral) else own * n_epochs
            result.settling_epochs = min(float(own), LATEST_SHARE * n_epochs)
        return result

    def target(self, epoch: Tensor) -> Tensor:
        """Return C, (), nats, after `epoch` epochs and their parts, ()."""
        if self.settling_epochs == 0.0:
            return torch.full_like(epoch, self.end)
        share = (epoch / self.settling_epochs).clamp(max=1.0)
        return torch.lerp(
            torch.full_like(epoch, self.start), torch.full_like(epoch, self.end), share
        )

    def bend(self, epoch: Tensor) -> Tensor:
        """Return the `bend` of the distance, (), nats, after `epoch` epochs and their parts."""
        if self._n_epochs == 0:
            return torch.full_like(epoch, STREAM_BEND)
        done = (epoch - self._first_epoch) / self._n_epochs
        return FIRST_BEND * torch.exp(done * log(LAST_BEND / FIRST_BEND))

    def final_penalty(self, divergence: float) -> float:
        """Return the weighted distance of a mean divergence to `end` as it is after a fit."""
        excess, bend = (
            torch.tensor(v, dtype=torch.float64, device="cpu")
            for v in (divergence - self.end, LAST_BEND)
        )
        return self.weight * float(bent_distance(excess, bend))

    def shape_penalty(self, penalty: Tensor, minibatch: Minibatch, epoch: Tensor) -> Tensor:
        """Return the distance of the mean divergence to the target, ().

        The mean is that of all processes. The derivative by it applies to the part of this one.
        """
        parts = torch.stack([penalty.detach(), torch.ones_like(penalty)])
        total, n_processes = minibatch.shard.total(parts).unbind()
        excess = total / n_processes - self.target(epoch)
        bend = self.bend(epoch)
        slope = excess / (excess.square() + bend.square()).sqrt()
        return bent_distance(excess, bend) + slope * (penalty - penalty.detach())
