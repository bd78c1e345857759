"""The reducers that ``compare`` measures, by name; ours, scikit-learn's and umap-learn's."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import numpy as np
from typing_extensions import override

from benchmarks.peers import PaCMAP, PythaeVAE, PythaeWAE, ScVI, TorchDRUMAP
from benchmarks.reducer import Array, Reducer


class Autoencoder(Reducer):
    """One of this package's estimators."""

    module = "skhebae"
    package = "skhebae"
    latents = ("mixture", "gaussian", "prior")
    saved_with = "save"

    @override
    def fit(self, rows: Array) -> None:
        cls = getattr(self.library, self.name)
        self.settings = {"likelihood": self.likelihood}
        self.model = cls(self.n_components, random_state=self.seed, **self.settings).fit(rows)

    @override
    def sample(self, n_rows: int, latent: str, rows: Array) -> Array:
        return np.asarray(self.model.sample(n_rows, latent, random_state=self.seed))

    @override
    def save(self, folder: Path) -> None:
        self.model.save(folder / "model.safetensors")


class HEBAE(Autoencoder):
    """`HEBAETransformer`."""

    name = "HEBAETransformer"


class VAE(Autoencoder):
    """`VAETransformer`."""

    name = "VAETransformer"


class WAE(Autoencoder):
    """`WAETransformer`."""

    name = "WAETransformer"


class PCA(Reducer):
    """Principal components; new rows are decoded from a Gaussian fitted to training codes."""

    module = "sklearn.decomposition"
    package = "scikit-learn"
    latents = ("gaussian",)
    name = "PCA"

    @override
    def fit(self, rows: Array) -> None:
        cls = getattr(self.library, self.name)
        self.model = cls(self.n_components, random_state=self.seed).fit(rows)

    @override
    def sample(self, n_rows: int, latent: str, rows: Array) -> Array:
        codes = self.transform(rows)
        rng = np.random.default_rng(self.seed)
        covariance = np.atleast_2d(np.cov(codes, rowvar=False))
        drawn = rng.multivariate_normal(codes.mean(axis=0), covariance, n_rows)
        return self.inverse_transform(drawn)


class TruncatedSVD(PCA):
    """Components of uncentred rows."""

    name = "TruncatedSVD"


class UMAP(Reducer):
    """umap-learn, seeded, for which it takes one thread whatever it is given."""

    module = "umap"
    package = "umap-learn"
    inverse_rows = 20
    compiles = True
    name = "UMAP"

    @override
    def fit(self, rows: Array) -> None:
        self.settings = {"n_jobs": 1}
        self.model = self.library.UMAP(
            n_components=self.n_components, random_state=self.seed, **self.settings
        ).fit(rows)

    @override
    def training_codes(self, rows: Array) -> Array:
        return np.asarray(self.model.embedding_)


METHODS: Mapping[str, type[Reducer]] = {
    "HEBAE": HEBAE,
    "VAE": VAE,
    "WAE": WAE,
    "PCA": PCA,
    "TruncatedSVD": TruncatedSVD,
    "UMAP": UMAP,
    "pythae-VAE": PythaeVAE,
    "pythae-WAE-MMD": PythaeWAE,
    "scVI": ScVI,
    "torchdr-UMAP": TorchDRUMAP,
    "PaCMAP": PaCMAP,
}

#: The methods that come with the package and its test requirements.
CORE = ("HEBAE", "VAE", "WAE", "PCA", "TruncatedSVD", "UMAP")

#: The sets whose rows are log-normalised counts.
COUNTED = ("pbmc3k", "paul15", "kang")


def missing(name: str) -> str | None:
    """Return a line that says what to install, None where nothing is missing."""
    method = METHODS[name]
    if importlib.util.find_spec(method.module.partition(".")[0]) is None:
        return f"{name} skipped: pip install {method.package}"
    return None


def version_of(name: str) -> str:
    """Return the package of a method and its version."""
    package = METHODS[name].package
    return f"{package} {version(package)}"
