"""From a description of the networks to a model."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import Scaling
from skhebae.files import check_array
from skhebae.likelihoods import Likelihood, find_likelihood
from skhebae.model import Autoencoder
from skhebae.networks import (
    CustomDecoder,
    CustomEncoder,
    Decoder,
    DecoderFactory,
    Encoder,
    EncoderFactory,
    check_maps,
    global_random_state,
    made_by,
    mlp,
    own_copy,
)
from skhebae.prior import Prior, StandardNormalPrior
from skhebae.tilted_prior import TiltedPrior

#: ``prior(n_components)`` returns a new prior.
PriorFactory = Callable[[int], Prior]

#: Fields of an `Architecture` that are code of the user's, so that a file only names them.
FACTORIES = ("encoder", "decoder", "prior")


class Architecture(NamedTuple):
    """All that is needed to rebuild the networks around saved weights.

    Attributes
    ----------
    n_features, n_components : int
    hidden_layer_sizes : tuple of int
        Layers of the encoder; the decoder mirrors them.
    activation : str
    likelihood : str or type of Likelihood
        Name of a family, or the family.
    n_scales : int
        Width of the encoder's scale head.
    n_batches : int
        Experimental batches whose labels the decoder sees, 0 for none.
    encode_batch : bool
        Whether the encoder sees them too.
    encoder, decoder : callable or None
        The user's factories, in place of the perceptrons.
    image_shape : tuple of int or None
        Shape in which they see a row.
    prior : callable or None
        The user's factory; None is N(0, I).
    linear_path : bool
        Whether networks start as principal component analysis, perceptrons beside a linear path.
    tilt : float or None
        Tilt of the built-in tilted prior; None is N(0, I), or the prior of the user's factory.
    """

    n_features: int
    n_components: int
    hidden_layer_sizes: tuple[int, ...]
    activation: str
    likelihood: str | type[Likelihood]
    n_scales: int
    n_batches: int = 0
    encode_batch: bool = False
    encoder: EncoderFactory | None = None
    decoder: DecoderFactory | None = None
    image_shape: tuple[int, ...] | None = None
    prior: PriorFactory | None = None
    linear_path: bool = False
    tilt: float | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one row, as factories see it."""
        return self.image_shape or (self.n_features,)

    def pack(self) -> dict[str, Any]:
        """Return a dict; a field that was added later is left out where it has its default."""
        packed = self._asdict()
        for name in ("prior", "linear_path", "tilt"):
            if packed[name] == self._field_defaults[name]:
                del packed[name]
        return packed

    @classmethod
    def unpack(cls, packed: dict[str, Any]) -> Architecture:
        """Invert `pack`, also after JSON has turned tuples into lists."""
        fields = dict(packed)
        for name in ("hidden_layer_sizes", "image_shape"):
            if fields.get(name) is not None:
                fields[name] = tuple(fields[name])
        return cls(**fields)


def count_weights(architecture: Architecture) -> int:
    """Return the number of weights of the perceptrons; networks of the user's have none here."""
    a, total = architecture, 0
    hidden = a.hidden_layer_sizes
    labels = a.n_batches if a.encode_batch else 0
    encoder = (a.n_features + labels, *hidden, a.n_components + a.n_scales)
    decoder = (a.n_components + a.n_batches, *hidden[::-1], a.n_features)
    for sizes, factory in ((encoder, a.encoder), (decoder, a.decoder)):
        if factory is None:
            total += sum((n_in + 1) * n_out for n_in, n_out in pairwise(sizes))
            if a.linear_path and hidden:
                total += sizes[0] * (a.n_components if sizes is encoder else a.n_features)
    return total


def load_weights(model: Autoencoder, weights: dict[str, NDArray[Any]]) -> None:
    """Put saved weights into a model.

    Raises
    ------
    ValueError, RuntimeError
        If names, shapes or data types are not those of the model, or a number is not finite.
    """
    own = model.state_dict()
    for name, array in weights.items():
        if name not in own:
            continue  # load_state_dict names those that are there or lacking against the rule
        built = own[name]
        check_array(array, f"the array {name!r}", tuple(built.shape), built.numpy().dtype)
        # A module of the user's may hold infinite constants.
        if not np.isfinite(array).all() and bool(built.isfinite().all()):
            raise ValueError(f"the array {name!r} has numbers that are not finite")
    # A copy of those of a memory-mapped pickle, which are read-only.
    own_arrays = {k: v if v.flags.writeable else np.array(v) for k, v in weights.items()}
    model.load_state_dict({k: torch.from_numpy(v) for k, v in own_arrays.items()})


def build_model(
    architecture: Architecture,
    scaling: Scaling,
    generator: torch.Generator | None,
    initial_scale: float = 0.0,
) -> Autoencoder:
    """Make the untrained networks on the CPU, with all randomness from `generator`.

    Without one, perceptrons start at 0, for saved weights to take their place.
    """
    copies: dict[int, Any] = {}
    likelihood = find_likelihood(architecture.likelihood).from_scaling(scaling)
    likelihood = own_copy("likelihood", likelihood, copies).float()
    if architecture.linear_path:
        likelihood.start_linear()
    encoder = build_encoder(architecture, generator, initial_scale, copies)
    decoder = build_decoder(architecture, generator, likelihood.initial_bias(), copies)
    prior = build_prior(architecture.prior, architecture.n_components, architecture.tilt)
    prior = own_copy("prior", prior, copies)
    return Autoencoder(
        encoder,
        decoder,
        likelihood,
        prior,
        architecture.n_batches,
        architecture.encode_batch,
        torch.from_numpy(np.array(scaling.constant)),
    )


def build_prior(
    factory: PriorFactory | None, n_components: int, tilt: float | str | None = None
) -> Prior:
    """Make N(0, I), the prior of a tilt, or what the user's factory returns.

    Raises
    ------
    TypeError
        If the factory is a prior itself, or returns something else than one.
    """
    if tilt is not None:
        return TiltedPrior(n_components, tilt)
    if factory is None:
        return StandardNormalPrior(n_components)
    if isinstance(factory, Prior):
        raise TypeError(
            f"prior={type(factory).__name__}(...) is a prior, but every fit makes a new one. Pass "
            "the class, or a function of n_components that returns it."
        )
    prior = factory(n_components)
    if not isinstance(prior, Prior):
        raise TypeError(
            f"prior={factory!r} returned {type(prior).__name__}. It must return a "
            "skhebae.prior.Prior."
        )
    return prior


def build_encoder(
    architecture: Architecture,
    generator: torch.Generator | None,
    initial_scale: float,
    copies: dict[int, Any],
) -> Encoder | CustomEncoder:
    """Make the perceptron, or what the user's factory returns."""
    n_labels = architecture.n_batches if architecture.encode_batch else 0
    if architecture.encoder is None:
        return Encoder(
            architecture.n_features + n_labels,
            architecture.n_components,
            architecture.hidden_layer_sizes,
            architecture.activation,
            n_scales=architecture.n_scales,
            initial_scale=initial_scale,
            generator=generator,
            # Linear networks are their own linear path.
            linear_path=architecture.linear_path and len(architecture.hidden_layer_sizes) > 0,
        )
    n_outputs = architecture.n_components + architecture.n_scales
    with global_random_state(draw_seed(generator)):
        arguments = (architecture.shape, n_outputs)
        module = made_by("encoder", architecture.encoder, *arguments, copies=copies)
        encoder = CustomEncoder(
            module, architecture.shape, architecture.n_components, initial_scale
        )
        check_maps("encoder", encoder, architecture.n_features, n_outputs)
    return encoder


def build_decoder(
    architecture: Architecture,
    generator: torch.Generator | None,
    initial_bias: Tensor,
    copies: dict[int, Any],
) -> torch.nn.Module:
    """Make the perceptron, or what the user's factory returns."""
    # The label of the batch follows the code.
    n_inputs = architecture.n_components + architecture.n_batches
    if architecture.decoder is not None:
        with global_random_state(draw_seed(generator)):
            arguments = (n_inputs, architecture.shape)
            module = made_by("decoder", architecture.decoder, *arguments, copies=copies)
            custom = CustomDecoder(module)
            check_maps("decoder", custom, n_inputs, architecture.n_features)
        return custom
    hidden = architecture.hidden_layer_sizes[::-1]
    sizes = (n_inputs, *hidden, architecture.n_features)
    decoder = mlp(sizes, architecture.activation, generator)
    output = decoder[-1]
    assert isinstance(output, torch.nn.Linear)
    with torch.no_grad():
        # Start at the feature means: constant features then stay there exactly.
        output.weight.zero_()
        output.bias.copy_(initial_bias)
    if architecture.linear_path and hidden:
        return Decoder(decoder, n_inputs, architecture.n_features)
    return decoder


def draw_seed(generator: torch.Generator | None) -> int:
    """Draw a seed from a generator, or return 0."""
    if generator is None:
        return 0
    return int(torch.randint(2**31, (), generator=generator, device="cpu"))


def factory_name(factory: object) -> str | None:
    """Return how files and messages name a factory, or None for None."""
    if factory is None or isinstance(factory, str):
        return factory
    return getattr(factory, "__qualname__", repr(factory))
