"""Tables outside memory, such as HDF5, zarr, dask or memory maps, read in blocks of rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skhebae.data.by_annbatch import loaded_by_annbatch
from skhebae.data.table import CHUNK_ROWS, Matrix
from skhebae.data.values import has_missing

#: Libraries whose matrices live in files or are computed lazily.
LIBRARIES = {"anndata", "dask", "h5py", "zarr"}


def is_stored(X: object) -> bool:
    """Whether `X` is a matrix that its library reads or computes only on request."""
    # AnnData's views are classes of its own module, but lie in memory.
    in_memory = isinstance(X, np.ndarray) or sparse.issparse(X)
    known = type(X).__module__.split(".")[0] in LIBRARIES
    # Of the type: what dask has yet to compute has any attribute, and one of a closed file raises.
    # An AnnData has a shape, and values of many types.
    return known and not in_memory and hasattr(type(X), "shape") and hasattr(type(X), "dtype")


def is_mapped(X: object) -> bool:
    """Whether `X` is a memory-mapped file, or a view of one."""
    while isinstance(X, np.ndarray) and not isinstance(X, np.memmap):
        X = X.base
    return isinstance(X, np.memmap)


def without_mask(X: Any) -> Any:
    """Return a masked array as one with NaN where it is masked, and anything else as it is."""
    if not isinstance(X, np.ma.MaskedArray):
        return X
    if not np.ma.getmaskarray(X).any():
        return X.data
    return np.ma.filled(X if X.dtype.kind in "fcO" else X.astype(np.float64), np.nan)


class StoredTable:
    """Selected columns of a matrix outside memory, whose rows are read on request.

    The last block of rows that was read stays in memory, so a pass over consecutive small
    slices does not read the file once per slice. What one pass has found out is not checked
    again, so the table must not change while it is in use.

    Parameters
    ----------
    source : matrix of shape (n_samples, n_columns)
        Matrix of one of `LIBRARIES`, or a memory map; slices of its rows are dense or
        sparse.
    columns : ndarray of int of shape (n_features,), optional
        Columns to select; all by default.

    Attributes
    ----------
    checked : set of str
        Names of the likelihoods that all rows were checked against and found valid for.
    """

    def __init__(self, source: Any, columns: NDArray[np.intp] | None = None) -> None:
        if len(source.shape) != 2:
            raise ValueError(
                f"X has shape {source.shape}; it must have two dimensions, rows and columns. "
                "Reshape it first."
            )
        if np.isnan(source.shape).any():
            raise ValueError(
                "X is a dask array that does not know its number of rows or columns. Call "
                "X.compute_chunk_sizes() first."
            )
        self._source = source
        self._columns = columns
        n_columns = source.shape[1] if columns is None else len(columns)
        self.shape = (int(source.shape[0]), int(n_columns))
        self._start, self._block = 0, None
        self._sums: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
        self.checked: set[str] = set()
        self._has_missing: bool | None = None

    @property
    def dtype(self) -> np.dtype[Any]:
        """Data type of the entries."""
        dtype: np.dtype[Any] = np.dtype(self._source.dtype)
        return dtype

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: slice) -> Matrix:
        """Read rows from the source, as an ndarray or CSR matrix."""
        return self._in_memory(self._source[rows])

    def read_together(self, parts: list[slice]) -> Matrix:
        """Read several stretches of rows and stack them."""
        parts = [slice(*part.indices(len(self))[:2]) for part in parts]
        loaded = loaded_by_annbatch(self._source, parts)
        if loaded is not None:
            return self._in_memory(loaded)
        blocks = [self.read(part) for part in parts]
        return sparse.vstack(blocks, "csr") if sparse.issparse(blocks[0]) else np.vstack(blocks)

    def _in_memory(self, block: Any) -> Matrix:
        """Compute a lazy block, convert it to ndarray or CSR, and select the columns."""
        if hasattr(block, "compute"):
            block = block.compute()
        if sparse.issparse(block):
            block = with_indices_of_one_type(sparse.csr_matrix(block))
        else:
            # Copy, because a view of a memory map would be read only later, in the thread
            # that trains.
            block = np.array(block) if is_mapped(block) else np.asarray(without_mask(block))
            block = block.astype(np.float64) if block.dtype == object else block
        return block if self._columns is None else block[:, self._columns]

    def __getitem__(self, rows: slice) -> Matrix:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError(f"The rows {rows} are not contiguous. Ask for a slice with step 1.")
        block, first = self._block, self._start
        if block is None or start < first or stop > first + block.shape[0]:
            block, first = self.read(slice(start, max(stop, start + CHUNK_ROWS))), start
            self._block, self._start = block, first
        return block[start - first : stop - first]

    def blocks(self, *, summed: bool = False) -> Iterator[Matrix]:
        """Yield all rows in order; with `summed`, also compute the results of `sum`."""
        of_columns, of_rows = np.zeros(self.shape[1]), []
        missing = False
        for start in range(0, max(1, len(self)), CHUNK_ROWS):  # no rows: one empty block
            block = self.read(slice(start, start + CHUNK_ROWS))
            yield block
            missing = missing or has_missing(block)
            if summed:
                of_columns += np.asarray(block.sum(axis=0, dtype=np.float64)).ravel()
                of_rows.append(np.asarray(block.sum(axis=1, dtype=np.float64)).ravel())
        self._has_missing = missing
        if summed:
            self._sums = of_columns, np.concatenate(of_rows)

    def has_missing(self) -> bool:
        """Whether an entry is NaN; one pass finds it out for good."""
        if self._has_missing is None:
            for _ in self.blocks():
                pass
        assert self._has_missing is not None
        return self._has_missing

    def sum(self, axis: int, dtype: Any = None) -> NDArray[Any]:
        """Sum over rows (axis=0) or columns (axis=1); one pass computes and caches both."""
        del dtype  # always float64
        if self._sums is None:
            for _ in self.blocks(summed=True):
                pass
        assert self._sums is not None
        return self._sums[axis]


def with_indices_of_one_type(X: Matrix) -> Matrix:
    """Return a CSR matrix whose two index arrays have the same integer type.

    Files often store row pointers in 64 bits and column indices in 32. scipy would then
    convert all column indices again for every minibatch.
    """
    if X.indptr.dtype == X.indices.dtype:
        return X
    fits = X.nnz <= np.iinfo(X.indices.dtype).max
    kind = X.indices.dtype if fits else np.int64
    result = sparse.csr_matrix(X.shape, dtype=X.dtype)
    # Assign the arrays, because the constructor would choose index types itself.
    result.data = X.data
    result.indices, result.indptr = X.indices.astype(kind, copy=False), X.indptr.astype(kind)
    return result
