"""Facts about each row of a table in addition to its features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skhebae.data.minibatch import Minibatch
from skhebae.data.scaling import Scaling
from skhebae.data.table import Matrix


@dataclass(frozen=True, eq=False)
class SideInformation:
    """Experimental batches, exposures and weights of n rows; each may be absent.

    Attributes
    ----------
    batch : ndarray of int of shape (n,), optional
        Index of each row's batch.
    log_size : ndarray of float of shape (n,), optional
        Logarithm of each row's exposure.
    weight : ndarray of float of shape (n,), optional
        How many rows each row stands for.
    has_missing : bool, optional
        Whether some rows of the table have missing entries, so that every minibatch has a mask.
        By default each minibatch is looked at.
    """

    batch: NDArray[np.intp] | None = None
    log_size: NDArray[np.float64] | None = None
    weight: NDArray[np.float64] | None = None
    has_missing: bool | None = None

    def read(self, X: Matrix, rows: Any, scaling: Scaling) -> Minibatch:
        """Standardise some rows of a table, and join them with what is known about them."""
        return self.minibatch(scaling.standardise(X[rows]), rows, may_miss=scaling.may_miss)

    def minibatch(self, x: NDArray[np.float32], rows: Any, *, may_miss: bool = False) -> Minibatch:
        """Join standardised rows with what is known about them.

        Parameters
        ----------
        x : ndarray of shape (m, p)
        rows : slice or ndarray of int
            Which rows of the table these are.
        may_miss : bool
            Whether NaN marks missing entries. They become 0, and False in the mask.
        """
        mask = None
        if may_miss and self.has_missing is not False:
            missing = np.isnan(x)
            if self.has_missing or missing.any():
                mask = torch.from_numpy(~missing)
                x = np.where(missing, np.float32(0.0), x)
        batch = None if self.batch is None else torch.from_numpy(self.batch[rows])
        log_size, weight = (
            None if of is None else torch.from_numpy(of[rows].astype(np.float32))
            for of in (self.log_size, self.weight)
        )
        return Minibatch(
            torch.from_numpy(x), batch=batch, log_size=log_size, mask=mask, weight=weight
        )


NO_SIDE_INFORMATION = SideInformation()
