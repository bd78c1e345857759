"""Standardised rows by index, resident on the device or made per minibatch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches
from torch import Tensor

from skhebae.data.covariates import NO_COVARIATES, Covariates
from skhebae.data.scaling import CHUNK_ROWS, Matrix, Scaling
from skhebae.data.stored import StoredTable, with_indices_of_one_type
from skhebae.data.turns import InTurn, sent
from skhebae.data.windows import WINDOW_BYTES, WindowedRows

#: A dense table up to this size, as float32, is standardised once and kept on
#: the CPU during `fit`; a larger one is standardised minibatch by minibatch.
RESIDENT_BYTES = 2**29

#: Share of a GPU's free memory that the rows may take.
GPU_SHARE = 0.5


class Rows(Protocol):
    """Anything that hands out standardised float32 rows by index, covariates behind."""

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def take(self, indices: NDArray[np.intp]) -> Tensor:
        """Return rows (len(indices), p + n_covariates) on the training device."""
        ...

    def in_turn(self, minibatches: Sequence[NDArray[np.intp]]) -> Iterator[Tensor]:
        """Take several minibatches, one after the other."""
        ...

    def shuffled(self, indices: NDArray[np.intp], generator: torch.Generator) -> NDArray[np.intp]:
        """Order `indices` at random, for a pass over them."""
        ...


class AnyOrder(InTurn):
    """Rows that may be taken in any order, all equally quick."""

    def shuffled(self, indices: NDArray[np.intp], generator: torch.Generator) -> NDArray[np.intp]:
        """Order `indices` at random."""
        order: NDArray[np.intp] = indices[torch.randperm(len(indices), generator=generator).numpy()]
        return order


class ResidentRows(AnyOrder):
    """The whole table, standardised once, as one tensor on the device."""

    def __init__(
        self,
        X: Matrix,
        scaling: Scaling,
        device: torch.device,
        covariates: Covariates = NO_COVARIATES,
    ) -> None:
        shape = (X.shape[0], X.shape[1] + covariates.width)
        self._rows = torch.empty(shape, dtype=torch.float32, device=device)
        for chunk in gen_batches(X.shape[0], CHUNK_ROWS):
            rows = covariates.behind(scaling.standardise(X[chunk]), chunk)
            self._rows[chunk] = torch.from_numpy(rows).to(device)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: NDArray[np.intp]) -> Tensor:
        """Gather rows on the device."""
        index = torch.from_numpy(indices).to(self._rows.device)
        return self._rows.index_select(0, index)

    def in_turn(self, minibatches: Sequence[NDArray[np.intp]]) -> Iterator[Tensor]:
        """Gather rows; a GPU gets the indices of all at once, and the host waits for nothing."""
        if self._rows.device.type == "cpu" or len(minibatches) == 0:
            yield from super().in_turn(minibatches)
            return
        order = torch.from_numpy(np.concatenate(minibatches)).to(self._rows.device)
        for index in torch.split(order, [len(indices) for indices in minibatches]):
            yield self._rows.index_select(0, index)


class StreamedRows(AnyOrder):
    """Rows read, densified and standardised per minibatch.

    For CSR and for tables too large to copy.
    """

    def __init__(
        self,
        X: Matrix,
        scaling: Scaling,
        device: torch.device,
        covariates: Covariates = NO_COVARIATES,
    ) -> None:
        self._X = with_indices_of_one_type(X) if sparse.issparse(X) else X
        self._scaling = scaling
        self._device = device
        self._covariates = covariates

    def __len__(self) -> int:
        return int(self._X.shape[0])

    def take(self, indices: NDArray[np.intp]) -> Tensor:
        """Read, densify, standardise and send rows."""
        rows = self._covariates.behind(self._scaling.standardise(self._X[indices]), indices)
        return sent(rows, self._device)


def fits_on(device: torch.device, n_bytes: int) -> bool:
    """Whether `n_bytes` of rows may live on `device` during training."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return n_bytes <= GPU_SHARE * free
    return n_bytes <= RESIDENT_BYTES


def open_rows(
    X: Matrix,
    scaling: Scaling,
    device: torch.device,
    covariates: Covariates = NO_COVARIATES,
    window_bytes: int = WINDOW_BYTES,
) -> Rows:
    """Choose how to read a validated table.

    Parameters
    ----------
    X : ndarray, CSR or StoredTable of shape (n_samples, n_features)
    scaling : Scaling
    device : torch.device
    covariates : Covariates, optional
    window_bytes : int, optional
        Memory for rows of a table outside memory.

    Returns
    -------
    ResidentRows, StreamedRows or WindowedRows
        Resident for an in-memory table that fits, dense on the CPU and any on a GPU, whose
        memory gathers rows quicker than a CPU makes them; windowed for one outside memory.
    """
    if isinstance(X, StoredTable) and len(X) > 0:
        return WindowedRows(X, scaling, device, covariates, window_bytes)
    n_bytes = 4 * X.shape[0] * X.shape[1]
    stays_sparse = sparse.issparse(X) and device.type != "cuda"
    if stays_sparse or not fits_on(device, n_bytes):
        return StreamedRows(X, scaling, device, covariates)
    return ResidentRows(X, scaling, device, covariates)


def minibatch_indices(order: NDArray[np.intp], batch_size: int) -> list[NDArray[np.intp]]:
    """Split `order` into minibatches of at least `batch_size` rows.

    The tail is spread over the others, so sizes differ by one at most and no
    minibatch is small (a covariance of one row is no covariance). Fewer rows
    than `batch_size` make one minibatch.
    """
    return np.array_split(order, max(1, len(order) // batch_size))
