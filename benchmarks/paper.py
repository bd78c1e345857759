"""The experiments of the HEBAE paper (Cheng et al., arXiv:2007.10389).

``python -m benchmarks paper --data fashion-mnist`` trains HEBAE, VAE and WAE with
the paper's networks, optimiser and weights, keeps the fitted models in a folder, and
writes what it measures on held-out rows to ``results/paper-<data>.json``.

The defaults (30 epochs, three seeds, d in 2, 10, 50, weights 0.1, 1, 10, 50 at
d = 10) are what two cores can do in some hours; ``--full`` is the paper's 100
epochs. ``--resume`` keeps every cell that is finished.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from benchmarks import architectures
from benchmarks.common import RESULTS, Results
from benchmarks.datasets import Table, load, split
from benchmarks.frechet import FeatureNet, cache_path, floor, train_feature_net
from benchmarks.paper_measures import bounds, finite, images, matrices, samples
from skhebae import HEBAETransformer, VAETransformer, WAETransformer

MODELS = Path(__file__).parent / "cache" / "paper"

#: Method: class, name of the weight, the paper's weight.
METHODS = {
    "HEBAE": (HEBAETransformer, "reg_weight", 1.0),
    "VAE": (VAETransformer, "beta", 1.0),
    "WAE": (WAETransformer, "reg_weight", 10.0),
}

#: Hyperprior so weak that it is the plain covariance, which the paper has.
COVARIANCE_PRIOR = 1e-6


class Grid(NamedTuple):
    """What is trained: every d at the paper's weight, every weight at the middle d."""

    dims: tuple[int, ...]
    weights: tuple[float, ...]
    middle: int
    epochs: int


@dataclass(frozen=True)
class Setting:
    """An experiment of the paper: networks, optimiser and grids.

    Where the paper minimises the mean squared error over pixels, a Gaussian likelihood
    with an unstated noise variance, ours learns the variances: weights are in nats. Its
    WAE on CelebA has a beta1 of 0.5 in Adam, ours the usual 0.9.
    """

    encoder: Callable[..., nn.Module]
    decoder: Callable[..., nn.Module]
    likelihood: str
    learning_rate_init: dict[str, float]
    learning_rate: Callable[[int], float]
    batch_size: int
    grid: Grid
    full: Grid


WEIGHTS = (0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0)
DENSE = Setting(
    architectures.dense_encoder,
    architectures.dense_decoder,
    "bernoulli",
    dict.fromkeys(METHODS, 1e-3),
    architectures.mnist_decay,
    128,
    Grid((2, 10, 50), (0.1, 1.0, 10.0, 50.0), 10, 30),
    Grid((2, 5, 10, 20, 50), WEIGHTS, 10, 100),
)
CONVOLUTIONAL = Setting(
    architectures.conv_encoder,
    architectures.conv_decoder,
    "gaussian",
    {"HEBAE": 1e-4, "VAE": 1e-4, "WAE": 1e-3},
    architectures.celeba_decay,
    100,
    Grid((64,), (0.1, 1.0, 10.0, 50.0), 64, 100),
    Grid((64,), WEIGHTS, 64, 100),
)


def setting(data: str) -> Setting:
    """Return the experiment of a data set: CelebA's, or that of MNIST for all others."""
    return CONVOLUTIONAL if data == "celeba" else DENSE


@dataclass(frozen=True)
class Cell:
    """One model of the grid."""

    data: str
    method: str
    n_components: int
    weight: float
    seed: int
    epochs: int

    @property
    def file(self) -> str:
        """Name of its model file."""
        return (
            f"{self.data}-{self.method}-d{self.n_components}-w{self.weight:g}"
            f"-e{self.epochs}-s{self.seed}.skhebae"
        )


def cells(data: str, grid: Grid, seeds: list[int], methods: list[str]) -> Iterator[Cell]:
    """Every cell of a grid, one seed after the other: an early end leaves whole seeds."""
    for seed in seeds:
        for method in methods:
            _, _, usual = METHODS[method]
            pairs = [(d, usual) for d in grid.dims]
            pairs += [(grid.middle, w) for w in grid.weights if w != usual]
            for d, weight in pairs:
                yield Cell(data, method, d, weight, seed, grid.epochs)


def estimator(cell: Cell, table: Table, precision: str) -> Any:
    """Make the paper's model of a cell."""
    cls, weight, _ = METHODS[cell.method]
    how = setting(cell.data)
    own: dict[str, Any] = {weight: cell.weight}
    if cell.method == "HEBAE":
        # The published experiments drew the noise from the covariance's diagonal.
        own |= {"covariance": "diag", "covariance_prior": COVARIANCE_PRIOR}
    return cls(
        cell.n_components,
        encoder=how.encoder,
        decoder=how.decoder,
        image_shape=table.image_shape,
        likelihood=how.likelihood,
        input_noise=0.0,
        learning_rate_init=how.learning_rate_init[cell.method],
        learning_rate=how.learning_rate,
        batch_size=how.batch_size,
        max_iter=cell.epochs,
        tol=0.0,
        precision=precision,
        random_state=cell.seed,
        **own,
    )


def trained(cell: Cell, table: Table, models: Path, *, precision: str, resume: bool) -> Any:
    """Return the fitted model of a cell, from its file if that may be used."""
    path = models / cell.file
    if resume and path.exists():
        how = setting(cell.data)
        model = METHODS[cell.method][0].load(path, encoder=how.encoder, decoder=how.decoder)
        if model.precision == precision:
            return model
    model = estimator(cell, table, precision)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the paper's number of epochs
        model.fit(table.train)
    models.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def feature_net(table: Table, cell: Cell, models: Path) -> FeatureNet | None:
    """Classifier of the split's rows, in whose features samples are judged; None without labels."""
    if len(np.unique(table.y_train)) < 2:
        return None
    cache = cache_path(models, cell.data, cell.seed)
    parts = (table.train, table.y_train, table.test, table.y_test)
    return train_feature_net(*parts, table.image_shape, cell.seed, cache)


def measured(
    cell: Cell, model: Any, net: FeatureNet | None, table: Table, precision: str
) -> dict[str, Any]:
    """One row of the result: the cell, its training, and everything held-out rows say."""
    history = {
        key: [finite(value) for value in model.history_[key]]
        for key in ("loss", "reconstruction", "penalty", "elbo", "seconds")
    }
    row = {
        **asdict(cell),
        "n_train": len(table.train),
        "precision": precision,
        "history": history,
        **bounds(model, table.test),
        **matrices(model, table.test),
    }
    if net is not None:
        row["classifier_accuracy"] = net.accuracy
        row["frechet_floor"] = floor(net, table.train, table.test, cell.seed)
        row["samples"] = samples(model, net, table, cell.seed)
    return row


class CellResults(Results):
    """The JSON of a run and its images, written after every cell."""

    def has(self, cell: Cell, precision: str) -> bool:
        """Whether the cell is finished, in this precision."""
        return any(self._is(row, cell) and row["precision"] == precision for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Add a cell, in the place of an older one."""
        cell = Cell(**{field.name: row[field.name] for field in fields(Cell)})
        self.rows = [old for old in self.rows if not self._is(old, cell)] + [row]
        self.write()

    def add_images(self, cell: Cell, parts: dict[str, Any]) -> None:
        """Keep the images of the first seed of each method."""
        path = self.path.with_suffix(".npz")
        kept = dict(np.load(path)) if path.exists() else {}
        if cell.seed == 0:
            np.savez_compressed(path, **kept | {f"{cell.method} {k}": v for k, v in parts.items()})

    @staticmethod
    def _is(row: dict[str, Any], cell: Cell) -> bool:
        return all(row[name] == value for name, value in asdict(cell).items())


def main(argv: list[str] | None = None) -> None:
    """Train and measure every cell of a grid."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks paper", description=__doc__)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--dims", type=int, nargs="+", help="instead of the grid's")
    parser.add_argument("--weights", type=float, nargs="+", help="at the middle d")
    parser.add_argument("--full", action="store_true", help="the paper's grid; for a GPU")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--train-only", action="store_true")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--models", type=Path, default=MODELS, help="folder of fitted models")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    dataset = load(arguments.data, arguments.data_dir)
    if dataset is None:
        return
    how = setting(arguments.data)
    grid = how.full if arguments.full else how.grid
    given = {name: getattr(arguments, name) for name in ("dims", "weights", "epochs")}
    grid = grid._replace(**{name: value for name, value in given.items() if value})
    if grid.middle not in grid.dims:
        grid = grid._replace(middle=grid.dims[len(grid.dims) // 2])
    if arguments.full and arguments.precision == "auto":
        arguments.precision = "float32"
    output = arguments.output / f"paper-{arguments.data}.json"
    results = CellResults(output, resume=arguments.resume)
    for cell in cells(arguments.data, grid, arguments.seeds, arguments.methods):
        if arguments.resume and results.has(cell, arguments.precision):
            continue
        table = split(dataset, cell.seed)
        model = trained(
            cell, table, arguments.models, precision=arguments.precision, resume=arguments.resume
        )
        seconds, loss = sum(model.history_["seconds"]), model.history_["loss"][-1]
        print(f"{cell.file}: {seconds:.0f} s, loss {loss:.2f}", flush=True)
        if arguments.train_only:
            continue
        net = feature_net(table, cell, arguments.models)
        if cell.n_components == grid.middle and cell.weight == METHODS[cell.method][2]:
            results.add_images(cell, images(model, table, cell.seed))
        results.add(measured(cell, model, net, table, arguments.precision))


if __name__ == "__main__":
    main()
