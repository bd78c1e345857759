"""Finding room for text among points."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Corner = Literal["lower left", "lower right", "upper left", "upper right"]


def are_apart(points: NDArray[Any], distance: float) -> bool:
    """Whether every pair of points is further apart than `distance`."""
    distances = np.linalg.norm(points[:, None] - points, axis=-1)
    return bool(np.all(distances[~np.eye(len(points), dtype=bool)] > distance))


def emptiest_corner(points: NDArray[Any]) -> Corner:
    """Return the corner of the points' bounding box that holds the fewest points."""
    low, high = points.min(axis=0), points.max(axis=0)
    x, y = ((points - low) / np.where(high > low, high - low, 1)).T
    counts: dict[Corner, int] = {
        "lower left": np.sum((x < 0.4) & (y < 0.3)),
        "lower right": np.sum((x > 0.6) & (y < 0.3)),
        "upper left": np.sum((x < 0.4) & (y > 0.7)),
        "upper right": np.sum((x > 0.6) & (y > 0.7)),
    }
    return min(counts, key=lambda corner: counts[corner])
