"""Quality of samples in features of a small classifier of the same images.

It is not Inception: its Fréchet distances compare models of one data set by one network, and
mean nothing beside published "FID" numbers. `floor` is the distance of real rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import skip_init

from benchmarks.metrics import Measured, subsample

Array = NDArray[Any]
#: Minibatches of training, at least, and epochs, at least.
MIN_UPDATES, MIN_EPOCHS = 300, 5
BATCH_SIZE = 128
#: Rows mapped at once, and features of a row.
CHUNK, N_FEATURES = 1000, 64
#: Times the floor that noise must be away for a Fréchet distance to be reported.
FAR = 10.0


class FeatureNet(nn.Module):
    """Small convolutional classifier whose last hidden layer gives `N_FEATURES` features.

    Rows are flat; `shape` is ``(channels, height, width)``. Features have unit variance.
    """

    def __init__(self, shape: tuple[int, ...], n_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = shape
        self.accuracy = float("nan")
        n_inputs, height, width = shape
        layers: list[nn.Module] = []
        # Images of 8 x 8 need their pixels more than they need another stride.
        for n_outputs, stride in ((16, 2 if height > 8 else 1), (32, 2), (64, 2)):
            how = {"kernel_size": 3, "stride": stride, "padding": 1}
            layers += [weighted(nn.Conv2d, n_inputs, n_outputs, generator, **how), nn.ReLU()]
            n_inputs, height, width = n_outputs, -(-height // stride), -(-width // stride)
        layers += [nn.Flatten(), weighted(nn.Linear, 64 * height * width, N_FEATURES, generator)]
        self.body = nn.Sequential(*layers, nn.BatchNorm1d(N_FEATURES, affine=False))
        self.head = weighted(nn.Linear, N_FEATURES, n_classes, generator)

    def forward(self, rows: Tensor) -> Tensor:
        """Return features of flat rows."""
        features: Tensor = self.body(rows.reshape(len(rows), *self.shape))
        return features


def weighted(
    layer: type[nn.Module], n_in: int, n_out: int, generator: torch.Generator, **options: int
) -> nn.Module:
    """Make a layer with He's weights from `generator`, not from the global random state."""
    made = skip_init(layer, n_in, n_out, **options)
    nn.init.kaiming_normal_(made.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(made.bias)
    return made


def train_feature_net(
    train: Array, y_train: Array, test: Array, y_test: Array, shape: tuple[int, ...], seed: int = 0
) -> FeatureNet:
    """Train a `FeatureNet`; its `accuracy` is that at the test rows' labels."""
    classes, labels = np.unique(y_train, return_inverse=True)
    rows, targets = torch.from_numpy(train.astype(np.float32)), torch.from_numpy(labels)
    generator = torch.Generator().manual_seed(seed)
    net = FeatureNet(shape, len(classes), generator)
    n_minibatches = max(1, len(rows) // BATCH_SIZE)
    n_epochs = max(MIN_EPOCHS, -(-MIN_UPDATES // n_minibatches))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_epochs * n_minibatches)
    for _ in range(n_epochs):
        # Nearly equal parts: the normalisation cannot take one leftover row.
        for part in torch.randperm(len(rows), generator=generator).tensor_split(n_minibatches):
            optimizer.zero_grad()
            logits = net.head(net(rows[part]).relu())
            nn.functional.cross_entropy(logits, targets[part]).backward()
            optimizer.step()
            decay.step()
    found = torch.from_numpy(features(net, test)).float()
    with torch.inference_mode():
        predicted = net.head(found.relu()).argmax(dim=1).numpy()
    net.accuracy = float((classes[predicted] == y_test).mean())
    return net


def features(net: FeatureNet, rows: Array) -> NDArray[np.float64]:
    """Return the last hidden layer's values of each row."""
    net.eval()
    with torch.inference_mode():
        chunks = torch.from_numpy(rows.astype(np.float32)).split(CHUNK)
        return torch.cat([net(chunk) for chunk in chunks]).double().numpy()


def frechet_of_features(real: Array, generated: Array) -> float:
    """Return the squared Fréchet distance of the Gaussians with the features' moments.

    ``|m - n|^2 + tr(S + T) - 2 tr((S T)^(1/2))``, the last from the eigenvalues of S T.
    """
    shift = np.square(real.mean(axis=0) - generated.mean(axis=0)).sum()
    s, t = np.cov(real, rowvar=False), np.cov(generated, rowvar=False)
    roots = np.sqrt(np.linalg.eigvals(s @ t).real.clip(min=0.0))
    return float(shift + np.trace(s) + np.trace(t) - 2.0 * roots.sum())


def frechet_distance(net: FeatureNet, rows: Array, samples: Array) -> float:
    """Return the distance in a classifier's features, which is biased upwards by few rows."""
    return frechet_of_features(features(net, rows), features(net, samples))


def floor(net: FeatureNet, train_rows: Array, test_rows: Array, seed: int = 0) -> float:
    """Return the Fréchet distance of training rows from equally many test rows."""
    size = min(len(train_rows), len(test_rows))
    drawn = (subsample(size, seed, rows)[0] for rows in (train_rows, test_rows))
    return frechet_distance(net, *drawn)


def sample_quality(
    net: FeatureNet, real_rows: Array, sampled_rows: Array, reference_rows: Array, seed: int = 0
) -> Measured:
    """Measure the Fréchet distance of samples from held-out rows, with its controls.

    Equally many rows of each kind count. The positive control has `reference_rows`, other
    real rows, in the place of samples; the negative one has white noise over the range of the
    values. Samples that are not finite have no valid measure.
    """
    if not np.isfinite(sampled_rows).all():
        return Measured(np.nan, np.nan, np.nan, False)
    rng = np.random.default_rng(seed)
    noise = rng.uniform(real_rows.min(), real_rows.max(), real_rows.shape)
    kinds = (real_rows, sampled_rows, reference_rows, noise)
    size = min(len(rows) for rows in kinds)
    real, *others = (features(net, subsample(size, seed + i, r)[0]) for i, r in enumerate(kinds))
    value, lowest, highest = (frechet_of_features(real, other) for other in others)
    # A distance has no scale of its own: noise must be far beyond the floor.
    valid = bool(np.isfinite(value)) and highest > FAR * lowest
    return Measured(value, lowest, highest, valid)
