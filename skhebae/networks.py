"""Encoders and decoders, as perceptrons or as the user's own modules; none knows the loss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from itertools import pairwise
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from skhebae.process import ForkSafeLock

P = TypeVar("P")

#: Activations by name; scikit-learn's names where it has them.
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

#: ``encoder(shape, n_outputs)`` and ``decoder(n_components, shape)``, where `shape`
#: is the shape of one row: ``(n_features,)`` or `image_shape`.
EncoderFactory = Callable[[tuple[int, ...], int], nn.Module]
DecoderFactory = Callable[[int, tuple[int, ...]], nn.Module]

#: The global random state belongs to the process, so concurrent fits in threads take turns.
GLOBAL_RANDOM_STATE = ForkSafeLock()


class Linear(nn.Linear):
    """Linear layer that draws no weights when it is constructed.

    `torch.nn.utils.skip_init` does the same, but needs the meta device, which is slow to
    import.
    """

    def reset_parameters(self) -> None:
        """Skip the initialisation for which the constructor calls this method."""


def linear(n_in: int, n_out: int, gain: float, generator: torch.Generator | None) -> nn.Linear:
    """Create a linear layer with weights N(0, gain^2 / n_in) from `generator` and bias 0.

    ``nn.Linear(...)`` would draw from the global random state instead. Without a generator all
    weights are 0, for saved ones to take their place.
    """
    layer = Linear(n_in, n_out, dtype=torch.float32, device="cpu")
    if generator is None:
        nn.init.zeros_(layer.weight)
    else:
        nn.init.normal_(layer.weight, std=gain / n_in**0.5, generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def mlp(sizes: Sequence[int], activation: str, generator: torch.Generator | None) -> nn.Sequential:
    """Create a perceptron of widths `sizes` with `activation` between its linear layers.

    Parameters
    ----------
    sizes : sequence of int
        Input, hidden and output widths; two numbers give one linear layer.
    activation : str
        A key of `ACTIVATIONS`.
    generator : torch.Generator or None
        Source of the initial weights; without it they are 0.

    Returns
    -------
    torch.nn.Sequential
        Layers with He initialisation before an activation and unit gain at the
        output.
    """
    layers: list[nn.Module] = []
    last = len(sizes) - 2
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        layers.append(linear(n_in, n_out, 2.0**0.5 if i < last else 1.0, generator))
        if i < last:
            layers.append(ACTIVATIONS[activation]())
    return nn.Sequential(*layers)


class Encoder(nn.Module):
    """Perceptron that maps rows to the posterior mean ``mu`` and the scale head.

    Parameters
    ----------
    n_features, n_components : int
    hidden_layer_sizes : sequence of int
    activation : str
        A key of `ACTIVATIONS`.
    n_scales : int
        Width of the scale head: n_components, 1, or 0 for no scale head.
    initial_scale : float
        Initial bias of the scale head.
    generator : torch.Generator or None
    linear_path : bool
        Whether ``mu`` is the sum of a linear map and the perceptron, ``W x + b + f(x)``.
    """

    path: nn.Linear | None

    def __init__(
        self,
        n_features: int,
        n_components: int,
        hidden_layer_sizes: Sequence[int],
        activation: str,
        *,
        n_scales: int,
        initial_scale: float,
        generator: torch.Generator | None,
        linear_path: bool = False,
    ) -> None:
        super().__init__()
        self.n_components = n_components
        sizes = (n_features, *hidden_layer_sizes, n_components + n_scales)
        # One matrix for both heads saves a matrix product per step.
        self.layers = mlp(sizes, activation, generator)
        self.path = zero_path(n_features, n_components) if linear_path else None
        heads = self.layers[-1]
        assert isinstance(heads, nn.Linear)
        with torch.no_grad():
            # All rows start with the same scale.
            heads.weight[n_components:].zero_()
            heads.bias[n_components:].fill_(initial_scale)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows (n, p) to mu (n, d) and scales (n, n_scales)."""
        heads: Tensor = self.layers(x).float()
        mu = heads[:, : self.n_components]
        if self.path is not None:
            mu = mu + self.path(x).float()
        return mu, heads[:, self.n_components :]

    @property
    def heads(self) -> nn.Linear:
        """Last layer of the perceptron."""
        heads = self.layers[-1]
        assert isinstance(heads, nn.Linear)
        return heads

    @torch.no_grad()
    def start_linear(self, weight: Tensor, centre: Tensor) -> None:
        """Make ``mu(x) = W (x - centre)``, with W of shape (d, p).

        The perceptron adds nothing yet, and labels of batches have no influence.
        """
        path = self.heads if self.path is None else self.path
        path.weight[: self.n_components].zero_()
        path.weight[: self.n_components, : weight.shape[1]] = weight
        self.heads.bias[: self.n_components] = -weight @ centre
        self.stay_linear()

    @property
    def is_linear(self) -> bool:
        """Whether the perceptron beside a linear path adds nothing to ``mu`` but a bias."""
        return self.path is not None and not self.heads.weight[: self.n_components].any()

    @torch.no_grad()
    def stay_linear(self) -> None:
        """Set what the perceptron adds to ``mu`` to 0, apart from the bias."""
        if self.path is not None:
            self.heads.weight[: self.n_components].zero_()


class Decoder(nn.Module):
    """Perceptron with a linear path beside it, ``V z + g(z)``.

    Parameters
    ----------
    layers : torch.nn.Sequential
        g, whose last layer is linear.
    n_inputs, n_features : int
    """

    def __init__(self, layers: nn.Sequential, n_inputs: int, n_features: int) -> None:
        super().__init__()
        self.layers = layers
        self.path = zero_path(n_inputs, n_features)

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (n, d), with labels behind them, to the likelihood's parameter (n, p)."""
        output: Tensor = self.layers(z) + self.path(z)
        return output

    @property
    def is_linear(self) -> bool:
        """Whether the perceptron adds nothing but a bias."""
        output = output_layer(self)
        return output is not None and not output.weight.any()

    @torch.no_grad()
    def start_bias(self, bias: Tensor) -> None:
        """Set the output of a code of 0, as long as the perceptron adds nothing."""
        output = output_layer(self)
        assert output is not None
        output.bias.copy_(bias)

    @torch.no_grad()
    def stay_linear(self) -> None:
        """Set what the perceptron adds to 0, apart from the bias."""
        output = output_layer(self)
        assert output is not None
        output.weight.zero_()


def zero_path(n_in: int, n_out: int) -> nn.Linear:
    """Create a linear map without bias whose weights are 0."""
    path = Linear(n_in, n_out, bias=False, dtype=torch.float32, device="cpu")
    nn.init.zeros_(path.weight)
    return path


def output_layer(decoder: nn.Module) -> nn.Linear | None:
    """Return the last layer of a perceptron that decodes; None for a module of the user's."""
    layers = decoder.layers if isinstance(decoder, Decoder) else decoder
    if not isinstance(layers, nn.Sequential):
        return None
    output = layers[-1]
    assert isinstance(output, nn.Linear)
    return output


def decoder_path(decoder: nn.Module) -> nn.Linear | None:
    """Return the layer that holds the linear part of a perceptron that decodes, if any."""
    if isinstance(decoder, Decoder):
        return decoder.path
    # Linear networks are their own linear path.
    linear = isinstance(decoder, nn.Sequential) and len(decoder) == 1
    return output_layer(decoder) if linear else None


class CustomEncoder(nn.Module):
    """Encoder that wraps the user's module.

    Parameters
    ----------
    module : torch.nn.Module
        Map from rows (n, *shape) to both heads side by side,
        (n, n_components + n_scales).
    shape : tuple of int
        Shape of one row.
    n_components : int
    initial_scale : float
        Constant added to the scale head, so that it starts near that of `Encoder`.
    """

    initial_scale: Tensor

    def __init__(
        self, module: nn.Module, shape: tuple[int, ...], n_components: int, initial_scale: float
    ) -> None:
        super().__init__()
        self.module = module
        self.shape = shape
        self.n_components = n_components
        self.register_buffer(
            "initial_scale", torch.tensor(initial_scale, dtype=torch.float32, device="cpu")
        )

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map rows (n, p) to mu (n, d) and scales (n, n_scales)."""
        heads: Tensor = self.module(x.view(-1, *self.shape)).float()
        return heads[:, : self.n_components], heads[:, self.n_components :] + self.initial_scale


class CustomDecoder(nn.Module):
    """Decoder that wraps the user's module and flattens its output (n, *shape) to (n, p)."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, z: Tensor) -> Tensor:
        """Map codes (n, d) to the likelihood's parameter (n, p)."""
        rows: Tensor = self.module(z).flatten(1)
        return rows


@contextmanager
def global_random_state(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed torch's global random state within the block, and restore it afterwards.

    Only the user's modules need it: their layers draw initial weights, and their
    dropout draws masks, from the global state only.
    """
    devices = [device] if device is not None and device.type == "cuda" else []
    with GLOBAL_RANDOM_STATE.held(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


def global_state(device: torch.device) -> dict[str, Tensor]:
    """Return torch's global random state on the CPU and, if `device` is a GPU, on it too."""
    states = {"global": torch.get_rng_state()}
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    return states


def set_global_state(states: dict[str, Tensor], device: torch.device) -> None:
    """Restore what `global_state` returned; call this only within `global_random_state`."""
    torch.set_rng_state(states["global"])
    if device.type == "cuda" and "device" in states:
        torch.cuda.set_rng_state(states["device"], device)


def made_by(
    name: str, factory: Callable[..., object], *arguments: object, copies: dict[int, Any]
) -> nn.Module:
    """Call the user's factory, and return a copy of its module in float32.

    It may return a module that it has returned before, or one that shares parameters with others:
    the copy belongs to one model only.

    Parameters
    ----------
    name : str
        The parameter that holds the factory.
    factory : callable
    *arguments
    copies : dict
        The memo of `copy.deepcopy`: what parts of one model share, their copies share.

    Raises
    ------
    TypeError
        If `factory` is itself a module, or does not return one, or one that cannot be copied.
    """
    if isinstance(factory, nn.Module):
        raise TypeError(
            f"{name}={type(factory).__name__}(...) is a module, but every fit needs a new one. "
            "Pass a function that makes it, defined at the top level of a Python file."
        )
    module = factory(*arguments)
    if not isinstance(module, nn.Module):
        raise TypeError(
            f"{name}={factory!r} returned {type(module).__name__}; it must return a "
            "torch.nn.Module."
        )
    return own_copy(name, module, copies).float()


def own_copy(name: str, part: P, copies: dict[int, Any]) -> P:
    """Copy what the user's factory returned, so that no other model and no caller holds it.

    Raises
    ------
    TypeError
        If it cannot be copied.
    """
    try:
        return deepcopy(part, copies)
    except Exception as error:  # whatever a part of the user's may raise
        raise TypeError(
            f"{name}= made a {type(part).__name__} that copy.deepcopy cannot copy ({error}). Every "
            "model needs a copy of its own. Keep locks and open files out of it, and use "
            "torch.nn.utils.parametrizations in place of torch.nn.utils.weight_norm."
        ) from error


def check_maps(name: str, module: nn.Module, n_in: int, n_out: int) -> None:
    """Check on two rows that a module maps `n_in` numbers per row to `n_out`, by itself.

    Raises
    ------
    ValueError
        If it does not, or computes with parameters of another module; names the parameter `name`.
    """
    training = module.training
    try:
        output = module.eval()(torch.zeros(2, n_in, dtype=torch.float32, device="cpu"))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise ValueError(
            f"{name}= made a module that fails on float32 rows: {error}. An encoder must map "
            "(n, *shape) to (n, n_outputs), and a decoder (n, n_components) to (n, *shape), where "
            "shape is (n_features,) or image_shape."
        ) from error
    finally:
        module.train(training)
    parts = output if isinstance(output, tuple) else (output,)
    width = sum(part[0].numel() for part in parts)
    if width != n_out or any(len(part) != 2 for part in parts):
        raise ValueError(
            f"{name}= made a module that returns {width} numbers per row, but {n_out} are needed. "
            "An encoder must return n_outputs numbers per row, a decoder as many as shape holds."
        )
    own = {id(parameter) for parameter in module.parameters()}
    foreign = [leaf for leaf in trained_leaves(parts) if id(leaf) not in own]
    if foreign:
        raise ValueError(
            f"{name}= made a module that computes with a parameter of shape "
            f"{tuple(foreign[0].shape)} that is not its own, such as a weight of another network "
            "that a function refers to. It would not be trained, copied or saved. Assign it, or "
            "the layer that has it, to an attribute of the module; encoder and decoder of one "
            "model may share it."
        )


def trained_leaves(outputs: Sequence[Tensor]) -> list[Tensor]:
    """Return the leaves of the graph behind some outputs: all that a gradient would reach."""
    leaves, seen = [], set()
    waiting = [output.grad_fn for output in outputs]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            leaves.append(node.variable)
        waiting += [before for before, _ in node.next_functions]
    return leaves
