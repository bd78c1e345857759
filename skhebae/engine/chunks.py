"""Row-wise evaluation in chunks of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

#: Rows per chunk. A matrix product rounds differently when its shape changes;
#: with every chunk padded to this shape, a row's result does not depend on
#: the rows it came with.
CHUNK_ROWS = 256

#: Numbers a chunk may hold for every intermediate result (64 MiB of float32).
CHUNK_NUMBERS = 2**24

Float32Array = NDArray[np.float32]


def rows_per_chunk(numbers_per_row: int) -> int:
    """Rows of a chunk that holds `numbers_per_row` numbers for each at its widest."""
    return max(1, min(CHUNK_ROWS, CHUNK_NUMBERS // numbers_per_row))


def map_rows(
    function: Callable[[Tensor], Tensor],
    read: Callable[[slice], Tensor],
    n_rows: int,
    *,
    numbers_per_row: int = 1,
    finish: Callable[[Float32Array], Float32Array] | None = None,
) -> Float32Array:
    """Apply `function` to the rows that `read` returns, chunk by chunk.

    Parameters
    ----------
    function : callable
        Tensor (c, p) to tensor (c, ...), each row on its own.
    read : callable
        Slice of rows to float32 tensor, on the device that computes.
    n_rows : int
    numbers_per_row : int
        What `function` needs at its widest, to bound memory.
    finish : callable, optional
        Applied to the rows of each chunk on their way into the result.

    Returns
    -------
    ndarray of shape (n_rows, ...), float32
    """
    chunk = rows_per_chunk(numbers_per_row)
    result: Float32Array | None = None
    with torch.no_grad():
        for start in range(0, n_rows, chunk):
            rows = read(slice(start, min(start + chunk, n_rows)))
            n_read = len(rows)
            if n_read < chunk:
                rows = functional.pad(rows, (0, 0, 0, chunk - n_read))
            values = function(rows)[:n_read].cpu()
            if result is None:
                result = np.empty((n_rows, *values.shape[1:]), dtype=np.float32)
            rows_done = values.numpy()
            result[start : start + n_read] = finish(rows_done) if finish else rows_done
    assert result is not None  # validated tables have rows
    return result
