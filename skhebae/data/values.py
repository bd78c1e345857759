"""Numbers of all processes, each once: for their exact median."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skhebae.processes import Processes


class Values(NamedTuple):
    """Numbers in ascending order, each once, and how often each is there."""

    distinct: NDArray[np.float64]
    counts: NDArray[np.intp]

    @classmethod
    def gathered(cls, values: NDArray[np.float64], processes: Processes) -> Values:
        """Those of all processes: of row totals far fewer than there are rows."""
        parts = processes.gather(np.unique(values, return_counts=True))
        distinct, places = np.unique(np.concatenate([of for of, _ in parts]), return_inverse=True)
        counts = np.zeros(len(distinct), dtype=np.intp)
        np.add.at(counts, places, np.concatenate([n for _, n in parts]))
        return cls(distinct, counts)

    def __len__(self) -> int:
        return int(self.counts.sum())

    def median(self) -> float:
        """Mean of the two in the middle."""
        middle = [(len(self) - 1) // 2, len(self) // 2]
        places = np.searchsorted(np.cumsum(self.counts), middle, side="right")
        return float(self.distinct[places].mean())

    def log_deviation(self) -> float:
        """Return the standard deviation of their logarithms."""
        logs, share = np.log(self.distinct), self.counts / len(self)
        centred = logs - share @ logs
        return float(np.sqrt(share @ np.square(centred)))
