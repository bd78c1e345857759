"""Quality of samples in features of a small classifier of the same data.

The classifier is trained on the labels of the training rows. It is not Inception: its Fréchet
distances compare models of one data set by one network, and mean nothing beside published
"FID" numbers. `floor` says what real rows get.
"""

from __future__ import annotations

import contextlib
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from joblib import parallel_config
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils import skip_init

from benchmarks.metrics import Measured, judged, slack, subsample

Array = NDArray[Any]

#: Rows behind precision, recall, density and coverage, at most: they cost the square.
NEIGHBOUR_ROWS = 2000
#: Minibatches of training, at least, and epochs, at least.
MIN_UPDATES, MIN_EPOCHS = 300, 5
BATCH_SIZE = 128
#: Rows mapped at once.
CHUNK = 1000
#: How far the controls of precision, recall, density and coverage may be from 1 and 0, beyond
#: what chance explains: k neighbours cover most of a set, not all, and reach a little beyond.
SHARE_SLACK = 0.15
#: Times the floor that noise must be away for a Fréchet distance to be reported.
FAR = 10.0


class FeatureNet(nn.Module):
    """Small classifier whose last hidden layer gives 64 features.

    Rows are flat; `shape` is theirs before, ``(channels, height, width)`` for convolutions
    with stride 2, or ``(n_features,)`` for a perceptron. Features are centred and have unit
    variance on the training rows, so that distances do not depend on the network's scale.
    """

    def __init__(self, shape: Sequence[int], n_classes: int, generator: torch.Generator) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.num_features = 64
        layers: list[nn.Module] = []
        n_inputs = self.shape[0]
        if len(self.shape) == 3:
            _, height, width = self.shape
            # Images of 8 x 8 need their pixels more than they need another stride.
            for n_outputs, stride in ((16, 2 if height > 8 else 1), (32, 2), (64, 2)):
                options = {"kernel_size": 3, "stride": stride, "padding": 1}
                conv = weighted(nn.Conv2d, n_inputs, n_outputs, generator, **options)
                layers += [conv, nn.ReLU()]
                n_inputs = n_outputs
                height, width = (-(-side // stride) for side in (height, width))
            layers.append(nn.Flatten())
            n_inputs = 64 * height * width
        else:
            layers += [weighted(nn.Linear, n_inputs, 128, generator), nn.ReLU()]
            n_inputs = 128
        layers.append(weighted(nn.Linear, n_inputs, self.num_features, generator))
        self.body = nn.Sequential(*layers, nn.BatchNorm1d(self.num_features, affine=False))
        self.head = weighted(nn.Linear, self.num_features, n_classes, generator)
        self.accuracy = float("nan")

    def forward(self, rows: Tensor) -> Tensor:
        """Features of flat rows."""
        features: Tensor = self.body(rows.reshape(len(rows), *self.shape))
        return features

    def logits(self, rows: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the labels."""
        logits: Tensor = self.head(self(rows).relu())
        return logits


def weighted(
    layer: type[nn.Module], n_in: int, n_out: int, generator: torch.Generator, **options: int
) -> nn.Module:
    """Layer with He's weights from `generator`, not from the global random state."""
    initialised = skip_init(layer, n_in, n_out, **options)
    nn.init.kaiming_normal_(initialised.weight, nonlinearity="relu", generator=generator)
    nn.init.zeros_(initialised.bias)
    return initialised


def train_feature_net(
    train: Array,
    y_train: Array,
    test: Array,
    y_test: Array,
    shape: Sequence[int] | None = None,
    seed: int = 0,
    cache: Path | None = None,
) -> FeatureNet:
    """Train a `FeatureNet`; its attribute `accuracy` is that at the test rows' labels.

    A file `cache` keeps it (see `cache_path`), and is written anew for other rows, another
    shape or another seed.
    """
    shape = (train.shape[1],) if shape is None else tuple(shape)
    classes, targets = np.unique(y_train, return_inverse=True)
    generator = torch.Generator().manual_seed(seed)
    net = FeatureNet(shape, len(classes), generator)
    train, test = (np.ascontiguousarray(part, dtype=np.float32) for part in (train, test))
    made_from = [seed, *shape, *(zlib.crc32(part) for part in (train, targets, test))]
    if cache is not None and cache.is_file():
        kept = torch.load(cache, weights_only=True)
        if kept["made_from"] == made_from:
            net.load_state_dict(kept["state"])
            net.accuracy = kept["accuracy"]
            return net.eval()
    _fit(net, torch.from_numpy(train), torch.from_numpy(targets), generator)
    with torch.inference_mode():
        chunks = torch.split(torch.from_numpy(test), CHUNK)
        predicted = torch.cat([net.logits(chunk).argmax(dim=1) for chunk in chunks]).numpy()
    net.accuracy = float((classes[predicted] == y_test).mean())
    if cache is not None:
        cache.parent.mkdir(parents=True, exist_ok=True)
        kept = {"made_from": made_from, "state": net.state_dict(), "accuracy": net.accuracy}
        partial = cache.with_suffix(".partial")  # an interrupted run leaves no broken cache
        torch.save(kept, partial)
        partial.replace(cache)
    return net


def _fit(net: FeatureNet, rows: Tensor, targets: Tensor, generator: torch.Generator) -> None:
    """Adam, with a learning rate that falls to 0 so that so few epochs end at rest."""
    n_minibatches = max(1, len(rows) // BATCH_SIZE)
    n_epochs = max(MIN_EPOCHS, -(-MIN_UPDATES // n_minibatches))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, n_epochs * n_minibatches)
    net.train()
    for _ in range(n_epochs):
        # Nearly equal parts: the normalisation cannot take a leftover row alone.
        for part in torch.randperm(len(rows), generator=generator).tensor_split(n_minibatches):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net.logits(rows[part]), targets[part]).backward()
            optimizer.step()
            decay.step()
    net.eval()


def cache_path(folder: Path, data: str, seed: int) -> Path:
    """File of the classifier of a data set's split."""
    return folder / f"feature_net-{data}-{seed}.pt"


def features(net: FeatureNet, rows: Array) -> NDArray[np.float64]:
    """Last hidden layer's values, one row each."""
    chunks = torch.split(torch.from_numpy(np.ascontiguousarray(rows, dtype=np.float32)), CHUNK)
    net.eval()
    with torch.inference_mode():
        return torch.cat([net(chunk) for chunk in chunks]).double().numpy()


class _Precomputed(nn.Identity):
    """Stands where torchmetrics expects a network, and takes features for images.

    Given the network itself, torchmetrics would round the distance to its float32.
    """

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features


def frechet_of_features(real: Array, generated: Array) -> float:
    """Squared Fréchet distance of the Gaussians with the features' moments."""
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(_Precomputed(real.shape[1]), normalize=True)
    for part, is_real in ((real, True), (generated, False)):
        metric.update(torch.from_numpy(np.asarray(part, dtype=np.float64)), real=is_real)
    return float(metric.compute())


def frechet_distance(features_net: FeatureNet, rows: Array, samples: Array) -> float:
    """Fréchet distance of rows and samples in features of a small classifier, not Inception.

    It is biased upwards the more, the fewer rows there are: compare it only with distances,
    and with a `floor`, of as many.
    """
    return frechet_of_features(features(features_net, rows), features(features_net, samples))


def floor(net: FeatureNet, train_rows: Array, test_rows: Array, seed: int = 0) -> float:
    """Fréchet distance of training rows from equally many test rows, drawn at random."""
    size = min(len(train_rows), len(test_rows))
    drawn = (subsample(size, seed, rows)[0] for rows in (train_rows, test_rows))
    return frechet_distance(net, *drawn)


def neighbour_shares(real: Array, generated: Array, nearest_k: int) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019), density and coverage (Naeem et al. 2020)."""
    from prdc import compute_prdc

    # It prints the numbers of rows; and its threads would race for the warning filters.
    with contextlib.redirect_stdout(io.StringIO()), parallel_config(backend="sequential"):
        shares = compute_prdc(real, generated, nearest_k)
    return {name: float(share) for name, share in shares.items()}


def sample_quality(
    net: FeatureNet,
    real_rows: Array,
    sampled_rows: Array,
    nearest_k: int = 5,
    reference_rows: Array | None = None,
    seed: int = 0,
) -> dict[str, Measured]:
    """Fréchet distance, precision, recall, density and coverage, each with its controls.

    Equally many rows of each kind count, and at most `NEIGHBOUR_ROWS` for all but the
    Fréchet distance. The positive control has `reference_rows`, other real rows (training
    rows where `real_rows` are held out; by default halves of `real_rows`), in the place of
    samples; the negative one has white noise over the range of the values.
    Samples that are not finite have no valid measure.
    """
    if not np.isfinite(sampled_rows).all():
        names = ("frechet", "precision", "recall", "density", "coverage")
        return dict.fromkeys(names, Measured(np.nan, np.nan, np.nan, False))
    if reference_rows is None:
        (mixed,) = subsample(len(real_rows), seed, real_rows)
        real_rows, reference_rows = mixed[: len(mixed) // 2], mixed[len(mixed) // 2 :]
    rng = np.random.default_rng(seed)
    noise = rng.uniform(real_rows.min(), real_rows.max(), real_rows.shape)
    kinds = (real_rows, sampled_rows, reference_rows, noise)
    size = min(len(rows) for rows in kinds)
    real, *others = (features(net, subsample(size, seed + i, r)[0]) for i, r in enumerate(kinds))
    value, lowest, highest = (frechet_of_features(real, other) for other in others)
    # A distance has no scale of its own: noise must be far beyond the floor.
    valid = bool(np.isfinite(value)) and highest > FAR * lowest
    few = min(size, NEIGHBOUR_ROWS)
    shares = [neighbour_shares(real[:few], other[:few], nearest_k) for other in others]
    near = SHARE_SLACK + slack(few)
    return {"frechet": Measured(value, lowest, highest, valid)} | {
        name: judged((share[name] for share in shares), (0.0, 0.0), near, best_slack=near)
        for name in shares[0]
    }
