"""Rows of a table outside memory, in a nearly random order that is quick to read."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from skhebae.data.minibatch import Minibatch
from skhebae.data.prefetch import MinibatchReader, send
from skhebae.data.scaling import Scaling
from skhebae.data.side import NO_SIDE_INFORMATION, SideInformation
from skhebae.data.stored import StoredTable
from skhebae.data.table import Matrix

#: Contiguous rows that are read together.
BLOCK_ROWS = 1024

#: Memory for rows that were read: those in use, those before and those after them.
WINDOW_BYTES = 400_000_000
WINDOWS_IN_MEMORY = 3


class Window(NamedTuple):
    """Blocks of rows in memory.

    Attributes
    ----------
    blocks : ndarray of int
        Ascending.
    starts : ndarray of int
        Place of each block's first row in `rows`.
    rows : ndarray or CSR
    """

    blocks: NDArray[np.intp]
    starts: NDArray[np.intp]
    rows: Matrix

    def take(self, indices: NDArray[np.intp]) -> Matrix:
        """Rows by their indices in the table."""
        block, within = np.divmod(indices, BLOCK_ROWS)
        return self.rows[self.starts[np.searchsorted(self.blocks, block)] + within]


class WindowedRows(MinibatchReader):
    """Rows of a stored table, of which one window of blocks is in memory at a time.

    An epoch visits the blocks in a random order, and the rows within each window of blocks in a
    random order. While one window is in use, a thread reads the next.

    Parameters
    ----------
    X : StoredTable
    scaling : Scaling
    device : torch.device
    side : SideInformation, optional
    window_bytes : int, optional
        Memory for rows.
    """

    def __init__(
        self,
        X: StoredTable,
        scaling: Scaling,
        device: torch.device,
        side: SideInformation = NO_SIDE_INFORMATION,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self._X = X
        self._scaling = scaling
        self._device = device
        self._side, self.weight = side, side.weight
        self.kept_bytes = window_bytes
        self._n_blocks = -(-len(X) // BLOCK_ROWS)
        block_bytes = n_bytes(X[:BLOCK_ROWS])
        self._blocks_per_window = max(1, window_bytes // (WINDOWS_IN_MEMORY * block_bytes))
        self._plan(np.arange(self._n_blocks))

    def __len__(self) -> int:
        return len(self._X)

    def shuffled(self, indices: NDArray[np.intp], generator: torch.Generator) -> NDArray[np.intp]:
        """Shuffle the blocks, and the rows within each window of blocks."""
        self._plan(torch.randperm(self._n_blocks, generator=generator, device="cpu").numpy())
        window = self._window_of[indices // BLOCK_ROWS]
        order = torch.randperm(len(indices), generator=generator, device="cpu").numpy()
        # A stable sort by window keeps the random order within each.
        result: NDArray[np.intp] = indices[order][np.argsort(window[order], kind="stable")]
        return result

    def ordered(self, indices: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return `indices` in increasing order, with windows of blocks that follow each other.

        Those of an epoch have blocks from everywhere: each part of a pass in order would need all.
        """
        self._plan(np.arange(self._n_blocks))
        return np.sort(indices)

    def take(self, indices: NDArray[np.intp]) -> Minibatch:
        """Read, densify, standardise and send rows.

        Contiguous rows, as in a pass in order, are read from where they are stored; others from the
        windows that they were `shuffled` or `ordered` into.
        """
        scaling, rows = self._scaling, indices
        if len(indices) > 0 and (np.diff(indices) == 1).all():
            values = scaling.standardise(self._X[int(indices[0]) : int(indices[-1]) + 1])
        else:
            window = self._window_of[indices // BLOCK_ROWS]
            values = np.empty((len(indices), self._X.shape[1]), dtype=np.float32)
            for number in np.unique(window):
                mine = window == number
                values[mine] = scaling.standardise(self._loaded(int(number)).take(rows[mine]))
        return send(self._side.minibatch(values, rows, may_miss=scaling.may_miss), self._device)

    def _plan(self, blocks: NDArray[np.intp]) -> None:
        """Divide the blocks, in this order, into windows; read nothing yet."""
        n_windows = -(-self._n_blocks // self._blocks_per_window)
        self._windows = np.array_split(blocks, n_windows)
        self._window_of = np.empty(self._n_blocks, dtype=np.intp)
        for number, mine in enumerate(self._windows):
            self._window_of[mine] = number
        self._read: dict[int, Future[Window]] = {}

    def _loaded(self, number: int) -> Window:
        """Return a window once it is read, and start to read the one after it."""
        self._read = {n: window for n, window in self._read.items() if n >= number - 1}
        for wanted in (number, number + 1):
            if wanted not in self._read and wanted < len(self._windows):
                thread = ThreadPoolExecutor(1)
                self._read[wanted] = thread.submit(self._load, self._windows[wanted])
                thread.shutdown(wait=False)
        return self._read[number].result()

    def _load(self, blocks: NDArray[np.intp]) -> Window:
        """Read blocks in the order in which they are stored."""
        blocks = np.sort(blocks)
        parts = [slice(b * BLOCK_ROWS, min(len(self), (b + 1) * BLOCK_ROWS)) for b in blocks]
        starts = np.cumsum([0, *(part.stop - part.start for part in parts[:-1])])
        return Window(blocks, starts, self._X.read_together(parts))


def n_bytes(rows: Matrix) -> int:
    """Count the bytes that rows occupy."""
    if sparse.issparse(rows):
        return int(rows.data.nbytes + rows.indices.nbytes + rows.indptr.nbytes)
    return int(rows.nbytes)
