"""Plots of what makes rows strange."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skhebae.estimators import NoveltyDetector
from skhebae.plotting._common import (
    MISSING,
    PALETTE,
    check_matplotlib,
    make_axes,
    wrapped,
)
from skhebae.plotting._shares import (
    check_count,
    check_detector,
    check_rows,
    colour_scale,
    percents,
    row_name,
    select_table,
    shapes_agree,
    value_name,
    values_of,
)
from skhebae.plotting.reconstruction import check_image_shape

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from skhebae.plotting._common import AxesLike

#: Rows that are drawn by default.
N_ROWS = 4

#: Panels side by side, for bars.
BAR_COLUMNS = 2

#: Share of its contrast that an image keeps below a map.
FAINT = 0.35


class NoveltyDisplay:
    """What makes rows strange: the share of each column.

    Without `image_shape`, each row has a panel of horizontal bars: its largest shares, and the sum
    of all others. With it, each row is drawn as an image, and below it a map of the share of
    each pixel. Titles give p-values. Use `NoveltyDisplay.from_estimator` to create a display.

    Parameters
    ----------
    shares : array-like or DataFrame of shape (n_rows, n_features or n_features + 1)
        From `NoveltyDetector.explain`. A last column beyond those of `rows` is the part of
        codes. The columns of a frame name the bars, and its index the rows.
    rows : array-like of shape (n_rows, n_features)
        Values of the rows, written beside the bars or drawn as images.
    p_values : array-like of shape (n_rows,)
        From `NoveltyDetector.p_values`.
    max_features : int, default=10
        Bars per row, at most.
    image_shape : tuple (height, width) or (height, width, 3), default=None
        Shape of the image that a row holds; None draws bars.

    Attributes
    ----------
    ax_ : ndarray of Axes
        Axes of the panels: (n_rows,), or (2, n_rows) for images.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    ReconstructionDisplay : Rows beside their reconstructions.

    Examples
    --------
    >>> from skhebae.plotting import NoveltyDisplay
    >>> display = NoveltyDisplay([[0.7, 0.2, 0.1]], [[5.0, 1.0]], [0.01]).plot()
    >>> display.ax_[0].get_title(loc="left")
    'row 0: p = 0.01'
    >>> [label.get_text() for label in display.ax_[0].get_yticklabels()]
    ['x0 = 5', 'x1 = 1', 'code']
    """

    ax_: NDArray[np.object_]
    figure_: Figure | SubFigure

    def __init__(
        self,
        shares: Any,
        rows: ArrayLike,
        p_values: ArrayLike,
        *,
        max_features: int = 10,
        image_shape: Sequence[int] | None = None,
    ) -> None:
        self.shares = np.asarray(shares, dtype=np.float64)
        self.rows = np.asarray(rows)
        self.p_values = np.asarray(p_values, dtype=np.float64)
        shapes = self.shares.shape, self.rows.shape, self.p_values.shape
        if not shapes_agree(*shapes):
            raise ValueError(
                f"shares has shape {shapes[0]}, rows {shapes[1]} and p_values {shapes[2]}. They "
                "must be (n_rows, n_features) or (n_rows, n_features + 1), (n_rows, n_features) "
                "and (n_rows,)."
            )
        check_count("max_features", max_features)
        self.max_features = max_features
        self.image_shape = check_image_shape(image_shape, self.rows.shape[1])
        self.has_code = self.shares.shape[1] > self.rows.shape[1]
        columns = getattr(shares, "columns", None)
        numbered = [f"x{j}" for j in range(self.rows.shape[1])] + ["code"] * self.has_code
        self.names = numbered if columns is None else [str(name) for name in columns]
        index = range(len(self.shares)) if columns is None else shares.index
        self.titles = [
            f"{row_name(label)}: p = {p:.2g}" for label, p in zip(index, self.p_values, strict=True)
        ]

    @classmethod
    def from_estimator(
        cls,
        detector: NoveltyDetector,
        X: Any,
        *,
        rows: Sequence[int] | NDArray[np.integer[Any]] | None = None,
        n_rows: int = N_ROWS,
        code: str = "apart",
        max_features: int = 10,
        image_shape: Sequence[int] | None = None,
        batch: ArrayLike | None = None,
        size_factor: ArrayLike | None = None,
        ax: AxesLike | None = None,
    ) -> Self:
        """Explain rows, and draw their shares.

        Parameters
        ----------
        detector : NoveltyDetector
            Fitted detector, with ``novelty_score="auto"``.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Table with the features of the fit.
        rows : sequence of int, default=None
            Positions of the rows to draw; None draws the strangest, the strangest first.
        n_rows : int, default=4
            Number of rows that None draws, at most.
        code : {"apart", "columns"}, default="apart"
            As in `NoveltyDetector.explain`: what codes contribute has a bar of its own, and is not
            on maps; or it is divided among the columns.
        max_features : int, default=10
            Bars per row, at most.
        image_shape : tuple (height, width) or (height, width, 3), default=None
            Shape of the image that a row holds; None draws bars.
        batch, size_factor : array-like of shape (n_samples,), default=None
            As in `NoveltyDetector.score_samples`.
        ax : array of Axes, default=None
            Axes to draw on, one per row, or two for images: first those of all images,
            then those of all maps. None creates a new figure.

        Returns
        -------
        NoveltyDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError
            If the detector is not fitted.
        TypeError
            If it is no detector.
        ValueError
            If an argument is invalid, or the score of the detector is no sum over columns.
        """
        check_matplotlib(cls.__name__)
        check_detector(detector, cls.__name__)
        check_count("n_rows", n_rows)
        sides: dict[str, Any] = {"batch": batch, "size_factor": size_factor}
        if rows is None:
            chosen = np.argsort(detector.score_samples(X, **sides), kind="stable")[:n_rows]
        else:
            chosen = check_rows(rows, X.shape[0] if hasattr(X, "shape") else len(X))
        some = select_table(X, chosen)
        sides = {key: None if of is None else np.asarray(of)[chosen] for key, of in sides.items()}
        shares = detector.explain(some, code=code, **sides)
        if not hasattr(some, "index"):
            shares.index = chosen
        p_values, values = detector.p_values(some, **sides), values_of(some)
        display = cls(shares, values, p_values, max_features=max_features, image_shape=image_shape)
        return display.plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw the panels.

        Parameters
        ----------
        ax : array of Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        NoveltyDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` does not hold one Axes per panel.
        """
        check_matplotlib(type(self).__name__)
        self.ax_ = self._plot_bars(ax) if self.image_shape is None else self._plot_maps(ax)
        self.figure_ = self.ax_.ravel()[0].figure
        return self

    def _plot_bars(self, ax: AxesLike | None) -> NDArray[np.object_]:
        """Draw the largest shares of each row."""
        n_rows, n_bars = len(self.shares), min(self.max_features + 1, self.shares.shape[1])
        n_columns = min(n_rows, BAR_COLUMNS) if ax is None else n_rows
        n_lines = -(-n_rows // n_columns)
        size = (5.0 * n_columns, n_lines * (0.8 + 0.27 * n_bars))
        contents = f"one for each of {n_rows} rows"
        caller = type(self).__name__
        axes = make_axes(ax, (n_lines, n_columns), caller, contents, figsize=size).ravel()
        for surplus in axes[n_rows:]:
            surplus.remove()
        widest = max(self._draw_bars(axis, i) for i, axis in enumerate(axes[:n_rows]))
        for i, axis in enumerate(axes[:n_rows]):
            axis.set_xlim(0.0, 1.05 * widest or 1.0)
            axis.xaxis.set_major_formatter(percents)
            if i + n_columns >= n_rows:
                axis.set_xlabel("share of the strangeness")
        return axes[:n_rows]

    def _draw_bars(self, axis: Axes, i: int) -> float:
        """Draw the bars of one row, and return the length of the longest."""
        shares = self.shares[i]
        shown = np.argsort(-shares, kind="stable")[: self.max_features]
        lengths, names = list(shares[shown]), [self._bar_name(i, j) for j in shown]
        code = len(shares) - 1 if self.has_code else -1
        colours = [PALETTE[6] if j == code else PALETTE[0] for j in shown]
        n_others = len(shares) - len(shown)
        if n_others:
            lengths.append(max(0.0, shares.sum() - shares[shown].sum()))
            names.append(f"{n_others} other{'s' if n_others > 1 else ''}")
            colours.append(MISSING)
        places = np.arange(len(lengths))
        axis.barh(places, lengths, color=colours)
        # Names come from data: a dollar is no formula.
        axis.set_yticks(places, names, fontsize="small", parse_math=False)
        axis.set_ylim(len(lengths) - 0.4, -0.6)
        axis.set_title(self.titles[i], loc="left", fontsize="medium", parse_math=False)
        axis.spines[["top", "right"]].set_visible(False)
        return float(max(lengths))

    def _bar_name(self, i: int, j: int) -> str:
        """Name a bar by its column and the value of the row there."""
        if j >= self.rows.shape[1]:
            return self.names[j]
        return wrapped(f"{self.names[j]} = {value_name(self.rows[i, j])}", 34)

    def _plot_maps(self, ax: AxesLike | None) -> NDArray[np.object_]:
        """Draw each row as an image, and below it a map of its shares."""
        assert self.image_shape is not None
        n_rows = len(self.rows)
        height, width, *channels = self.image_shape
        images = self.rows.reshape(-1, *self.image_shape).astype(np.float64)
        parts = self.shares[:, : self.rows.shape[1]].reshape(-1, height, width, *channels)
        maps = parts.sum(axis=3) if channels else parts
        size = (1.7 * n_rows + 1.0, 1.7 * 2.0 * height / width + 0.6)
        contents = f"one for each of {n_rows} images, and one for each of their maps"
        axes = make_axes(ax, (2, n_rows), type(self).__name__, contents, figsize=size)
        low, high = np.nanmin(images), np.nanmax(images)
        greys = ((images - low) / ((high - low) or 1.0)).clip(0.0, 1.0)
        largest = maps.max() or 1.0
        for i in range(n_rows):
            title = self.titles[i]
            if self.has_code:
                title += f"\ncode {self.shares[i, -1]:.0%}"
            axes[0, i].imshow(greys[i], cmap="gray", vmin=0.0, vmax=1.0)
            axes[0, i].set_title(title, loc="left", fontsize="small", parse_math=False)
            axes[1, i].imshow(1.0 - FAINT * greys[i], cmap="gray", vmin=0.0, vmax=1.0)
            # Pixels that do not matter let the image through.
            mappable = axes[1, i].imshow(
                maps[i], cmap="Reds", vmin=0.0, vmax=largest, alpha=np.sqrt(maps[i] / largest)
            )
            for axis in axes[:, i]:
                axis.axis("off")
        panels = list(axes.ravel())
        bar = panels[0].figure.colorbar(colour_scale(mappable), ax=panels)
        bar.ax.yaxis.set_major_formatter(percents)
        bar.set_label("share of a pixel")
        return axes
