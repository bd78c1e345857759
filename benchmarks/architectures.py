"""Networks and schedule of the paper's experiment with MNIST, for `encoder` and `decoder`.

Cheng et al., arXiv:2007.10389. Outputs are the likelihood's parameter, without sigmoid.
"""

from __future__ import annotations

from math import prod

from torch import nn


def dense_encoder(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Make p -> p -> 800 -> heads with ReLU, on MNIST 784 -> 784 -> 800."""
    p = prod(shape)
    hidden = (nn.Linear(p, p), nn.ReLU(), nn.Linear(p, 800), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(800, n_outputs))


def dense_decoder(n_components: int, shape: tuple[int, ...]) -> nn.Module:
    """Make d -> 800 -> 800 -> p with ReLU."""
    hidden = (nn.Linear(n_components, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(800, prod(shape)), nn.Unflatten(1, shape))


def mnist_decay(epoch: int) -> float:
    """Multiply by 0.995 per epoch."""
    return 0.995**epoch
