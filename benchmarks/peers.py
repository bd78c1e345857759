"""Reducers of packages that are measured where they are installed, and are not required."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import joblib
import numpy as np
from typing_extensions import override

from benchmarks.reducer import Array, Reducer

#: Optimiser steps of the packages whose default is a number of epochs, at most: 100 epochs
#: of 60,000 rows take an hour. These are about the 12 epochs that ours take by default.
MOST_STEPS = 12_000


class OfTrainingRows(Reducer):
    """A method whose transform wants the rows of `fit` again, which a saved one must have."""

    needs_training_rows = True
    inverts = False

    @override
    def fit(self, rows: Array) -> None:
        self.rows = rows
        cls = getattr(self.library, self.name)
        self.model = cls(n_components=self.n_components, random_state=self.seed)
        self.model.fit(rows)

    @override
    def training_codes(self, rows: Array) -> Array:
        codes = self.model.embedding_
        return codes if isinstance(codes, np.ndarray) else codes.detach().cpu().numpy()

    @override
    def save(self, folder: Path) -> None:
        joblib.dump([self.model, self.rows], folder / "model.joblib")


class TorchDRUMAP(OfTrainingRows):
    """UMAP of torchdr."""

    module = "torchdr"
    package = "torchdr"
    name = "UMAP"

    @override
    def transform(self, rows: Array) -> Array:
        return np.asarray(self.model.transform(rows, X_train=self.rows))


class PaCMAP(OfTrainingRows):
    """PaCMAP."""

    module = "pacmap"
    package = "pacmap"
    compiles = True
    name = "PaCMAP"

    @override
    def transform(self, rows: Array) -> Array:
        return np.asarray(self.model.transform(rows, basis=self.rows))


class PythaeVAE(Reducer):
    """VAE of pythae with its default perceptrons and trainer.

    Its decoder ends in a sigmoid, so rows that leave [0, 1] are first mapped to it, each
    feature by its range among training rows, and back afterwards. Codes are the encoder's
    means: `embed` would draw them at random, and WAE's takes memory of rows x rows.
    """

    module = "pythae"
    package = "pythae"
    latents = ("prior", "mixture")
    saved_with = "save"
    names: ClassVar[tuple[str, str]] = ("VAE", "VAEConfig")

    @override
    def load(self) -> None:
        super().load()
        for part in ("models", "samplers", "pipelines", "trainers"):
            importlib.import_module(f"pythae.{part}")

    @override
    def fit(self, rows: Array) -> None:
        self._fit_range(rows)
        cls, config_class = (getattr(self.library.models, name) for name in self.names)
        loss = {"reconstruction_loss": "bce"} if self.likelihood == "bernoulli" else {}
        config = config_class(input_dim=rows.shape[1:], latent_dim=self.n_components, **loss)
        with TemporaryDirectory() as folder:
            trainer = self.library.trainers.BaseTrainerConfig
            epochs = default_or_most_epochs(
                trainer().num_epochs, len(rows), trainer().per_device_train_batch_size
            )
            training = trainer(output_dir=folder, num_epochs=epochs, seed=self.seed, no_cuda=True)
            self.model = cls(config)
            run = self.library.pipelines.TrainingPipeline(self.model, training)
            run((rows - self.low) / self.width)
        self.model.eval()
        self.settings |= {"num_epochs": epochs, **loss}

    def _fit_range(self, rows: Array) -> None:
        self.low, self.width = np.zeros(1, np.float32), np.ones(1, np.float32)
        if rows.min() < 0 or rows.max() > 1:
            self.low = rows.min(axis=0)
            width = rows.max(axis=0) - self.low
            self.width = np.where(width > 0, width, 1).astype(rows.dtype)
            self.settings["rows"] = "mapped to [0, 1]"

    def _tensor(self, values: Array) -> Any:
        torch = importlib.import_module("torch")
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))

    @override
    def transform(self, rows: Array) -> Array:
        embedded = self.model.encoder(self._tensor((rows - self.low) / self.width)).embedding
        return np.asarray(embedded.detach())

    def _unscaled(self, decoded: Any) -> Array:
        return np.asarray(decoded.detach().numpy() * self.width + self.low)

    @override
    def inverse_transform(self, codes: Array) -> Array:
        return self._unscaled(self.model.decoder(self._tensor(codes)).reconstruction)

    @override
    def sample(self, n_rows: int, latent: str, rows: Array) -> Array:
        samplers = self.library.samplers
        importlib.import_module("torch").manual_seed(self.seed)
        if latent == "prior":
            sampler = samplers.NormalSampler(model=self.model)
        else:
            sampler = samplers.GaussianMixtureSampler(
                self.model, samplers.GaussianMixtureSamplerConfig()
            )
            sampler.fit(self._tensor((rows - self.low) / self.width))
        return self._unscaled(sampler.sample(num_samples=n_rows))

    @override
    def save(self, folder: Path) -> None:
        self.model.save(str(folder))


class PythaeWAE(PythaeVAE):
    """WAE-MMD of pythae; it knows no other reconstruction loss than the squared error."""

    names = ("WAE_MMD", "WAE_MMD_Config")

    @override
    def fit(self, rows: Array) -> None:
        self.likelihood = "gaussian"
        super().fit(rows)


class ScVI(Reducer):
    """scVI on the counts of single cells.

    What it decodes are counts, whose error is no match for that of log-normalised rows.
    """

    module = "scvi"
    package = "scvi-tools"
    inverts = False
    takes_counts = True
    saved_with = "save"

    @override
    def prepare(self, rows: Array) -> Array:
        return counts_of(rows)

    def _annotated(self, counts: Array) -> Any:
        return importlib.import_module("anndata").AnnData(counts)

    @override
    def fit(self, rows: Array) -> None:
        self.library.settings.seed = self.seed
        adata = self._annotated(rows)
        self.library.model.SCVI.setup_anndata(adata)
        self.model = self.library.model.SCVI(adata, n_latent=self.n_components)
        # Its own rule, which comes to more steps than the others have only above 10,000 rows.
        default = min(round(20_000 / len(rows) * 400), 400)
        epochs = default_or_most_epochs(default, len(rows), self.library.settings.batch_size)
        self.model.train(
            max_epochs=epochs, accelerator="cpu", enable_progress_bar=False, logger=False
        )
        self.settings = {"max_epochs": epochs}

    @override
    def transform(self, rows: Array) -> Array:
        with warnings.catch_warnings():
            # It warns of each batch of fewer than three cells.
            warnings.simplefilter("ignore", UserWarning)
            return np.asarray(self.model.get_latent_representation(self._annotated(rows)))

    @override
    def save(self, folder: Path) -> None:
        self.model.save(str(folder / "model"), save_anndata=False)


def default_or_most_epochs(default: int, n_rows: int, batch_size: int) -> int:
    """Return a package's own number of epochs, or the fewer that `MOST_STEPS` allow."""
    return max(1, min(default, MOST_STEPS // -(-n_rows // batch_size)))


def counts_of(rows: Array) -> Array:
    """Return the counts behind ``log1p(counts * scale)``, whatever the scale of each row.

    The smallest count of a cell is one, so the smallest value is the scale. A row
    that is not a multiple of it has not been counts, which is an error.
    """
    scaled = np.expm1(rows.astype(np.float64))
    smallest = np.where(scaled > 0, scaled, np.inf).min(axis=1, keepdims=True)
    counts = scaled / np.where(np.isfinite(smallest), smallest, 1.0)
    rounded = np.rint(counts)
    off = np.abs(counts - rounded)
    # float32 logarithms keep about six digits of the count.
    if (rows < 0).any() or (off > 1e-2 + 1e-5 * counts).any():
        raise ValueError("these rows are not log-normalised counts")
    return rounded.astype(np.float32)
