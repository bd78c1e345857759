"""The distinct numbers of all processes, for their exact median."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skhebae.distributed import Group


class DistinctValues(NamedTuple):
    """Distinct numbers in ascending order, and how often each occurs, or its weight."""

    values: NDArray[np.float64]
    counts: NDArray[Any]

    @classmethod
    def gather(
        cls,
        values: NDArray[np.float64],
        group: Group,
        weight: NDArray[np.float64] | None = None,
    ) -> DistinctValues:
        """Gather those of all processes: of row totals there are far fewer than rows.

        Numbers have weights, as often as each occurs, in all processes or in none.
        """
        if weight is None:
            parts = group.gather(np.unique(values, return_counts=True))
        else:
            own, inverse = np.unique(values, return_inverse=True)
            parts = group.gather((own, np.bincount(inverse, weight, minlength=len(own))))
        distinct, places = np.unique(np.concatenate([own for own, _ in parts]), return_inverse=True)
        counts = np.zeros(len(distinct), dtype=np.intp if weight is None else np.float64)
        np.add.at(counts, places, np.concatenate([n for _, n in parts]))
        return cls(distinct, counts)

    def total(self) -> float:
        """Count the numbers, repetitions included."""
        total: float = self.counts.sum().item()
        return total

    def median(self) -> float:
        """Return the mean of the two numbers in the middle."""
        n = self.total()
        middle = [max((n - 1) // 2, 0), n // 2]
        places = np.searchsorted(np.cumsum(self.counts), middle, side="right")
        return float(self.values[places].mean())

    def log_deviation(self) -> float:
        """Return the standard deviation of the logarithms."""
        logs, share = np.log(self.values), self.counts / self.total()
        centred = logs - share @ logs
        return float(np.sqrt(share @ np.square(centred)))
