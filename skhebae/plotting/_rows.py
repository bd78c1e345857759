"""Drawing of rows, as images or as profiles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from skhebae.plotting._common import PALETTE, add_legend, check_axes, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from skhebae.plotting._common import AxesLike

Array = NDArray[Any]
PROFILE_COLUMNS = 5


class Rows(NamedTuple):
    """The four kinds of rows that `ReconstructionDisplay` draws."""

    originals: Array
    reconstructions: Array
    interpolations: Array
    samples: Array

    def interpolation_names(self) -> list[str]:
        """Name each interpolation by the rows it connects."""
        return [f"row {2 * k} to {2 * k + 1}" for k in range(len(self.interpolations))]


def draw_images(
    rows: Rows, image_shape: tuple[int, ...], ax: AxesLike | None, caller: str
) -> NDArray[np.object_]:
    """Draw one sheet of images per kind of row, each on its own axes."""
    lines = rows.interpolations
    names = ", ".join(rows.interpolation_names())
    kinds = {
        "originals": rows.originals,
        "reconstructions": rows.reconstructions,
        f"interpolations: {names}": lines.reshape(-1, lines.shape[-1]),
        "samples": rows.samples,
    }
    kinds = {title: images for title, images in kinds.items() if len(images)}
    # Each interpolation fills one line of its sheet.
    n_columns = lines.shape[1] if len(lines) else max(len(rows.originals), 5)
    sheets = [tile(images, image_shape, n_columns) for images in kinds.values()]
    heights = [len(sheet) / sheet.shape[1] for sheet in sheets]
    width = 7.0
    axes = make_axes(
        ax,
        (len(sheets), 1),
        caller,
        "one for each of " + "; ".join(kinds),
        figsize=(width, width * sum(heights) + 0.32 * len(sheets)),
        gridspec_kw={"height_ratios": heights},
    )[:, 0]
    low, high = np.nanmin(rows.originals), np.nanmax(rows.originals)
    for axis, title, sheet in zip(axes, kinds, sheets, strict=True):
        draw_sheet(axis, sheet, low, high)
        axis.set_title(title, loc="left", fontsize="medium")
        axis.axis("off")
    return axes


def tile(images: Array, image_shape: tuple[int, ...], n_columns: int) -> Array:
    """Arrange images in a grid, separated by gaps of NaN."""
    height, width, *channels = image_shape
    gap = max(1, round(max(height, width) / 16))
    n_lines = -(-len(images) // n_columns)
    size = n_lines * (height + gap) - gap, n_columns * (width + gap) - gap
    sheet = np.full((*size, *channels), np.nan)
    for k, image in enumerate(images.reshape(-1, *image_shape)):
        top, left = (k // n_columns) * (height + gap), (k % n_columns) * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def draw_sheet(axis: Axes, sheet: Array, low: float, high: float) -> None:
    """Draw a sheet of grey or colour images with white gaps."""
    import matplotlib as mpl

    if sheet.ndim == 3:
        colours = ((sheet - low) / ((high - low) or 1.0)).clip(0, 1)
        axis.imshow(np.where(np.isnan(colours), 1.0, colours))
    else:
        grey = mpl.colormaps["gray"].with_extremes(bad="white")
        axis.imshow(sheet, cmap=grey, vmin=low, vmax=high)


def draw_profiles(rows: Rows, ax: AxesLike | None, caller: str) -> NDArray[np.object_]:
    """Draw rows as curves over the feature index, all on one vertical range."""
    n_rows = len(rows.originals)
    below = rows.interpolation_names() + (["samples"] if len(rows.samples) else [])
    axes = profile_axes(ax, n_rows, below, caller)
    for i, axis in enumerate(axes[:n_rows]):
        axis.plot(rows.originals[i], color=PALETTE[0], label="original")
        axis.plot(rows.reconstructions[i], color=PALETTE[6], linestyle="--", label="reconstruction")
        axis.set_title(f"row {i}", fontsize="medium")
    for axis, title, line in zip(axes[n_rows:], below, rows.interpolations, strict=False):
        draw_interpolation(axis, line)
        axis.set_title(f"{title}, dark to light", fontsize="medium")
    if len(rows.samples):
        axes[-1].plot(rows.samples.T, color=PALETTE[4], alpha=0.5, linewidth=1)
        axes[-1].set_title("samples", fontsize="medium")
    add_legend(axes[0], new_figure=ax is None)
    everything = [kind.reshape(-1) for kind in rows]
    low, high = (f(np.concatenate(everything)) for f in (np.nanmin, np.nanmax))
    margin = 0.05 * ((high - low) or 1.0)
    for axis in axes:
        axis.set(ylim=(low - margin, high + margin), xlabel="feature", ylabel="value")
        axis.label_outer()
    return axes


def draw_interpolation(axis: Axes, line: Array) -> None:
    """Draw the steps of an interpolation from dark to light."""
    import matplotlib as mpl

    # The yellow end of the colour map is invisible on white.
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, len(line)))
    for step, colour in zip(line, colours, strict=True):
        axis.plot(step, color=colour, linewidth=1)


def profile_axes(
    ax: AxesLike | None, n_rows: int, below: list[str], caller: str
) -> NDArray[np.object_]:
    """Return the axes of the rows, followed by those of the bottom line of panels."""
    if ax is not None:
        given = check_axes(
            ax, n_rows + len(below), caller, f"one for each of {n_rows} rows; {'; '.join(below)}"
        )
        return np.array(given, dtype=object)
    import matplotlib.pyplot as plt

    # The panels of the bottom line share the full width, so each column of rows is
    # split into as many cells as there are such panels.
    n_columns = min(n_rows, PROFILE_COLUMNS)
    n_lines = -(-n_rows // n_columns)
    slots = np.full(n_lines * n_columns, -1)
    slots[:n_rows] = np.arange(n_rows)
    layout = np.repeat(slots.reshape(n_lines, n_columns), max(len(below), 1), axis=1)
    if below:
        layout = np.vstack([layout, np.repeat(n_rows + np.arange(len(below)), n_columns)])
    _, axes = plt.subplot_mosaic(
        layout.tolist(),
        empty_sentinel=-1,
        sharex=True,
        sharey=True,
        layout="constrained",
        figsize=(max(2.2 * n_columns, 5.0), 2.0 * len(layout) + 0.4),
    )
    return np.array([axes[k] for k in range(n_rows + len(below))], dtype=object)
