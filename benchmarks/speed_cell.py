"""One contender of ``python -m benchmarks speed`` in a process of its own.

``python -m benchmarks.speed_cell NAME THREADS`` prints one JSON line: rows a second of
training, from the difference of a long and a short fit, and the process's peak memory.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from scipy import sparse

from skhebae import HEBAETransformer, VAETransformer

BATCH_SIZE = 128
N_COMPONENTS = 10

#: Rows of the tables, a multiple of the minibatch, and the epochs of both fits.
N_IMAGES, IMAGE_EPOCHS = 100 * BATCH_SIZE, (1, 5)
N_CELLS, CELL_EPOCHS = 100 * BATCH_SIZE, (1, 10)
N_GENES, DENSITY = 2000, 0.05

Fit = Callable[[int], Any]


def images(n_rows: int = N_IMAGES) -> np.ndarray:
    """Rows like those of an image: 784 numbers in [0, 1] that depend on ten."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n_rows, 10)) @ rng.normal(size=(10, 784))
    return (1.0 / (1.0 + np.exp(-values))).astype(np.float32)


def columns_of(n_rows: int, rng: np.random.Generator) -> np.ndarray:
    """Genes that are not zero in each row: one of each stretch of `1 / DENSITY` genes."""
    width = round(1.0 / DENSITY)
    starts = np.arange(0, N_GENES, width)
    return starts + rng.integers(width, size=(n_rows, len(starts)))


def counts(n_rows: int = N_CELLS) -> sparse.csr_matrix:
    """Draw counts like those of cells: 2,000 genes, one entry in twenty not zero."""
    rng = np.random.default_rng(0)
    columns = columns_of(n_rows, rng)
    values = 1.0 + rng.poisson(rng.gamma(0.5, 2.0, size=columns.shape))
    pointers = np.arange(n_rows + 1) * columns.shape[1]
    shape = (n_rows, N_GENES)
    return sparse.csr_matrix((values.astype(np.float32).ravel(), columns.ravel(), pointers), shape)


#: Of both in the paper's networks; it does not change how fast they are.
LEARNING_RATE = 1e-3

#: Images that no fit sees, and epochs, for the bounds of what was trained.
N_HELD_OUT, BOUND_EPOCHS = 10 * BATCH_SIZE, 8


def ours(cls: type, rows: Any, **params: Any) -> Fit:
    """Fit one of ours for so many epochs."""

    def fit(epochs: int) -> Any:
        model = cls(
            N_COMPONENTS,
            batch_size=BATCH_SIZE,
            max_iter=epochs,
            n_iter_no_change=10**6,
            random_state=0,
            **params,
        )
        return model.fit(rows)

    return fit


def paper(cls: type, rows: np.ndarray | None = None, **params: Any) -> Fit:
    """Fit the paper's networks to images."""
    from benchmarks.architectures import dense_decoder, dense_encoder

    networks = {"encoder": dense_encoder, "decoder": dense_decoder}
    # Without the noise on inputs, which pythae and the paper have not.
    alike = {
        "learning_rate_init": LEARNING_RATE,
        "learning_rate": "constant",
        "input_noise": 0.0,
    }
    rows = images() if rows is None else rows
    return ours(cls, rows, likelihood="bernoulli", **networks, **alike, **params)


def pythae(rows: np.ndarray | None = None, *, on_gpu: bool = False) -> Fit:
    """Fit pythae's VAE with the same networks."""
    from pythae.models import VAE, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from torch import nn

    from benchmarks.architectures import dense_decoder, dense_encoder

    rows = images() if rows is None else rows

    class Encoder(BaseEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = dense_encoder((784,), 2 * N_COMPONENTS)

        def forward(self, x: Any) -> Any:
            mu, log_var = self.layers(x).chunk(2, dim=1)
            return ModelOutput(embedding=mu, log_covariance=log_var)

    class Decoder(BaseDecoder):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(dense_decoder(N_COMPONENTS, (784,)), nn.Sigmoid())

        def forward(self, z: Any) -> Any:
            return ModelOutput(reconstruction=self.layers(z))

    def fit(epochs: int) -> Any:
        config = VAEConfig(input_dim=(784,), latent_dim=N_COMPONENTS, reconstruction_loss="bce")
        model = VAE(config, encoder=Encoder(), decoder=Decoder())
        with TemporaryDirectory() as folder:
            training = BaseTrainerConfig(
                output_dir=folder,
                num_epochs=epochs,
                per_device_train_batch_size=BATCH_SIZE,
                learning_rate=LEARNING_RATE,
                no_cuda=not on_gpu,
            )
            TrainingPipeline(model, training)(rows)
        return model

    return fit


def scvi(*, on_gpu: bool = False, **params: Any) -> Fit:
    """Fit scVI, 2,000 genes and 128 hidden units."""
    import anndata
    import scvi as library

    adata = anndata.AnnData(counts())
    accelerator = "gpu" if on_gpu else "cpu"
    library.model.SCVI.setup_anndata(adata)

    def fit(epochs: int) -> Any:
        model = library.model.SCVI(adata, n_latent=N_COMPONENTS, n_hidden=128, **params)
        quiet = {"accelerator": accelerator, "enable_progress_bar": False, "logger": False}
        model.train(max_epochs=epochs, batch_size=BATCH_SIZE, train_size=1.0, **quiet)
        return model

    return fit


def log_values() -> sparse.csr_matrix:
    """Log-normalised counts."""
    rows = counts()
    totals = np.asarray(rows.sum(axis=1)).ravel()
    return (sparse.diags(np.float32(1e4) / totals) @ rows).log1p().tocsr().astype(np.float32)


#: Rows a fit has, its epochs, and how to get it.
CONTENDERS: dict[str, tuple[int, tuple[int, int], Callable[[], Fit]]] = {
    "paper: HEBAE": (N_IMAGES, IMAGE_EPOCHS, lambda: paper(HEBAETransformer)),
    "paper: VAE": (N_IMAGES, IMAGE_EPOCHS, lambda: paper(VAETransformer)),
    "paper: HEBAE, float32": (
        N_IMAGES,
        IMAGE_EPOCHS,
        lambda: paper(HEBAETransformer, precision="float32"),
    ),
    "paper: pythae": (N_IMAGES, IMAGE_EPOCHS, pythae),
    "counts: HEBAE": (
        N_CELLS,
        CELL_EPOCHS,
        lambda: ours(HEBAETransformer, counts(), likelihood="negative_binomial"),
    ),
    "counts: scVI": (N_CELLS, CELL_EPOCHS, lambda: scvi(gene_likelihood="nb")),
    "gaussian: HEBAE": (N_CELLS, CELL_EPOCHS, lambda: ours(HEBAETransformer, log_values())),
    "gaussian: scVI": (N_CELLS, CELL_EPOCHS, lambda: scvi(gene_likelihood="normal")),
}


def of_a_small_table(repeats: int) -> dict[str, Any]:
    """Seconds of a fit with defaults to 500 rows of 20 features, and the share not training."""
    rows = np.random.default_rng(0).normal(size=(500, 20)).astype(np.float32)
    total, training = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        model = HEBAETransformer(random_state=0).fit(rows)
        total.append(time.perf_counter() - start)
        training.append(sum(model.history_["seconds"]))
    share = 1.0 - median(training) / median(total)
    return {"name": "500 x 20", "seconds": median(total), "share_not_training": share}


#: What skhebae stands on is imported before the clock starts.
IMPORT = """
import time, torch, sklearn.mixture, sklearn.preprocessing
start = time.perf_counter()
import skhebae
print(time.perf_counter() - start)
"""


def of_import(repeats: int) -> dict[str, Any]:
    """Milliseconds of ``import skhebae`` beyond torch and scikit-learn."""
    command = [sys.executable, "-c", IMPORT]
    seconds = [
        float(subprocess.check_output(command, text=True))  # in this folder and environment
        for _ in range(repeats)
    ]
    return {"name": "import", "ms": 1e3 * median(seconds)}


def of_transform(repeats: int) -> dict[str, Any]:
    """Rows a second of transform at 784-128-10, and milliseconds of one row."""
    rows = images(50_000)
    model = HEBAETransformer(N_COMPONENTS, max_iter=1, random_state=0)
    model.fit(rows[:2000])
    model.transform(rows[:1000])
    many, one = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        model.transform(rows)
        many.append(len(rows) / (time.perf_counter() - start))
        start = time.perf_counter()
        for i in range(50):
            model.transform(rows[i : i + 1])
        one.append((time.perf_counter() - start) / 50)
    return {"name": "transform", "rows_per_second": median(many), "one_row_ms": 1e3 * median(one)}


def bounds() -> dict[str, float]:
    """Mean evidence lower bound of held-out images, nats, of VAEs trained alike."""
    import torch

    rows = images()
    train, test = rows[:-N_HELD_OUT], rows[-N_HELD_OUT:]
    found = {
        name: float(paper(VAETransformer, train, **params)(BOUND_EPOCHS).elbo(test).mean())
        for name, params in {"VAE": {}, "VAE, float32": {"precision": "float32"}}.items()
    }
    model, x = pythae(train)(BOUND_EPOCHS).eval(), torch.from_numpy(test)
    with torch.no_grad():
        encoded = model.encoder(x)
        mu, log_var = encoded.embedding, encoded.log_covariance
        divergence = 0.5 * (mu.square() + log_var.exp() - 1.0 - log_var).sum(dim=1)
        errors = []
        for _ in range(20):
            z = mu + (0.5 * log_var).exp() * torch.randn(mu.shape)
            decoded = model.decoder(z).reconstruction
            entropy = torch.nn.functional.binary_cross_entropy(decoded, x, reduction="none")
            errors.append(entropy.sum(dim=1))
        found["pythae"] = float(-(torch.stack(errors).mean(dim=0) + divergence).mean())
    return found


def main(name: str, threads: int) -> None:
    """Measure one contender."""
    import torch

    if name in ("bounds", "own"):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name == "own":  # with threads as any process has them
                rows = [of_a_small_table(5), of_transform(5), of_import(5)]
                found: dict[str, Any] = {"rows": rows}
            else:
                torch.set_num_threads(threads)
                found = bounds()
        sys.stdout.flush()
        os.write(1, f"{json.dumps({'name': name, **found})}\n".encode())
        return
    n_rows, epochs, prepare = CONTENDERS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = prepare()
        torch.set_num_threads(threads)
        fit(1)  # what is done once
        seconds = []
        for count in epochs:
            start = time.perf_counter()
            fit(count)
            seconds.append(time.perf_counter() - start)
    rate = n_rows * (epochs[1] - epochs[0]) / (seconds[1] - seconds[0])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.flush()
    line = json.dumps({"name": name, "rows_per_second": rate, "peak_mib": peak})
    os.write(1, f"{line}\n".encode())  # past whatever a peer has done to print


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
