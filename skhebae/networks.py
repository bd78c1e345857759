"""Encoders and decoders: perceptrons, or modules of the user. They know no loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from threading import Lock

import torch
from torch import Tensor, nn

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

#: ``encoder(shape, n_outputs)`` and ``decoder(n_components, shape)``: `shape` is
#: that of one row, ``(n_features,)`` or the `image_shape`.
EncoderFactory = Callable[[tuple[int, ...], int], nn.Module]
DecoderFactory = Callable[[int, tuple[int, ...]], nn.Module]

#: The global random state belongs to the process: threads that fit at once take turns.
GLOBAL_RANDOM_STATE = Lock()


class Linear(nn.Linear):
    """A linear layer that draws no weights when it is made.

    `torch.nn.utils.skip_init` does that too, but by a device that takes long to import.
    """

    def reset_parameters(self) -> None:
        """Leave the weights as they are; called by the constructor."""


def linear(n_in: int, n_out: int, gain: float, generator: torch.Generator) -> nn.Linear:
    """Linear layer, weights N(0, gain^2 / n_in) from `generator`, bias 0.

    ``nn.Linear(...)`` would draw from the global random state.
    """
    layer = Linear(n_in, n_out)
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


class CustomEncoder(nn.Module):
    """A module of the user as encoder.

    Parameters
    ----------
    module : torch.nn.Module
        Maps rows (n, *shape) to both heads side by side, (n, n_components + n_scales).
    shape : tuple of int
        Of one row.
    n_components : int
    initial_scale : float
        Added to the scale head, so that it starts where `Encoder`'s does.
    """

    initial_scale: Tensor

    def __init__(
        self, module: nn.Module, shape: tuple[int, ...], n_components: int, initial_scale: float
    ) -> None:
        super().__init__()
        self.module = module
        self.shape = shape
        self.n_components = n_components
        self.register_buffer("initial_scale", torch.tensor(initial_scale))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows (n, p) to mu (n, d) and scales (n, n_scales)."""
        heads: Tensor = self.module(x.view(-1, *self.shape)).float()
        return heads[:, : self.n_components], heads[:, self.n_components :] + self.initial_scale


class CustomDecoder(nn.Module):
    """A module of the user as decoder: codes (n, d) to rows (n, *shape), made flat."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (n, d) to the likelihood's parameter (n, p)."""
        rows: Tensor = self.module(z).flatten(1)
        return rows


@contextmanager
def global_random_state(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global random state inside the block, and put it back after it.

    For modules of the user alone: layers draw their initial weights, and
    dropout its masks, from nowhere else.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with GLOBAL_RANDOM_STATE, torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def global_state(device: torch.device) -> dict[str, Tensor]:
    """Return torch's global random state, of the CPU and of a GPU `device`."""
    states = {"global": torch.get_rng_state()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_global_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Put a `global_state` back, inside `global_random_state` alone."""
    torch.set_rng_state(states["global"])
    if device.type == "cuda" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)


def made_by(name: str, factory: Callable[..., object], *arguments: object) -> nn.Module:
    """Call a factory of the user and check that it returns a module.

    Raises
    ------
    TypeError
        If `factory` is a module itself, or does not return one.
    """
    if isinstance(factory, nn.Module):
        raise TypeError(
            f"{name}={type(factory).__name__}(...) is a module, but every fit needs a new one; "
            "pass a function that makes it, at the top level of a Python file."
        )
    module = factory(*arguments)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{name}={factory!r} returned {type(module).__name__}; it must return a "
            "torch.nn.Module."
        )
    return module


def check_maps(name: str, module: nn.Module, n_in: int, n_out: int) -> None:
    """Try two rows of `n_in` numbers; raise unless each becomes `n_out` numbers.

    Raises
    ------
    ValueError
        Naming the parameter `name`.
    """
    training = module.training
    try:
        with torch.no_grad():
            output = module.eval()(torch.zeros(2, n_in))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{name}= made a module that fails on float32 rows: {error}. An encoder takes "
            "(n, *shape) and returns (n, n_outputs), a decoder takes (n, n_components) and "
            "returns (n, *shape); shape is (n_features,) or image_shape."
        ) from error
    finally:
        module.train(training)
    parts = output if isinstance(output, tuple) else (output,)
    width = sum(part[0].numel() for part in parts)
    if width != n_out or any(len(part) != 2 for part in parts):
        raise ValueError(
            f"{name}= made a module that returns {width} numbers a row; {n_out} are needed: "
            "n_outputs of the encoder's arguments, or as many as shape holds from the decoder."
        )
