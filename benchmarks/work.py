"""The work whose speed is measured: generated rows, the paper's networks, fits to the rows."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import prod
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import sparse
from torch import nn

BATCH_SIZE = 128
N_COMPONENTS = 10
#: Rows of the tables, a multiple of the minibatch.
N_ROWS = 100 * BATCH_SIZE
#: Genes of generated cells, of which one in each stretch of `STRETCH` is not zero.
N_GENES, STRETCH = 2000, 20
#: Hidden units of the default networks.
N_HIDDEN = 128
#: Learning rate of the paper's networks in ours and in pythae; it does not change the speed.
LEARNING_RATE = 1e-3
#: Channels of the paper's convolutional pair, from the image inwards.
CHANNELS = (128, 256, 512, 1024)
#: Where its learning rate on CelebA is divided, and by what.
CELEBA_STEPS = ((30, 2.0), (50, 5.0), (70, 10.0))
Fit = Callable[[int], Any]


def images(n_rows: int = N_ROWS) -> np.ndarray:
    """Draw rows like those of an image: 784 numbers in [0, 1] that depend on ten."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_rows, 10)) @ rng.normal(size=(10, 784))
    return (1.0 / (1.0 + np.exp(-values))).astype(np.float32)


def counts(n_rows: int = N_ROWS, n_features: int = N_GENES, seed: int = 0) -> sparse.csr_matrix:
    """Draw counts like those of cells, one of each `STRETCH` features not zero."""
    rng = np.random.default_rng(seed)
    starts = np.arange(0, n_features, STRETCH)
    columns = starts + rng.integers(STRETCH, size=(n_rows, len(starts)))
    numbers = 1.0 + rng.poisson(rng.gamma(0.5, 2.0, size=columns.shape))
    pointers = np.arange(n_rows + 1) * len(starts)
    shape = (n_rows, starts[-1] + STRETCH)
    return sparse.csr_matrix((numbers.astype(np.float32).ravel(), columns.ravel(), pointers), shape)


def log_values(n_rows: int = N_ROWS) -> sparse.csr_matrix:
    """Draw log-normalised counts."""
    rows = counts(n_rows)
    totals = np.asarray(rows.sum(axis=1)).ravel()
    return (sparse.diags(np.float32(1e4) / totals) @ rows).log1p().tocsr().astype(np.float32)


def ours(name: str, rows: Any, **params: Any) -> Fit:
    """Return a fit of one of ours for a number of epochs."""
    import skhebae

    def fit(epochs: int) -> Any:
        usual = {"n_components": N_COMPONENTS, "batch_size": BATCH_SIZE, "random_state": 0}
        cls = getattr(skhebae, f"{name}Transformer")
        return cls(max_iter=epochs, n_iter_no_change=10**6, **usual | params).fit(rows)

    return fit


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


def networks() -> dict[str, Any]:
    """Return the paper's networks and likelihood for MNIST."""
    return {"encoder": dense_encoder, "decoder": dense_decoder, "likelihood": "bernoulli"}


def paper(name: str, rows: np.ndarray, **params: Any) -> Fit:
    """Return a fit of the paper's networks to images, without noise on inputs as in pythae."""
    rate = {"learning_rate_init": LEARNING_RATE, "learning_rate": "constant", "input_noise": 0.0}
    return ours(name, rows, **networks(), **rate, **params)


def multiplications(work: str) -> float:
    """Count a row's multiplications per step: forward, both gradients, none by the first input."""
    d, h = N_COMPONENTS, N_HIDDEN
    if work == "paper":
        sizes = [(784, 784), (784, 800), (800, 2 * d), (d, 800), (800, 800), (800, 784)]
    else:
        sizes = [(N_GENES, h), (h, 2 * d), (d, h), (h, N_GENES)]
    products = [a * b for a, b in sizes]
    return 3.0 * sum(products) - products[0]


def pythae(rows: np.ndarray, d: int = N_COMPONENTS, *, on_gpu: bool = False) -> Fit:
    """Return a fit of pythae's VAE with the same networks; rows outside [0, 1] are Gaussian."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig

    shape, bits = rows.shape[1:], rows.min() >= 0.0 and rows.max() <= 1.0

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = dense_encoder(shape, 2 * d)

        def forward(self, x: Any) -> Any:
            mu, log_var = self.layers(x).chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            last = nn.Sigmoid() if bits else nn.Identity()
            self.layers = nn.Sequential(dense_decoder(d, shape), last)

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    def fit(epochs: int) -> Any:
        loss = "bce" if bits else "mse"
        config = VAEConfig(input_dim=shape, latent_dim=d, reconstruction_loss=loss)
        model = VAE(config, encoder=Encoder(), decoder=Decoder())
        with TemporaryDirectory() as folder:
            size = {"num_epochs": epochs, "per_device_train_batch_size": BATCH_SIZE}
            how = {"learning_rate": LEARNING_RATE, "no_cuda": not on_gpu}
            training = BaseTrainerConfig(output_dir=folder, **size, **how)
            TrainingPipeline(model, training)(rows)
        return model

    return fit


def scvi(rows: sparse.csr_matrix, *, on_gpu: bool = False, **params: Any) -> Fit:
    """Return a fit of scVI, with 2,000 genes and 128 hidden units."""
    import anndata
    import scvi as library

    adata = anndata.AnnData(rows)
    library.model.SCVI.setup_anndata(adata)
    accelerator = "gpu" if on_gpu else "cpu"
    quiet = {"accelerator": accelerator, "enable_progress_bar": False, "logger": False}

    def fit(epochs: int) -> Any:
        model = library.model.SCVI(adata, n_latent=N_COMPONENTS, n_hidden=N_HIDDEN, **params)
        model.train(max_epochs=epochs, batch_size=BATCH_SIZE, train_size=1.0, **quiet)
        return model

    return fit


#: Work and method of each contender: how to get its fit to so many rows.
CONTENDERS: dict[str, Callable[[int], Fit]] = {
    "paper: HEBAE": lambda n: paper("HEBAE", images(n)),
    "paper: VAE": lambda n: paper("VAE", images(n)),
    "paper: HEBAE, float32": lambda n: paper("HEBAE", images(n), precision="float32"),
    "paper: pythae": lambda n: pythae(images(n)),
    "counts: HEBAE": lambda n: ours("HEBAE", counts(n), likelihood="negative_binomial"),
    "counts: scVI": lambda n: scvi(counts(n), gene_likelihood="nb"),
    "gaussian: HEBAE": lambda n: ours("HEBAE", log_values(n)),
    "gaussian: scVI": lambda n: scvi(counts(n), gene_likelihood="normal"),
}
