"""Some rows of a table, whatever kind of table it is."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from skhebae._sklearn import take_rows
from skhebae.data import StoredTable, find_library, is_stream
from skhebae.estimators.recognise import as_table
from skhebae.estimators.tables import is_outside_memory

#: Rows that are read together from a table outside memory.
RUN = 16

#: Fewer runs than these would be a poor sample: then rows are drawn one by one.
FEW_RUNS = 64

Indices = NDArray[np.intp]
NONE: Indices = np.empty(0, dtype=np.intp)


class Selection(NamedTuple):
    """A table with what is known about its rows, to take some of them from.

    Attributes
    ----------
    X : table
    batch, size_factor : ndarray of shape (n,) or None
    """

    X: Any
    batch: NDArray[Any] | None
    size_factor: NDArray[Any] | None

    @classmethod
    def of(
        cls,
        X: Any,
        batch: ArrayLike | None,
        size_factor: ArrayLike | None,
        *,
        window_mb: float,
        image_shape: Any = None,
    ) -> Selection:
        """Recognise a table as `fit` of an autoencoder does.

        Raises
        ------
        TypeError
            If it is no table, or a stream of tables.
        ValueError
            If there are more or fewer labels or size factors than rows.
        """
        if find_library(X) is None:
            X = as_table(X, image_shape=image_shape)
        if is_stream(X):
            raise TypeError(
                f"X is a {type(X).__name__}, which yields one table after another. A detector is "
                "fitted to one table."
            )
        if sparse.issparse(X):  # few of the formats can be indexed
            X = X.tocsr()
        if is_outside_memory(X, window_mb) and not isinstance(X, StoredTable):
            X = StoredTable(X)
        if not hasattr(X, "shape"):
            X = np.asarray(X)
        sides = []
        for name, values in (("batch", batch), ("size_factor", size_factor)):
            side = None if values is None else np.asarray(values)
            if side is not None and side.shape != (n_rows(X),):
                raise ValueError(
                    f"{name} has shape {side.shape}, but X has {n_rows(X)} rows. Give one value "
                    "per row."
                )
            sides.append(side)
        return cls(X, *sides)

    def __len__(self) -> int:
        return n_rows(self.X)

    @property
    def is_stored(self) -> bool:
        """Whether the table is outside memory."""
        return isinstance(self.X, StoredTable)

    def take(self, indices: Indices) -> Selection:
        """Return some rows in memory, in ascending order."""
        batch, size_factor = (
            None if side is None else side[indices] for side in (self.batch, self.size_factor)
        )
        if not self.is_stored:
            return Selection(take_rows(self.X, indices), batch, size_factor)
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        runs = [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(indices, breaks)]
        return Selection(self.X.read_together(runs), batch, size_factor)

    def draw(self, n_wanted: int, rng: np.random.RandomState, without: Indices = NONE) -> Indices:
        """Draw rows at random, in ascending order; in runs where they have to be read.

        Parameters
        ----------
        n_wanted : int
            All are drawn if there are no more.
        rng : RandomState
        without : ndarray of int, optional
            Rows that are not drawn.
        """
        run = RUN if self.is_stored and len(self) >= FEW_RUNS * RUN else 1
        starts = run * rng.permutation(-(-len(self) // run))
        rows = (starts[:, None] + np.arange(run)).ravel()
        is_free = np.ones(run * len(starts), dtype=bool)
        is_free[len(self) :] = False
        is_free[without] = False
        return np.sort(rows[is_free[rows]][:n_wanted])

    def leave_batches(self, held_out: Indices) -> Indices:
        """Leave out the rows of batches of which no other row would be left to fit to."""
        if self.batch is None:
            return held_out
        left = set(np.delete(self.batch, held_out).tolist())
        return held_out[[label in left for label in self.batch[held_out].tolist()]]


def n_rows(X: Any) -> int:
    """Return the number of rows of a table."""
    return int(X.shape[0]) if hasattr(X, "shape") else len(X)
