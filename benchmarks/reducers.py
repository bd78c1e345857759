"""The methods of ``compare`` with their packages' defaults, except for components and seed.

A package is imported when its method is loaded, so that a process measures the memory of
the method it runs and of no other.
"""

from __future__ import annotations

import importlib
import importlib.util
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import joblib
import numpy as np
from numpy.typing import NDArray
from typing_extensions import override

Array = NDArray[Any]


class Reducer:
    """Wrap one method as its package has it.

    `name` is that of its class in `module`. `latents` are the distributions of codes that `sample`
    knows, the default first. `inverse_rows` are decoded at most, None for all.
    """

    module: ClassVar[str]
    package: ClassVar[str]
    name: ClassVar[str] = ""
    latents: ClassVar[tuple[str, ...]] = ()
    inverts: ClassVar[bool] = True
    inverse_rows: ClassVar[int | None] = None
    compiles: ClassVar[bool] = False

    library: Any
    model: Any

    def __init__(self, n_components: int, likelihood: str, seed: int) -> None:
        self.n_components, self.likelihood, self.seed = n_components, likelihood, seed
        self.settings: dict[str, Any] = {}

    def load(self) -> None:
        """Import the package."""
        self.library = importlib.import_module(self.module)

    def fit(self, rows: Array) -> None:
        """Fit `model`."""
        cls = getattr(self.library, self.name)
        self.model = cls(self.n_components, random_state=self.seed, **self.settings).fit(rows)

    def transform(self, rows: Array) -> Array:
        """Return codes of new rows."""
        return np.asarray(self.model.transform(rows))

    def training_codes(self, rows: Array) -> Array:
        """Return codes of the rows of `fit`."""
        return self.transform(rows)

    def inverse_transform(self, codes: Array) -> Array:
        """Return rows of codes."""
        return np.asarray(self.model.inverse_transform(codes))

    def sample(self, n_rows: int, latent: str, rows: Array) -> Array:
        """Return new rows; `rows` are those of `fit`."""
        raise NotImplementedError

    def save(self, folder: Path) -> None:
        """Write what `transform` needs in a new process."""
        joblib.dump(self.model, folder / "model.joblib")

    def saved_bytes(self) -> int:
        """Return the size of what `save` writes."""
        with TemporaryDirectory() as folder:
            self.save(Path(folder))
            return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


class HEBAE(Reducer):
    """`HEBAETransformer`."""

    module = "skhebae"
    package = "skhebae"
    name = "HEBAETransformer"
    latents = ("mixture", "gaussian", "prior")

    @override
    def fit(self, rows: Array) -> None:
        self.settings = {"likelihood": self.likelihood}
        super().fit(rows)

    @override
    def sample(self, n_rows: int, latent: str, rows: Array) -> Array:
        return np.asarray(self.model.sample(n_rows, latent, random_state=self.seed))

    @override
    def save(self, folder: Path) -> None:
        self.model.save(folder / "model.safetensors")


class VAE(HEBAE):
    """`VAETransformer`."""

    name = "VAETransformer"


class WAE(HEBAE):
    """`WAETransformer`."""

    name = "WAETransformer"


class PCA(Reducer):
    """Principal components; new rows are decoded from a Gaussian fitted to training codes."""

    module = "sklearn.decomposition"
    package = "scikit-learn"
    latents = ("gaussian",)
    name = "PCA"

    @override
    def sample(self, n_rows: int, latent: str, rows: Array) -> Array:
        codes = self.transform(rows)
        rng = np.random.default_rng(self.seed)
        covariance = np.atleast_2d(np.cov(codes, rowvar=False))
        return self.inverse_transform(
            rng.multivariate_normal(codes.mean(axis=0), covariance, n_rows)
        )


class TruncatedSVD(PCA):
    """Components of uncentred rows."""

    name = "TruncatedSVD"


class UMAP(Reducer):
    """umap-learn with a seed, with which it uses one thread whatever it is given."""

    module = "umap"
    package = "umap-learn"
    inverse_rows = 20
    compiles = True
    name = "UMAP"

    @override
    def fit(self, rows: Array) -> None:
        self.settings = {"n_jobs": 1}
        cls = self.library.UMAP
        how = {"n_components": self.n_components, "random_state": self.seed, **self.settings}
        self.model = cls(**how).fit(rows)

    @override
    def training_codes(self, rows: Array) -> Array:
        return np.asarray(self.model.embedding_)


METHODS: dict[str, type[Reducer]] = {
    "HEBAE": HEBAE,
    "VAE": VAE,
    "WAE": WAE,
    "PCA": PCA,
    "TruncatedSVD": TruncatedSVD,
    "UMAP": UMAP,
}


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
