"""Contour ellipses of a bivariate normal distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D


def draw_ellipses(
    axis: Axes,
    mean: ArrayLike | None,
    covariance: ArrayLike | None,
    colour: str,
    linestyle: Literal["-", ":"],
) -> Line2D:
    """Draw ellipses at 1 and 2 standard deviations; return a line for the legend."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Ellipse

    x, y = np.asarray(mean, dtype=np.float64)
    variances, directions = np.linalg.eigh(np.asarray(covariance, dtype=np.float64))
    width, height = 2 * np.sqrt(variances.clip(0))
    angle = np.degrees(np.arctan2(directions[1, 0], directions[0, 0]))
    for n_deviations in (1, 2):
        ellipse = Ellipse((x, y), n_deviations * width, n_deviations * height, angle=angle)
        ellipse.set(fill=False, edgecolor=colour, linestyle=linestyle, linewidth=1.5, zorder=3)
        axis.add_patch(ellipse)
    return Line2D([], [], linewidth=1.5, color=colour, linestyle=linestyle)
