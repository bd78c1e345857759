"""Row-wise evaluation in chunks of one fixed shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
FloatArray = NDArray[np.floating[Any]]


def rows_per_chunk(numbers_per_row: int) -> int:
    """Return the rows of a chunk whose widest result has `numbers_per_row` numbers per row."""
    return max(1, min(CHUNK_ROWS, CHUNK_NUMBERS // numbers_per_row))


def map_rows(
    function: Callable[[Minibatch], Tensor],
    read: Callable[[slice], Minibatch],
    n_rows: int,
    *,
    numbers_per_row: int = 1,
    finish: Callable[[Float32Array], FloatArray] | None = None,
) -> FloatArray:
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
    ndarray of shape (n_rows, ...), float32 or as `finish` returns
    """
    chunk = rows_per_chunk(numbers_per_row)
    result: FloatArray | None = None
    with torch.no_grad():
        for start in range(0, n_rows, chunk):
            rows = read(slice(start, min(start + chunk, n_rows)))
            n_read = len(rows)
            values = evaluate(function, rows, chunk).cpu()
            done = finish(values.numpy()) if finish else values.numpy()
            if result is None:
                result = np.empty((n_rows, *done.shape[1:]), dtype=done.dtype)
            result[start : start + n_read] = done
    assert result is not None  # validated tables have rows
    return result


def evaluate(function: Callable[[Minibatch], Tensor], rows: Minibatch, chunk: int) -> Tensor:
    """Apply a row-wise `function` to at most `chunk` rows.

    Rows without missing entries are evaluated apart from the others, and without a mask, as they
    are in a chunk of their own: sums over masked entries round differently.
    """
    if rows.mask is None:
        return function(rows.padded(chunk))[: len(rows)]
    complete = rows.mask.all(dim=1)
    result: Tensor | None = None
    for chosen, has_mask in ((complete, False), (~complete, True)):
        if not chosen.any():
            continue
        part = rows.map_rows(lambda tensor, chosen=chosen: tensor[chosen])  # type: ignore[misc]
        part = part if has_mask else part.replace(mask=None)
        values = function(part.padded(chunk))[: len(part)]
        if result is None:
            result = values.new_empty(len(rows), *values.shape[1:])
        result[chosen] = values
    assert result is not None
    return result
