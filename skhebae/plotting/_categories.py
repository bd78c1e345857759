"""Row labels and their legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skhebae.plotting._common import PALETTE, series_name, wrapped

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

# Ten markers in ten colours distinguish a hundred categories.
MARKERS = "o^sDvPX<>*"
LEGEND_LINES = 24


class Categories(NamedTuple):
    """Ordered category names, and the index of each row's category among them."""

    names: list[str]
    positions: NDArray[np.intp]
    title: str | None

    @classmethod
    def from_labels(cls, labels: Any) -> Categories:
        """Read labels from any array-like; a pandas Categorical keeps its order."""
        ordered = getattr(getattr(labels, "cat", labels), "categories", None)
        values = np.asarray(labels, dtype=object)
        if ordered is None:
            try:
                ordered = sorted(set(values))
            except TypeError:  # Mixed types, for example strings and None.
                ordered = sorted(set(values), key=str)
        texts = [str(value) for value in values]
        present = set(texts)
        names = [name for name in dict.fromkeys(map(str, ordered)) if name in present]
        # A Categorical does not list missing values among its categories.
        names += sorted(present.difference(names))
        if len(names) > len(PALETTE) * len(MARKERS):
            raise ValueError(
                f"labels has {len(names)} categories, and at most {len(PALETTE) * len(MARKERS)} "
                "can be told apart. Merge some of them, or pass numbers as color."
            )
        place = {name: i for i, name in enumerate(names)}
        positions = np.array([place[text] for text in texts], dtype=np.intp)
        return cls(names, positions, series_name(labels))

    def handles(self) -> list[Line2D]:
        """Return one legend entry per category."""
        from matplotlib.lines import Line2D

        return [
            Line2D(
                [],
                [],
                linestyle="",
                marker=MARKERS[i // len(PALETTE)],
                color=PALETTE[i % len(PALETTE)],
                label=wrapped(name),
            )
            for i, name in enumerate(self.names)
        ]

    def name_length(self) -> int:
        """Count the characters of the longest name."""
        return max(map(len, self.names))

    def legend_columns(self) -> int:
        """Return the number of columns that keeps the legend no taller than a new figure."""
        n_lines = sum(wrapped(name).count("\n") + 1 for name in self.names)
        return -(-n_lines // LEGEND_LINES)

    def legend_width(self) -> float:
        """Estimate the width of the legend in inches."""
        longest = max(len(line) for name in self.names for line in wrapped(name).split("\n"))
        return self.legend_columns() * (0.4 + 0.075 * longest)
