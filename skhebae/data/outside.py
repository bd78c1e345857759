"""Rows far outside those that a standardisation was measured on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import gen_batches
from torch import Tensor

from skhebae.data.moments import column_range
from skhebae.data.scaling import Scaling, may_exceed
from skhebae.data.table import CHUNK_ROWS, Matrix
from skhebae.exceptions import OutOfRangeWarning, warn_caller

#: A value this many units from the centre of its feature is far outside. A unit is at least
#: `RANGE_FRACTION` of the feature's range in `fit`, so all rows of `fit` lie within four. Rare
#: values of ordinary rows go up to 850: a pixel that is at most 1 in the rows of `fit` and 255 in
#: another.
FAR = 1000.0

#: Number of features that a warning names.
SHOWN = 5


class Outside:
    """Collects how far rows lie outside.

    Parameters
    ----------
    scaling : Scaling
    """

    def __init__(self, scaling: Scaling) -> None:
        self._scaling = scaling
        self._units = scaling.distance_units
        self._farthest: NDArray[np.float64] | None = None
        if self._units is not None:
            self._bound = FAR * float(self._units.min())

    def see(self, x: Tensor) -> None:
        """Look at standardised rows on the CPU."""
        if self._units is None or len(x) == 0 or not may_exceed(x.numpy(), self._bound):
            return
        low, high = x.aminmax()
        if max(-float(low), float(high)) > self._bound:
            self._add(x.abs().amax(dim=0).double().numpy() / self._units)

    def see_table(self, X: Matrix) -> None:
        """Look at the rows of a table, in their own units."""
        if self._units is None:
            return
        location, unit = self._scaling.location, self._scaling.scale * self._units
        for rows in gen_batches(X.shape[0], CHUNK_ROWS):
            low, high = column_range(X[rows])
            self._add(np.maximum(location - low, high - location) / unit)

    def _add(self, distance: NDArray[np.float64]) -> None:
        if self._farthest is None:
            self._farthest = distance
        else:
            self._farthest = np.maximum(self._farthest, distance)

    def warn(self, names: NDArray[Any] | None) -> None:
        """Warn the user, if any rows were far outside."""
        if self._farthest is None or not self._farthest.max() > FAR:
            return
        distance = self._farthest
        far = np.argsort(-distance, kind="stable")[: int((distance > FAR).sum())]
        shown = []
        for j in far[:SHOWN]:
            name = f"column {j}" if names is None else repr(str(names[j]))
            shown.append(f"{name} ({shown_number(distance[j])} times)")
        warn_caller(
            f"X lies far outside the rows of fit in {len(far)} of {len(distance)} features, by "
            f"multiples of their spread there: {', '.join(shown)}"
            f"{', ...' if len(far) > SHOWN else ''}. Codes and scores of such rows mean little. "
            "Remove them, check their units, or fit again with rows like these.",
            OutOfRangeWarning,
        )


#: What collects at present, for calls within calls.
CURRENT: ContextVar[Outside | None] = ContextVar("CURRENT", default=None)


@contextmanager
def watched(scaling: Scaling, names: NDArray[Any] | None) -> Iterator[Outside]:
    """Collect how far rows lie outside; warn at the end of the outermost block, once."""
    outer = CURRENT.get()
    if outer is not None:
        yield outer
        return
    outside = Outside(scaling)
    token = CURRENT.set(outside)
    try:
        yield outside
    finally:
        CURRENT.reset(token)
    outside.warn(names)


def shown_number(value: float) -> str:
    """Write a large number with two digits that count: 52,000, or 3e+12."""
    return f"{float(f'{value:.2g}'):,.0f}" if value < 1e9 else f"{value:.0e}"
