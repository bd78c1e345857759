"""Scatter plots of codes in two components."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from skhebae.plotting._categories import MARKERS, Categories
from skhebae.plotting._common import (
    MISSING,
    PALETTE,
    check_estimator,
    check_matplotlib,
    make_axes,
    series_name,
)
from skhebae.plotting._ellipses import draw_ellipses
from skhebae.plotting._placing import are_apart, emptiest_corner

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

LABEL_BOX = {"boxstyle": "round", "facecolor": "white", "alpha": 0.8, "linewidth": 0}


class LatentDisplay:
    """Scatter plot of codes in two components.

    Ellipses at 1 and 2 standard deviations compare the aggregated posterior
    (solid) with the prior N(0, I) (dotted). Use `LatentDisplay.from_estimator`
    to create a display.

    Parameters
    ----------
    codes : array-like of shape (n_samples, 2)
        The two components of each row's code.
    labels : array-like of shape (n_samples,), default=None
        Category of each row; at most 100 categories. A pandas Categorical keeps
        its order, and the name of a Series becomes the title of the legend.
    color : array-like of shape (n_samples,), default=None
        Numeric value of each row, drawn on a colour scale instead of labels.
        Rows whose value is not finite are grey.
    mean : array-like of shape (2,), default=None
        Mean of the aggregated posterior; None draws no ellipses.
    covariance : array-like of shape (2, 2), default=None
        Covariance of the aggregated posterior.
    components : tuple of two ints, default=(0, 1)
        Indices of the two components, which label the axes.

    Attributes
    ----------
    ax_ : Axes
        Axes of the scatter plot.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    CovarianceDisplay : All components at once, without the rows.

    Examples
    --------
    >>> from skhebae.plotting import LatentDisplay
    >>> codes = [[0.1, -1.2], [1.3, 0.4], [-0.9, 0.8]]
    >>> display = LatentDisplay(codes, labels=["B", "T", "T"]).plot()
    >>> display.ax_.get_xlabel()
    'code 0'
    """

    ax_: Axes
    figure_: Figure | SubFigure
    _circle_label = "prior N(0, I)"
    _prior_variances: ArrayLike = (1.0, 1.0)

    def __init__(
        self,
        codes: ArrayLike,
        *,
        labels: ArrayLike | None = None,
        color: ArrayLike | None = None,
        mean: ArrayLike | None = None,
        covariance: ArrayLike | None = None,
        components: Sequence[int] = (0, 1),
    ) -> None:
        if (mean is None) != (covariance is None):
            raise ValueError("mean and covariance belong together. Pass both or neither.")
        if labels is not None and color is not None:
            raise ValueError("labels and color are both given. Pass only one of them.")
        self.codes = np.asarray(codes)
        if self.codes.ndim != 2 or self.codes.shape[1] != 2 or not len(self.codes):
            raise ValueError(
                f"codes has shape {self.codes.shape}. Pass at least one row of two components."
            )
        self.labels = labels
        self.color = color
        self.mean = mean
        self.covariance = covariance
        self.components = tuple(components)
        for name, values in (("labels", labels), ("color", color)):
            if values is not None and np.shape(values) != (len(self.codes),):
                raise ValueError(
                    f"{name} has shape {np.shape(values)}, but there are {len(self.codes)} rows. "
                    "Pass a one-dimensional array with one value per row."
                )

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any,
        *,
        labels: ArrayLike | None = None,
        color: ArrayLike | None = None,
        components: Sequence[int] = (0, 1),
        ellipses: bool = True,
        ax: Axes | None = None,
    ) -> Self:
        """Encode rows and draw their codes.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator. Without ellipses, any transformer is accepted, for
            example PCA or a pipeline.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to draw.
        labels : array-like of shape (n_samples,), default=None
            Category of each row.
        color : array-like of shape (n_samples,), default=None
            Numeric value of each row, instead of labels.
        components : tuple of two ints, default=(0, 1)
            Components on the horizontal and the vertical axis.
        ellipses : bool, default=True
            Whether to draw the ellipses of the aggregated posterior and the prior.
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        LatentDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If ellipses are asked for and the estimator has no aggregated
            posterior, as is the case for a pipeline.
        ValueError
            If `components`, `labels` or `color` do not match the codes, or `ax` is
            not one Axes.
        """
        check_matplotlib(cls.__name__)
        moments = ["latent_mean_", "latent_covariance_"] if ellipses else []
        check_estimator(estimator, ["transform", *moments], cls.__name__)
        codes = np.asarray(estimator.transform(X))
        chosen = check_components(components, codes.shape[1])
        display = cls(
            codes[:, chosen],
            labels=labels,
            color=color,
            mean=estimator.latent_mean_[chosen] if ellipses else None,
            covariance=estimator.latent_covariance_[np.ix_(chosen, chosen)] if ellipses else None,
            components=chosen,
        )
        if ellipses and not estimator.fitted_.prior.is_standard:
            display._circle_label = "N(0, I), which is not the prior"
        elif ellipses:
            # That of the codes as the estimator scales them.
            variances = estimator.fitted_.prior_variances[chosen]
            display._prior_variances = variances
            if (variances != 1.0).any():
                display._circle_label = "prior"
        return display.plot(ax=ax)

    def plot(self, ax: Axes | None = None) -> Self:
        """Draw the scatter plot.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        LatentDisplay
            This display.

        Raises
        ------
        ValueError
            If `labels` has too many categories, `color` is not numeric, or `ax` is
            not one Axes.
        """
        check_matplotlib(type(self).__name__)
        categories = None if self.labels is None else Categories.from_labels(self.labels)
        size = (5.8 if categories is None else 5.6 + categories.legend_width(), 5.0)
        contents = "the scatter plot"
        self.ax_ = make_axes(ax, (1, 1), type(self).__name__, contents, figsize=size)[0, 0]
        self.figure_ = self.ax_.figure
        if self.mean is not None:
            self._draw_ellipses()
        if categories is not None:
            self._draw_categories(categories)
        elif self.color is not None:
            self._draw_color(as_numbers(self.color))
        else:
            self._scatter(np.arange(len(self.codes)), color=PALETTE[0])
        self.ax_.set(xlabel=f"code {self.components[0]}", ylabel=f"code {self.components[1]}")
        shares = self.ax_.get_shared_x_axes(), self.ax_.get_shared_y_axes()
        # matplotlib cannot widen the data limits of axes that share both x and y.
        fixed = all(len(group.get_siblings(self.ax_)) > 1 for group in shares)
        self.ax_.set_aspect("equal", adjustable="box" if fixed else "datalim")
        return self

    def _scatter(self, rows: NDArray[np.intp], **style: Any) -> Any:
        n = len(self.codes)
        return self.ax_.scatter(
            self.codes[rows, 0],
            self.codes[rows, 1],
            s=np.clip(600 / np.sqrt(n), 1, 25),
            alpha=np.clip(30 / np.sqrt(n), 0.1, 0.9),
            linewidths=0,
            rasterized=n > 2000,
            **style,
        )

    def _draw_categories(self, categories: Categories) -> None:
        # A random drawing order keeps one category from covering the others.
        order = np.random.default_rng(0).permutation(len(self.codes))
        colours = np.array(PALETTE)[categories.positions % len(PALETTE)]
        markers = categories.positions // len(PALETTE)
        for marker in np.unique(markers):
            rows = order[markers[order] == marker]
            self._scatter(rows, c=list(colours[rows]), marker=MARKERS[marker])
        self.ax_.legend(
            handles=categories.handles(),
            title=categories.title,
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0,
            handlelength=1,
            alignment="left",
            frameon=False,
            fontsize="small",
            ncols=categories.legend_columns(),
        )
        if len(categories.names) <= len(PALETTE) and categories.name_length() <= 3:
            self._name_categories(categories)

    def _name_categories(self, categories: Categories) -> None:
        """Write short names at the medians, where they are easier to read than a legend."""
        groups = [self.codes[categories.positions == k] for k in range(len(categories.names))]
        medians = np.array([np.median(group, axis=0) for group in groups])
        # A character is about one fortieth of the plot's height.
        if are_apart(medians, categories.name_length() * np.ptp(self.codes) / 40):
            for name, (x, y) in zip(categories.names, medians, strict=True):
                self.ax_.text(x, y, name, ha="center", va="center", weight="bold", bbox=LABEL_BOX)

    def _draw_color(self, values: NDArray[np.float64]) -> None:
        import matplotlib as mpl
        from matplotlib.cm import ScalarMappable

        order = np.random.default_rng(0).permutation(len(self.codes))
        points = self._scatter(
            order,
            c=np.ma.masked_invalid(values[order]),
            cmap=mpl.colormaps["viridis"].with_extremes(bad=MISSING),
            plotnonfinite=True,
        )
        # A separate mappable: a colour bar made from the points would inherit their transparency.
        scale = ScalarMappable(points.norm, points.cmap)
        self.figure_.colorbar(scale, ax=self.ax_, label=series_name(self.color))

    def _draw_ellipses(self) -> None:
        posterior = draw_ellipses(self.ax_, self.mean, self.covariance, "black", "-")
        prior = draw_ellipses(self.ax_, np.zeros(2), np.diag(self._prior_variances), "0.35", ":")
        posterior.set_label("aggregated posterior")
        prior.set_label(self._circle_label)
        self.ax_.autoscale_view()
        legend = self.ax_.legend(
            handles=[posterior, prior],
            title="1 and 2 standard deviations",
            loc=emptiest_corner(self.codes),
            fontsize="small",
            title_fontsize="small",
            framealpha=0.8,
        )
        self.ax_.add_artist(legend)  # Keeps the categories' legend from replacing it.


def check_components(components: Sequence[int], n_components: int) -> list[int]:
    """Check that `components` names two different components, and return them as a list."""
    if n_components < 2:
        raise ValueError(
            "The codes have 1 component, but LatentDisplay draws two. Fit with n_components >= 2, "
            "or draw a histogram of transform(X)."
        )
    asked = list(components) if isinstance(components, Sequence | np.ndarray) else []
    chosen = [int(k) for k in asked if isinstance(k, Integral) and 0 <= k < n_components]
    if len(asked) != 2 or len(set(chosen)) != 2:
        raise ValueError(
            f"components={components!r} must be two different integers from 0 to "
            f"{n_components - 1}, for example (0, 1)."
        )
    return chosen


def as_numbers(color: ArrayLike) -> NDArray[np.float64]:
    """Convert the values of the colour scale to floats."""
    try:
        values = np.asarray(color, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"color holds values that are not numbers ({error}). Pass categories as labels."
        ) from error
    if not np.isfinite(values).any():
        raise ValueError(
            "color holds no finite value. Fill in the missing values, or leave color out."
        )
    return values
