"""From the parameters of an estimator to the parts that are trained."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data import CountScaling, FeatureScaling, Scaling
from skhebae.data.scaling import Matrix
from skhebae.likelihoods import (
    BernoulliLikelihood,
    CountLikelihood,
    GaussianLikelihood,
    Likelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from skhebae.model import Architecture, Autoencoder
from skhebae.networks import (
    CustomDecoder,
    CustomEncoder,
    Encoder,
    check_maps,
    global_random_state,
    made_by,
    mlp,
)
from skhebae.processes import ALONE, Processes

#: Likelihoods of counts by name.
COUNTS: dict[str, type[CountLikelihood]] = {
    "poisson": PoissonLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomialLikelihood,
}
LIKELIHOODS = {"gaussian", "bernoulli", *COUNTS}

#: `max_iter="auto"` spends from the first to the second of these numbers of
#: optimiser steps...
AUTO_STEPS = (400, 6000)
#: ...the middle of them on a table of this many rows...
AUTO_HALF_ROWS = 6000
#: ...or of this many rows of counts: thousands of noisy features are sooner over-fitted.
AUTO_HALF_ROWS_OF_COUNTS = 24_000
#: ...and never shows a row to the network less often than this.
AUTO_MIN_EPOCHS = 5

#: Smallest and largest minibatch of `batch_size="auto"`, and the minibatches
#: in an epoch that it aims at between them.
AUTO_BATCH = (32, 128)
AUTO_MINIBATCHES = 8
#: Whatever the table, this many rows a minibatch for every latent dimension.
AUTO_ROWS_PER_COMPONENT = 4

#: `input_noise="auto"` on a table with fewer rows than the encoder has weights...
AUTO_INPUT_NOISE = 0.3
#: ...and of counts, most of whose variance is the noise of counting: as much again.
AUTO_INPUT_NOISE_OF_COUNTS = 1.0


def auto_epochs(n_rows: int, batch_size: int, likelihood: str = "gaussian") -> int:
    """Epochs that `max_iter="auto"` stands for.

    The number of steps rises with the number of rows and saturates: small
    tables are over-fitted by more, large ones learn nothing more from it.
    """
    low, high = AUTO_STEPS
    half = AUTO_HALF_ROWS_OF_COUNTS if likelihood in COUNTS else AUTO_HALF_ROWS
    steps = low + (high - low) * n_rows / (n_rows + half)
    return max(AUTO_MIN_EPOCHS, round(steps / max(1, n_rows // batch_size)))


def auto_batch_size(n_rows: int, n_components: int) -> int:
    """Rows that `batch_size="auto"` stands for.

    Small tables want noisier steps. And a minibatch of fewer rows than the
    code has dimensions sees its covariance inflated in the few directions it
    spans, so that the codes of the whole table come out too narrow.
    """
    low, high = AUTO_BATCH
    wanted = min(high, max(low, n_rows // AUTO_MINIBATCHES))
    return max(wanted, AUTO_ROWS_PER_COMPONENT * n_components)


def auto_input_noise(model: Autoencoder, n_rows: int) -> float:
    """Noise that `input_noise="auto"` stands for.

    Constant while the encoder has more weights than there are rows, so that
    it could learn them by heart, and fading in proportion beyond: with enough
    rows, the estimator is the plain method. A linear encoder learns a
    subspace, which needs no such help, and gets none.
    """
    linear = (torch.nn.Linear, torch.nn.Identity)
    # What a user's module computes cannot be told from its layers.
    if isinstance(model.encoder, Encoder) and all(
        isinstance(layer, linear) for layer in model.encoder.layers
    ):
        return 0.0
    n_weights = sum(p.numel() for p in model.encoder.parameters() if p.ndim > 1)
    of_counts = isinstance(model.likelihood, CountLikelihood)
    noise = AUTO_INPUT_NOISE_OF_COUNTS if of_counts else AUTO_INPUT_NOISE
    return noise * min(1.0, n_weights / n_rows)


def measure_scaling(
    likelihood: str,
    X: Matrix,
    size_factor: NDArray[np.float64] | None = None,
    processes: Processes = ALONE,
) -> Scaling:
    """Measure a validated table, and those of other processes, as its likelihood needs it."""
    if likelihood in COUNTS:
        return CountScaling.measure(X, size_factor, processes)
    return FeatureScaling.measure(X, processes=processes)


def build_likelihood(name: str, scaling: Scaling) -> Likelihood:
    """Make the likelihood of rows standardised by `scaling`."""

    # Built in double, so that any unit has a logarithm, and used in float32.
    # Copies: a memory-mapped pickle gives read-only arrays.
    def tensor(part: NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(np.array(part))

    location, scale = tensor(scaling.location), tensor(scaling.scale)
    if isinstance(scaling, CountScaling):
        sizes = tensor(scaling.proportions), tensor(scaling.typical_size)
        return COUNTS[name](location, scale, *sizes).float()
    assert isinstance(scaling, FeatureScaling)
    if name == "gaussian":
        return GaussianLikelihood(location, scale, tensor(scaling.variance)).float()
    return BernoulliLikelihood(location, scale).float()


def build_model(
    architecture: Architecture,
    scaling: Scaling,
    generator: torch.Generator,
    initial_scale: float = 0.0,
) -> Autoencoder:
    """Make the untrained networks on the CPU, all randomness from `generator`."""
    likelihood = build_likelihood(architecture.likelihood, scaling)
    encoder = build_encoder(architecture, generator, initial_scale)
    decoder = build_decoder(architecture, generator, likelihood.initial_bias())
    return Autoencoder(
        encoder, decoder, likelihood, architecture.n_batches, architecture.encode_batch
    )


def build_encoder(
    architecture: Architecture, generator: torch.Generator, initial_scale: float
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
        )
    n_outputs = architecture.n_components + architecture.n_scales
    with global_random_state(drawn_seed(generator)):
        module = made_by("encoder", architecture.encoder, architecture.shape, n_outputs)
        encoder = CustomEncoder(
            module, architecture.shape, architecture.n_components, initial_scale
        )
        check_maps("encoder", encoder, architecture.n_features, n_outputs)
    return encoder


def build_decoder(
    architecture: Architecture, generator: torch.Generator, initial_bias: Tensor
) -> torch.nn.Module:
    """Make the perceptron, or what the user's factory returns."""
    # The label of the batch stands behind the code.
    n_inputs = architecture.n_components + architecture.n_batches
    if architecture.decoder is not None:
        with global_random_state(drawn_seed(generator)):
            arguments = (n_inputs, architecture.shape)
            custom = CustomDecoder(made_by("decoder", architecture.decoder, *arguments))
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
    return decoder


def drawn_seed(generator: torch.Generator) -> int:
    """Draw a seed from a generator."""
    return int(torch.randint(2**31, (), generator=generator))
