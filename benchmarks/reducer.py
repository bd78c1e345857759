"""The face that every method of ``compare`` has.

A package is imported when its method is loaded, so that a process measures the memory of
the method it runs and of no other. Parameters are the packages' defaults, but for the
number of components and the seed; what else differs is in `Reducer.settings`.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, ClassVar

import joblib
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Reducer:
    """One method, as its package has it; what a package has not stays out.

    `name` is that of its estimator in `module`, where it is one for scikit-learn, too.
    `latents` are the distributions of codes that `sample` knows, the package's default
    first. `inverse_rows` are the rows that are decoded at most, None for all of them.
    """

    module: ClassVar[str]
    package: ClassVar[str]
    name: ClassVar[str] = ""
    latents: ClassVar[tuple[str, ...]] = ()
    inverts: ClassVar[bool] = True
    inverse_rows: ClassVar[int | None] = None
    takes_counts: ClassVar[bool] = False
    compiles: ClassVar[bool] = False
    needs_training_rows: ClassVar[bool] = False
    saved_with: ClassVar[str] = "joblib"

    library: Any
    model: Any

    def __init__(self, n_components: int, likelihood: str, seed: int) -> None:
        self.n_components = n_components
        self.likelihood = likelihood
        self.seed = seed
        self.settings: dict[str, Any] = {}

    def load(self) -> None:
        """Import the package."""
        self.library = importlib.import_module(self.module)

    def estimator(self) -> Any:
        """Return scikit-learn's view of the method with its defaults; None: it has none."""
        return getattr(self.library, self.name)() if self.name else None

    def prepare(self, rows: Array) -> Array:
        """Return the rows as the method takes them, outside of what is timed."""
        return rows

    def fit(self, rows: Array) -> None:
        """Fit `model`."""
        raise NotImplementedError

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
