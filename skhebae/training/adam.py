"""Adam with decoupled weight decay, by torch's fused kernel."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class Adam:
    """Adam with decoupled weight decay.

    `torch.optim.AdamW` computes the same, but constructing one imports torch's compiler, which
    takes longer than the first fit of a process to a small table.

    Parameters
    ----------
    parameters : iterable of torch.nn.Parameter
    weight_decay : float
        Decay of matrices; biases and noise variances do not decay.
    free : collection of torch.nn.Parameter
        Matrices that do not decay either.

    Attributes
    ----------
    parameters : list of torch.nn.Parameter
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        weight_decay: float,
        free: Iterable[torch.nn.Parameter] = (),
    ) -> None:
        every, kept = list(parameters), {id(parameter) for parameter in free}
        decays = [p.ndim > 1 and id(p) not in kept for p in every]
        # Those that decay first: checkpoints and copies number the moments in this order.
        order = sorted(range(len(every)), key=lambda i: not decays[i])
        self.parameters = [every[i] for i in order]
        # A captured step reads the rate from the GPU's memory.
        device = self.parameters[0].device
        self._rate: float | Tensor = 0.0
        if device.type == "cuda":
            self._rate = torch.zeros((), dtype=torch.float32, device=device)
        self._weight_decay = weight_decay
        self._n_decaying = sum(decays)
        self._means = [torch.zeros_like(p) for p in self.parameters]
        self._squares = [torch.zeros_like(p) for p in self.parameters]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters
        ]

    @property
    def learning_rate(self) -> float:
        """Learning rate of the steps to come."""
        return float(self._rate)

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        if isinstance(self._rate, Tensor):
            self._rate.fill_(value)
        else:
            self._rate = value

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move the parameters along their gradients."""
        n_decaying = self._n_decaying
        if self._weight_decay == 0.0:
            self._move(slice(None), 0.0)
        else:
            self._move(slice(n_decaying), self._weight_decay)
            self._move(slice(n_decaying, None), 0.0)

    def _move(self, some: slice, weight_decay: float) -> None:
        having = [i for i, p in enumerate(self.parameters[some]) if p.grad is not None]

        def chosen(tensors: list[Any]) -> list[Tensor]:
            part = tensors[some]
            return part if len(having) == len(part) else [part[i] for i in having]

        parameters = chosen(self.parameters)
        adamw(
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]
            chosen(self._means),
            chosen(self._squares),
            [],
            chosen(self._steps),
            foreach=False,
            fused=True,
            amsgrad=False,
            beta1=BETAS[0],
            beta2=BETAS[1],
            lr=self._rate,
            weight_decay=weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    @torch.no_grad()
    def forget(self, parameter: Tensor, part: Any) -> None:
        """Forget the moments of a part of a parameter."""
        (i,) = (i for i, own in enumerate(self.parameters) if own is parameter)
        for moments in (self._means, self._squares):
            moments[i][part] = 0.0

    def state(self) -> dict[int, dict[str, Tensor]]:
        """Return the moments by number, not copied."""
        parts = zip(self._steps, self._means, self._squares, strict=True)
        return {
            i: {"step": step, "exp_avg": mean, "exp_avg_sq": square}
            for i, (step, mean, square) in enumerate(parts)
        }

    @torch.no_grad()
    def restore(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Continue with the moments of a `state`."""
        for i, moments in self.state().items():
            if i in state:
                for name, tensor in moments.items():
                    tensor.copy_(state[i][name])
