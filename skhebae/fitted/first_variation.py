"""What a trained model makes of features that vary for the first time: a fresh start."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from skhebae.data import Scaling
from skhebae.likelihoods import Likelihood
from skhebae.model import Autoencoder
from skhebae.networks import Decoder, Encoder, output_layer
from skhebae.training import Adam

#: A parameter, the part of it that belongs to some features alone, and where that starts.
Part = tuple[Tensor, Any, Tensor | float]


@torch.no_grad()
def start_afresh(
    model: Autoencoder,
    optimizer: Adam,
    scaling: Scaling,
    earlier: Scaling,
    features: NDArray[np.intp],
) -> None:
    """Start some features of a trained model afresh, in the units of a new scaling.

    The built-in encoder does not heed them yet, and the built-in decoder gives their means, so
    that all other features stay as they are. A module of the user's keeps its weights: nobody can
    tell which of them belong to a feature. Until now it saw zeros there.

    Parameters
    ----------
    model : Autoencoder
        Changed in place.
    optimizer : Adam
        Forgets what it knows of these features.
    scaling, earlier : Scaling
        They differ in these features.
    features : ndarray of int
    """
    index = torch.from_numpy(features).to(model.device)
    likelihood = model.likelihood
    fresh, before = (
        type(likelihood).from_scaling(of).to(model.device) for of in (scaling, earlier)
    )
    old, new = dict(before.named_buffers()), dict(fresh.named_buffers())
    for name, buffer in likelihood.named_buffers():
        # What follows from the scaling; not what was learned of the other features.
        buffer.copy_(new[name].where(new[name] != old[name], buffer))
        if buffer.shape[-1:] == likelihood.location.shape:
            buffer[..., index] = new[name][..., index]
    likelihood.calibration[index] = fresh.calibration[index]
    for parameter, part, start in feature_parts(model, index, fresh):
        parameter[part] = start
        optimizer.forget(parameter, part)
    model.hide(torch.from_numpy(np.array(scaling.constant)))


def feature_parts(model: Autoencoder, index: Tensor, fresh: Likelihood) -> Iterator[Part]:
    """Yield the parts of parameters that belong to some features, and where they start."""
    if isinstance(model.encoder, Encoder):
        first = model.encoder.layers[0]
        assert isinstance(first, nn.Linear)
        yield first.weight, (slice(None), index), 0.0
        if model.encoder.path is not None:
            yield model.encoder.path.weight, (slice(None), index), 0.0
    output = output_layer(model.decoder)
    if output is not None:
        yield output.weight, (index,), 0.0
        yield output.bias, (index,), fresh.initial_bias()[index]
    if isinstance(model.decoder, Decoder):
        yield model.decoder.path.weight, (index,), 0.0
    starts = dict(fresh.named_parameters())
    for name, parameter in model.likelihood.named_parameters():
        if parameter.shape[-1:] == fresh.location.shape:
            yield parameter, (..., index), starts[name][..., index]
