"""Reading of rows from zarr-backed matrices with annbatch, if it is installed.

annbatch requests all stretches of rows at once, which is faster than reading one after the
other. skhebae still chooses the stretches, so the order of an epoch follows from the seed and
does not depend on the file format. annbatch needs Python >= 3.12.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def is_zarr(source: object) -> bool:
    """Whether annbatch can read `source`: a zarr array, or a zarr-backed CSR matrix of anndata."""
    library = type(source).__module__.split(".")[0]
    in_zarr = getattr(source, "backend", None) == "zarr"
    return library == "zarr" or (in_zarr and getattr(source, "format", None) == "csr")


def loaded_by_annbatch(source: Any, parts: list[slice]) -> Any | None:
    """Read stretches of rows and stack them.

    Parameters
    ----------
    source : matrix of shape (n_samples, n_columns)
    parts : list of slice
        Stretches in ascending order, with start and stop, none of them empty.

    Returns
    -------
    ndarray, CSR or None
        The rows, or None if annbatch is not installed or cannot read `source`.
    """
    if not is_zarr(source):
        return None
    try:
        from annbatch import Loader
        from annbatch.abc import Sampler
    except ImportError:
        return None

    class Together(Sampler):
        """Sampler that requests all parts at once, in their order."""

        batch_size = None
        shuffle = False

        def n_batches(self, n_obs: int) -> int:
            return 1

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Iterator[dict[str, Any]]:
            n_rows = sum(part.stop - part.start for part in parts)
            yield {"requests": parts, "splits": [np.arange(n_rows)]}

    # Keep the rows in CPU memory: they are standardised before they go to a device.
    loader = Loader(batch_sampler=Together(), preload_to_gpu=False, to=None)
    (minibatch,) = loader.add_dataset(source)
    return minibatch["X"]
