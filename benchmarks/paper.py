"""The experiments of the HEBAE paper (Cheng et al., arXiv:2007.10389).

``python -m benchmarks paper --data fashion-mnist`` trains HEBAE, VAE and WAE with the paper's
networks, optimiser and weights, keeps the fitted models, and writes what it measures on held-out
rows to ``results/paper-<data>.json``. The defaults are what two cores can do in some hours;
``--full`` is the paper's grid. ``--resume`` keeps every cell that is finished. ``--data celeba``
takes the convolutional networks and their setting, which wants a GPU.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from benchmarks import work
from benchmarks.datasets import Table, load, split
from benchmarks.frechet import FeatureNet, floor, train_feature_net
from benchmarks.paper_measures import bounds, finite, matrices, samples
from benchmarks.results import Results, parser
from benchmarks.runner import Row
from benchmarks.speed import unwarned
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
#: What a model's training is kept of.
HISTORY = ("loss", "reconstruction", "penalty", "elbo", "seconds")


class Grid(NamedTuple):
    """A grid of models: every d at the paper's weight, every weight at the middle d."""

    dims: tuple[int, ...]
    weights: tuple[float, ...]
    middle: int
    epochs: int


class Setting(NamedTuple):
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


#: What both experiments have unlike our defaults: exact inputs, the published networks without a
#: linear path beside them, and codes on the scale of N(0, I).
PAPER = {"input_noise": 0.0, "linear_path": False, "whiten": True}
WEIGHTS, FULL_WEIGHTS = (0.1, 1.0, 10.0, 50.0), (0.1, 0.5, 1.0, 5.0, 10.0, 50.0, 100.0)
DENSE = Setting(
    *(work.dense_encoder, work.dense_decoder, "bernoulli"),
    *(dict.fromkeys(METHODS, 1e-3), work.mnist_decay, 128),
    grid=Grid((2, 10, 50), WEIGHTS, 10, 30),
    full=Grid((2, 5, 10, 20, 50), FULL_WEIGHTS, 10, 100),
)
CONVOLUTIONAL = Setting(
    *(work.conv_encoder, work.conv_decoder, "gaussian"),
    *({"HEBAE": 1e-4, "VAE": 1e-4, "WAE": 1e-3}, work.celeba_decay, 100),
    grid=Grid((64,), WEIGHTS, 64, 100),
    full=Grid((64,), FULL_WEIGHTS, 64, 100),
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
        """Return the name of its model file."""
        size = f"d{self.n_components}-w{self.weight:g}-e{self.epochs}"
        return f"{self.data}-{self.method}-{size}-s{self.seed}.skhebae"


def cells(data: str, grid: Grid, seeds: list[int], methods: list[str]) -> Iterator[Cell]:
    """Yield every cell of a grid, seed by seed: an early end leaves whole seeds."""
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
        learning_rate_init=how.learning_rate_init[cell.method],
        learning_rate=how.learning_rate,
        batch_size=how.batch_size,
        max_iter=cell.epochs,
        tol=0.0,
        precision=precision,
        random_state=cell.seed,
        **PAPER,
        **own,
    )


def trained(cell: Cell, table: Table, models: Path, *, precision: str, resume: bool) -> Any:
    """Return the fitted model of a cell, from its file if that may be used."""
    path, how = models / cell.file, setting(cell.data)
    if resume and path.exists():
        model = METHODS[cell.method][0].load(path, encoder=how.encoder, decoder=how.decoder)
        if model.precision == precision:
            return model
    model = estimator(cell, table, precision)
    with unwarned():
        model.fit(table.train)
    models.mkdir(parents=True, exist_ok=True)
    model.save(path)
    return model


def feature_net(table: Table, seed: int) -> FeatureNet | None:
    """Train the classifier in whose features samples are judged; None without labels."""
    if table.image_shape is None or len(np.unique(table.y_train)) < 2:
        return None
    parts = (table.train, table.y_train, table.test, table.y_test)
    return train_feature_net(*parts, table.image_shape, seed)


def measured(cell: Cell, model: Any, net: FeatureNet | None, table: Table, precision: str) -> Row:
    """Return one row of the result: the cell, its training, and what held-out rows say."""
    model.fitted_ = model.fitted_.with_encoder_codes()  # the paper standardises no codes
    history = {key: [finite(value) for value in model.history_[key]] for key in HISTORY}
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


def parse(argv: list[str] | None) -> tuple[argparse.Namespace, Grid]:
    """Read the command line, and the grid that it asks for."""
    made = parser("paper", __doc__, resumes=True)
    made.add_argument("--data", default="fashion-mnist")
    made.add_argument("--data-dir", type=Path)
    made.add_argument("--epochs", type=int)
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    made.add_argument("--dims", type=int, nargs="+", help="instead of the grid's")
    made.add_argument("--weights", type=float, nargs="+", help="at the middle d")
    made.add_argument("--full", action="store_true", help="the paper's grid; for a GPU")
    made.add_argument("--precision", help="by default float32 with --full, else auto")
    made.add_argument("--models", type=Path, default=MODELS, help="folder of fitted models")
    arguments = made.parse_args(argv)
    arguments.precision = arguments.precision or ("float32" if arguments.full else "auto")
    how = setting(arguments.data)
    grid = how.full if arguments.full else how.grid
    given = {name: getattr(arguments, name) for name in ("dims", "weights", "epochs")}
    grid = grid._replace(**{name: value for name, value in given.items() if value})
    if grid.middle not in grid.dims:
        grid = grid._replace(middle=grid.dims[len(grid.dims) // 2])
    return arguments, grid


def main(argv: list[str] | None = None) -> None:
    """Train and measure every cell of a grid."""
    arguments, grid = parse(argv)
    dataset = load(arguments.data, arguments.data_dir)
    if dataset is None:
        return
    how = {"precision": arguments.precision, "resume": arguments.resume}
    path = arguments.output / f"paper-{arguments.data}.json"
    results = Results(path, [of.name for of in fields(Cell)], resume=arguments.resume)
    split_of: dict[int, tuple[Table, FeatureNet | None]] = {}
    for cell in cells(arguments.data, grid, arguments.seeds, arguments.methods):
        if results.has(**asdict(cell), precision=arguments.precision):
            continue
        if cell.seed not in split_of:
            table = split(dataset, cell.seed)
            split_of = {cell.seed: (table, feature_net(table, cell.seed))}
        table, net = split_of[cell.seed]
        model = trained(cell, table, arguments.models, **how)
        results.add(measured(cell, model, net, table, arguments.precision))
