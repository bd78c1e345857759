"""Row-wise evaluation in chunks of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skhebae.data.minibatch import Minibatch

#: Rows per chunk. A matrix product rounds differently when its shape changes. Every chunk is
#: padded to this shape, so a row's result does not depend on the rows it comes with.
CHUNK_ROWS = 256

#: Numbers that any intermediate result of a chunk may hold (64 MiB of float32).
CHUNK_NUMBERS = 2**24

Float32Array = NDArray[np.float32]


def rows_per_chunk(numbers_per_row: int) -> int:
    """Return the rows of a chunk whose widest result has `numbers_per_row` numbers per row."""
    return max(1, min(CHUNK_ROWS, CHUNK_NUMBERS // numbers_per_row))


def map_rows(
    function: Callable[[Minibatch], Tensor],
    read: Callable[[slice], Minibatch],
    n_rows: int,
    *,
    numbers_per_row: int = 1,
    finish: Callable[[Float32Array], Float32Array] | None = None,
) -> Float32Array:
    """Apply `function` chunk by chunk to the rows that `read` returns.

    Parameters
    ----------
    function : callable
        Minibatch of c rows to tensor (c, ...), each row independently of the others.
    read : callable
        Slice of rows to minibatch, on the device that computes.
    n_rows : int
    numbers_per_row : int
        Width of the widest intermediate result of `function`, to bound memory.
    finish : callable, optional
        Applied to the rows of each chunk before they are stored in the result.

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
            values = function(rows.padded(chunk))[:n_read].cpu()
            if result is None:
                result = np.empty((n_rows, *values.shape[1:]), dtype=np.float32)
            rows_done = values.numpy()
            result[start : start + n_read] = finish(rows_done) if finish else rows_done
    assert result is not None  # validated tables have rows
    return result
