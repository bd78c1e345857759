"""What the decoder is told about a row besides its code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Covariates:
    """Experimental batches and size factors of n rows; either may be absent.

    Attributes
    ----------
    batch : ndarray of int of shape (n,) or None
        Index of each row's batch.
    n_batches : int
    log_size : ndarray of float of shape (n,) or None
        Logarithm of each row's size factor.
    """

    batch: NDArray[np.intp] | None = None
    n_batches: int = 0
    log_size: NDArray[np.float64] | None = None

    @property
    def width(self) -> int:
        """Columns of `take`."""
        return self.n_batches + (self.log_size is not None)

    def take(self, rows: Any) -> NDArray[np.float32]:
        """One-hot labels and log size factors of `rows` (m, width)."""
        parts: list[NDArray[Any]] = []
        if self.batch is not None:
            parts.append(np.eye(self.n_batches, dtype=np.float32)[self.batch[rows]])
        if self.log_size is not None:
            parts.append(self.log_size[rows, None].astype(np.float32))
        return np.concatenate(parts, axis=1)

    def behind(self, table: NDArray[np.float32], rows: Any) -> NDArray[np.float32]:
        """Put the covariates of `rows` behind their features `table` (m, p)."""
        if self.width == 0:
            return table
        return np.concatenate([table, self.take(rows)], axis=1)


NO_COVARIATES = Covariates()
