"""Multilayer perceptrons for encoder and decoder. They know no loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils import skip_init

#: Activations by name; scikit-learn's own names where it has them.
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "logistic": nn.Sigmoid,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "elu": nn.ELU,
    "softplus": nn.Softplus,
}


def linear(n_in: int, n_out: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Linear layer, weights N(0, gain^2 / n_in) from `generator`, bias 0.

    ``nn.Linear(...)`` would draw from the global random state.
    """
    layer: nn.Linear = skip_init(nn.Linear, n_in, n_out)  # type: ignore[no-untyped-call]
    nn.init.normal_(layer.weight, std=gain / n_in**0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], activation: str, generator: torch.Generator) -> nn.Sequential:
    """Perceptron through `sizes`, with `activation` between its linear layers.

    Parameters
    ----------
    sizes : sequence of int
        Input, hidden and output widths; two numbers give one linear layer.
    activation : str
        A key of `ACTIVATIONS`.
    generator : torch.Generator
        Source of the initial weights.

    Returns
    -------
    torch.nn.Sequential
        He initialisation before an activation, unit gain at the output.
    """
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(linear(n_in, n_out, 2.0**0.5 if i < last else 1.0, generator))
        if i < last:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Row to posterior mean ``mu`` and scale head (n_scales numbers, or none).

    Parameters
    ----------
    n_features, n_components : int
    hidden_layer_sizes : sequence of int
    activation : str
        A key of `ACTIVATIONS`.
    n_scales : int
        Width of the scale head: n_components, 1 or 0.
    initial_scale : float
        Initial bias of the scale head.
    generator : torch.Generator
    """

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        *,
        n_scales: int,
        initial_scale: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.n_components = n_components
        sizes = (n_features, *hidden_layer_sizes, n_components + n_scales)
        # One matrix for both heads: a product less in every step.
        self.layers = mlp(sizes, activation, generator)
        heads = self.layers[-1]
        assert isinstance(heads, nn.Linear)
        with torch.no_grad():
            # Every row starts with the same scale.
            heads.weight[n_components:].zero_()
            heads.bias[n_components:].fill_(initial_scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows (n, p) to mu (n, d) and scales (n, n_scales)."""
        heads: Tensor = self.layers(x).float()
        return heads[:, : self.n_components], heads[:, self.n_components :]
