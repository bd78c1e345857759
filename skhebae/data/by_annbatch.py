"""Rows of a zarr-backed matrix by annbatch, where that is installed.

Its loader asks for all stretches of rows at once, which takes less time than one after the
other. We say which, so the order of an epoch is that of any other file, and follows from
the seed. annbatch needs Python >= 3.12.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np


def is_zarr(source: object) -> bool:
    """Whether annbatch can read `source`: a zarr array, or anndata's CSR matrix in zarr."""
    library = type(source).__module__.split(".")[0]
    in_zarr = getattr(source, "backend", None) == "zarr"
    return library == "zarr" or (in_zarr and getattr(source, "format", None) == "csr")


def loaded_by_annbatch(source: Any, parts: list[slice]) -> Any | None:
    """Read stretches of rows, one below the other.

    Parameters
    ----------
    source : matrix of shape (n_samples, n_columns)
    parts : list of slice
        Ascending, with both ends, none empty.

    Returns
    -------
    ndarray, CSR or None
        None if annbatch is not installed, or `source` is not `is_zarr`.
    """
    if not is_zarr(source):
        return None
    try:
        from annbatch import Loader
        from annbatch.abc import Sampler
    except ImportError:
        return None

    class Together(Sampler):
        """One request for all parts, in their order."""

        batch_size = None
        shuffle = False

        def n_batches(self, n_obs: int) -> int:
            return 1

        def validate(self, n_obs: int) -> None:
            pass

        def _sample(self, n_obs: int) -> Iterator[dict[str, Any]]:
            n_rows = sum(part.stop - part.start for part in parts)
            yield {"requests": parts, "splits": [np.arange(n_rows)]}

    # In memory of the CPU: what goes to a device is standardised first.
    loader = Loader(batch_sampler=Together(), preload_to_gpu=False, to=None)
    (minibatch,) = loader.add_dataset(source)
    return minibatch["X"]
