"""The distinct numbers of all processes, for their exact median."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skhebae.distributed import Group


class DistinctValues(NamedTuple):
    """Distinct numbers in ascending order, and how often each occurs."""

    values: NDArray[np.float64]
    counts: NDArray[np.intp]

    @classmethod
    def gather(cls, values: NDArray[np.float64], group: Group) -> DistinctValues:
        """Gather those of all processes: of row totals there are far fewer than rows."""
        parts = group.gather(np.unique(values, return_counts=True))
        distinct, places = np.unique(np.concatenate([own for own, _ in parts]), return_inverse=True)
        counts = np.zeros(len(distinct), dtype=np.intp)
        np.add.at(counts, places, np.concatenate([n for _, n in parts]))
        return cls(distinct, counts)

    def total(self) -> int:
        """Count the numbers, repetitions included."""
        return int(self.counts.sum())

    def median(self) -> float:
        """Return the mean of the two numbers in the middle."""
        n = self.total()
        places = np.searchsorted(np.cumsum(self.counts), [(n - 1) // 2, n // 2], side="right")
        return float(self.values[places].mean())

    def log_deviation(self) -> float:
        """Return the standard deviation of the logarithms."""
        logs, share = np.log(self.values), self.counts / self.total()
        centred = logs - share @ logs
        return float(np.sqrt(share @ np.square(centred)))
