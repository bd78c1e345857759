"""Standardised rows by index: resident on the device, or made per minibatch."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.utils import gen_batches

from skhebae.data.minibatch import Minibatch
from skhebae.data.prefetch import MinibatchReader, send
from skhebae.data.scaling import Scaling
from skhebae.data.side import NO_SIDE_INFORMATION, SideInformation
from skhebae.data.stored import StoredTable, with_indices_of_one_type
from skhebae.data.table import CHUNK_ROWS, Matrix
from skhebae.data.values import has_missing
from skhebae.data.windows import WINDOW_BYTES, WindowedRows

#: A dense table up to this size, as float32, is standardised once and kept in memory during
#: `fit`; a larger one is standardised minibatch by minibatch.
RESIDENT_BYTES = 2**29

#: Share of a GPU's free memory that the rows may take.
GPU_SHARE = 0.5


class Rows(Protocol):
    """Anything that hands out standardised rows by index.

    Attributes
    ----------
    kept_bytes : int
        Memory that rows which are taken and kept may occupy.
    weight : ndarray of shape (n_samples,) or None
        How many rows each row stands for; None where each stands for itself.
    """

    kept_bytes: int
    weight: NDArray[np.float64] | None

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def take(self, indices: NDArray[np.intp]) -> Minibatch:
        """Return rows on the training device."""
        ...

    def in_turn(self, minibatches: Sequence[NDArray[np.intp]]) -> Iterator[Minibatch]:
        """Take several minibatches in order."""
        ...

    def shuffled(self, indices: NDArray[np.intp], generator: torch.Generator) -> NDArray[np.intp]:
        """Return `indices` in a random order in which one pass over them is quick."""
        ...

    def ordered(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return `indices` in increasing order, and see to it that one pass over them is quick."""
        ...


class AnyOrder(MinibatchReader):
    """Rows that can be taken in any order equally quickly."""

    kept_bytes = sys.maxsize

    def shuffled(self, indices: NDArray[np.intp], generator: torch.Generator) -> NDArray[np.intp]:
        """Return `indices` in a random order."""
        order = torch.randperm(len(indices), generator=generator, device="cpu").numpy()
        result: NDArray[np.intp] = indices[order]
        return result

    def ordered(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return `indices` in increasing order."""
        return np.sort(indices)


class ResidentRows(AnyOrder):
    """The whole table, standardised once, on the device."""

    def __init__(
        self,
        X: Matrix,
        scaling: Scaling,
        device: torch.device,
        side: SideInformation = NO_SIDE_INFORMATION,
    ) -> None:
        self.weight = side.weight
        whole = side.read(X, slice(0, 0), scaling)
        # On the device from the start: a GPU may hold more rows than fit into memory.
        self._rows = whole.map_rows(lambda t: t.new_empty(X.shape[0], *t.shape[1:], device=device))
        tensors = self._rows.row_tensors()
        for chunk in gen_batches(X.shape[0], CHUNK_ROWS):
            for name, tensor in side.read(X, chunk, scaling).row_tensors().items():
                tensors[name][chunk] = tensor.to(device)

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, indices: NDArray[np.intp]) -> Minibatch:
        """Gather rows on the device."""
        index = torch.from_numpy(indices).to(self._rows.x.device)
        return self._rows.map_rows(lambda tensor: tensor.index_select(0, index))

    def in_turn(self, minibatches: Sequence[NDArray[np.intp]]) -> Iterator[Minibatch]:
        """Gather rows; a GPU receives the indices of all at once, and the host never waits."""
        device = self._rows.x.device
        if device.type == "cpu" or len(minibatches) == 0:
            yield from super().in_turn(minibatches)
            return
        order = torch.from_numpy(np.concatenate(minibatches)).to(device)
        for index in torch.split(order, [len(indices) for indices in minibatches]):
            yield self._rows.map_rows(lambda tensor, i=index: tensor.index_select(0, i))  # type: ignore[misc]


class StreamedRows(AnyOrder):
    """Rows that are read, densified and standardised per minibatch.

    For CSR matrices and for tables too large to copy.
    """

    def __init__(
        self,
        X: Matrix,
        scaling: Scaling,
        device: torch.device,
        side: SideInformation = NO_SIDE_INFORMATION,
    ) -> None:
        self._X = with_indices_of_one_type(X) if sparse.issparse(X) else X
        self._scaling = scaling
        self._device = device
        self._side, self.weight = side, side.weight

    def __len__(self) -> int:
        return int(self._X.shape[0])

    def take(self, indices: NDArray[np.intp]) -> Minibatch:
        """Read, densify, standardise and send rows."""
        return send(self._side.read(self._X, indices, self._scaling), self._device)


def fits_on(device: torch.device, n_bytes: int) -> bool:
    """Whether `n_bytes` of rows may stay on `device` during training."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return n_bytes <= GPU_SHARE * free
    return n_bytes <= RESIDENT_BYTES


def open_rows(
    X: Matrix,
    scaling: Scaling,
    device: torch.device,
    side: SideInformation = NO_SIDE_INFORMATION,
    window_bytes: int = WINDOW_BYTES,
) -> Rows:
    """Choose how to read a validated table.

    Parameters
    ----------
    X : ndarray, CSR or StoredTable of shape (n_samples, n_features)
    scaling : Scaling
    device : torch.device
    side : SideInformation, optional
    window_bytes : int, optional
        Memory for rows of a table outside memory.

    Returns
    -------
    ResidentRows, StreamedRows or WindowedRows
        Resident for a table in memory that fits: only dense ones on the CPU, any on a GPU, which
        gathers rows faster than a CPU can make them. Windowed for a table outside memory.
    """
    if side.has_missing is None and scaling.may_miss:
        side = replace(side, has_missing=has_missing(X))
    if isinstance(X, StoredTable) and len(X) > 0:
        return WindowedRows(X, scaling, device, side, window_bytes)
    # A mixed table has more features than columns.
    n_bytes = 4 * X.shape[0] * len(scaling.location)
    stays_sparse = sparse.issparse(X) and device.type != "cuda"
    if stays_sparse or not fits_on(device, n_bytes):
        return StreamedRows(X, scaling, device, side)
    return ResidentRows(X, scaling, device, side)


def counted_rows(rows: Rows) -> NDArray[np.intp]:
    """Return the indices of the rows that count: those of weight 0 are as good as absent."""
    return np.arange(len(rows)) if rows.weight is None else np.flatnonzero(rows.weight)


def weight_of(rows: Rows, indices: NDArray[np.intp]) -> float:
    """Add up the weights of some rows: their number, an int, where rows have none."""
    return len(indices) if rows.weight is None else float(rows.weight[indices].sum())


def minibatch_indices(order: NDArray[np.intp], batch_size: int) -> list[NDArray[np.intp]]:
    """Split `order` into minibatches of at least `batch_size` rows.

    The remainder is spread over all, so sizes differ by at most one and no minibatch is small
    (a single row has no covariance). Fewer rows than `batch_size` make one minibatch.
    """
    return np.array_split(order, max(1, len(order) // batch_size))


def take_chunks(
    rows: Rows, indices: NDArray[np.intp], chunk_rows: int
) -> Iterator[tuple[NDArray[np.intp], Minibatch]]:
    """Take rows in chunks of at least `chunk_rows`, each with its indices."""
    for chunk in minibatch_indices(indices, chunk_rows):
        if len(chunk) > 0:
            yield chunk, rows.take(chunk)
