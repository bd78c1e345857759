"""Networks and schedules of the paper's experiments, as factories for `encoder` and `decoder`.

Cheng et al., arXiv:2007.10389: a dense pair for MNIST, a convolutional one for
CelebA. Their outputs are the likelihood's parameter, without sigmoid or tanh.
"""

from __future__ import annotations

from itertools import pairwise
from math import prod

from torch import nn

#: Channels of the convolutional pair, from the image inwards.
CHANNELS = (128, 256, 512, 1024)

#: Where the CelebA learning rate is divided, and by what.
CELEBA_STEPS = ((30, 2.0), (50, 5.0), (70, 10.0))


def dense_encoder(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Make p -> p -> 800 -> heads with ReLU, on MNIST 784 -> 784 -> 800."""
    p = prod(shape)
    hidden = (nn.Linear(p, p), nn.ReLU(), nn.Linear(p, 800), nn.ReLU())
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(800, n_outputs))


def dense_decoder(n_components: int, shape: tuple[int, ...]) -> nn.Module:
    """Make d -> 800 -> 800 -> p with ReLU."""
    hidden = (nn.Linear(n_components, 800), nn.ReLU(), nn.Linear(800, 800), nn.ReLU())
    return nn.Sequential(*hidden, nn.Linear(800, prod(shape)), nn.Unflatten(1, shape))


def conv_encoder(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
    """Make four 5 x 5 convolutions of stride 2 with BatchNorm and ReLU, then the heads."""
    sizes = (shape[0], *CHANNELS)
    layers: list[nn.Module] = []
    for n_in, n_out in pairwise(sizes):
        layers += [nn.Conv2d(n_in, n_out, 5, stride=2, padding=2, bias=False)]
        layers += [nn.BatchNorm2d(n_out), nn.ReLU()]
    # Each stride halves a side, rounded up.
    side = prod(-(-size // 2 ** len(CHANNELS)) for size in shape[1:])
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(CHANNELS[-1] * side, n_outputs))


def conv_decoder(n_components: int, shape: tuple[int, ...]) -> nn.Module:
    """Make a dense layer, then transposed convolutions: three of stride 2 and one of 1.

    Height and width must be multiples of 8.
    """
    inner = (CHANNELS[-1], shape[1] // 8, shape[2] // 8)
    sizes = CHANNELS[::-1]
    layers: list[nn.Module] = [
        nn.Linear(n_components, prod(inner)),
        nn.Unflatten(1, inner),
        nn.BatchNorm2d(inner[0]),
        nn.ReLU(),
    ]
    for n_in, n_out in pairwise(sizes):
        layers += [nn.ConvTranspose2d(n_in, n_out, 5, 2, padding=2, output_padding=1, bias=False)]
        layers += [nn.BatchNorm2d(n_out), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(sizes[-1], shape[0], 5, padding=2))


def mnist_decay(epoch: int) -> float:
    """Multiply by 0.995 per epoch."""
    return 0.995**epoch


def celeba_decay(epoch: int) -> float:
    """Divide by 2 after epoch 30, by 5 after 50, by 10 after 70."""
    return 1.0 / max([by for after, by in CELEBA_STEPS if epoch >= after], default=1.0)
