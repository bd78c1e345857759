"""Covariances and correlations of the codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator

from skhebae.plotting._common import (
    MISSING,
    check_estimators,
    check_matplotlib,
    check_named,
    make_axes,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.image import AxesImage

    from skhebae.plotting._common import AxesLike

# Components beyond which numbers in the cells cannot be read.
MOST_WITH_NUMBERS = 12
# Points; the smallest number that can be read.
SMALLEST_FONT = 6.0


class CovarianceDisplay:
    """Heat maps of the codes' covariance (above) and correlation (below).

    One column for each model. The models of a row share one colour scale. A
    component whose standard deviation is under 1e-4 of the largest one has no
    correlations: they are NaN, drawn grey. It is recommended to use
    `CovarianceDisplay.from_estimator` or `CovarianceDisplay.from_estimators`.

    Parameters
    ----------
    covariances : dict of str to array-like of shape (n_components, n_components)
        Covariance of each model's codes, by the model's name.

    Attributes
    ----------
    correlations : dict of str to ndarray of shape (n_components, n_components)
        Correlations that follow from the covariances.
    ax_ : ndarray of Axes of shape (2, n_models)
        What was drawn on.
    figure_ : Figure
        Its figure.

    See Also
    --------
    LatentDisplay : Two components and the rows.

    Examples
    --------
    >>> from skhebae.plotting import CovarianceDisplay
    >>> display = CovarianceDisplay({"PCA": [[4.0, 0.0], [0.0, 1.0]]}).plot()
    >>> display.ax_.shape
    (2, 1)
    """

    ax_: NDArray[np.object_]
    figure_: Figure | SubFigure

    def __init__(self, covariances: Mapping[str, ArrayLike]) -> None:
        check_named("covariances", covariances, "matrices")
        self.covariances = {
            name: np.asarray(covariance, dtype=np.float64)
            for name, covariance in covariances.items()
        }
        for name, covariance in self.covariances.items():
            if covariance.ndim != 2 or covariance.shape[0] != covariance.shape[1]:
                raise ValueError(
                    f"covariances[{name!r}] has shape {covariance.shape}; pass a square matrix."
                )
        self.correlations = {name: correlation(c) for name, c in self.covariances.items()}

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any = None,
        *,
        name: str | None = None,
        ax: AxesLike | None = None,
    ) -> Self:
        """Draw one model.

        Parameters
        ----------
        estimator : estimator
            Fitted. With `X`, any transformer will do, for example PCA or a
            pipeline.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows whose codes' sample covariance to draw. None draws
            `latent_covariance_`, that of the aggregated posterior, which has
            the posterior's noise in it: a collapsed component has variance 1
            there and 0 among codes.
        name : str, default=None
            Title; None is the class's name.
        ax : sequence of 2 Axes, default=None
            What to draw on; None makes a new figure.

        Returns
        -------
        CovarianceDisplay
            With its data as attributes.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If the estimator has no aggregated posterior, as a pipeline.
        ValueError
            If `X` has a single row, or `ax` not two axes.
        """
        title = type(estimator).__name__ if name is None else name
        return cls.from_estimators({title: estimator}, X, ax=ax)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, BaseEstimator],
        X: Any = None,
        *,
        ax: AxesLike | None = None,
    ) -> Self:
        """Draw several models side by side.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted ones, by the titles to give them.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            As in `from_estimator`, for all of them.
        ax : array of 2 * n_models Axes, default=None
            What to draw on, first the covariances; None makes a new figure.

        Returns
        -------
        CovarianceDisplay
            With its data as attributes.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `from_estimator`.
        """
        check_matplotlib(cls.__name__)
        needed = "latent_covariance_" if X is None else "transform"
        check_estimators(estimators, [needed], cls.__name__)
        covariances = {
            name: estimator.latent_covariance_ if X is None else sample_covariance(estimator, X)
            for name, estimator in estimators.items()
        }
        return cls(covariances).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw.

        Parameters
        ----------
        ax : array of 2 * n_models Axes, default=None
            What to draw on, first the covariances; None makes a new figure.

        Returns
        -------
        CovarianceDisplay
            Itself.

        Raises
        ------
        ValueError
            If `ax` holds another number of axes.
        """
        n_models = len(self.covariances)
        largest = max(len(covariance) for covariance in self.covariances.values())
        # Room for numbers in the cells.
        side = np.clip(0.42 * min(largest, MOST_WITH_NUMBERS), 3.0, 4.6)
        self.ax_ = make_axes(
            ax,
            (2, n_models),
            type(self).__name__,
            f"a covariance and a correlation of each of {n_models} models",
            figsize=(side * n_models + 1.4, 2 * side + 0.8),
            layout="compressed",  # Made for panels of fixed aspect.
        )
        self.figure_ = self.ax_[0, 0].figure
        limit = max(np.abs(covariance).max() for covariance in self.covariances.values())
        self._draw_row(self.ax_[0], self.covariances, "covariance", limit or 1.0)
        self._draw_row(self.ax_[1], self.correlations, "correlation", 1.0)
        for axis, name in zip(self.ax_[0], self.covariances, strict=True):
            axis.set_title(wrapped(name))
        return self

    def _draw_row(
        self,
        axes: NDArray[np.object_],
        matrices: Mapping[str, NDArray[np.float64]],
        quantity: str,
        limit: float,
    ) -> None:
        import matplotlib as mpl
        from matplotlib.ticker import MaxNLocator

        colours = mpl.colormaps["RdBu_r"].with_extremes(bad=MISSING)
        for axis, matrix in zip(axes, matrices.values(), strict=True):
            image = axis.imshow(matrix, cmap=colours, vmin=-limit, vmax=limit)
            grey = " (grey: does not vary)" if np.isnan(matrix).any() else ""
            axis.set(xlabel=f"code{grey}", ylabel="code" if axis is axes[0] else None)
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(
                    MaxNLocator(MOST_WITH_NUMBERS, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
                )
        for axis in axes:
            write_numbers(axis, axis.images[0])
        self.figure_.colorbar(image, ax=list(axes), label=quantity)


def sample_covariance(estimator: BaseEstimator, X: Any) -> NDArray[np.float64]:
    """Covariance of the codes of rows."""
    codes = np.asarray(estimator.transform(X), dtype=np.float64)
    if len(codes) < 2:
        raise ValueError(f"X has {len(codes)} row, and a covariance needs 2 or more.")
    covariance: NDArray[np.float64] = np.cov(codes, rowvar=False)
    return np.atleast_2d(covariance)


def correlation(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations; NaN for components that do not vary beyond rounding."""
    deviations = np.sqrt(covariance.diagonal().clip(0))
    varies = deviations > 1e-4 * deviations.max()
    scale = np.where(varies, deviations, np.nan)
    values: NDArray[np.float64] = covariance / np.outer(scale, scale)
    return values.clip(-1, 1)


def write_numbers(axis: Axes, image: AxesImage) -> None:
    """Write values into the cells of a heat map if they can be read there."""
    values: NDArray[np.float64] = np.ma.asarray(image.get_array()).filled(np.nan)
    if len(values) > MOST_WITH_NUMBERS:
        return
    extent = axis.get_window_extent()
    # Points a cell is wide; five characters are to fit.
    cell = min(extent.width, extent.height) / axis.figure.dpi * 72 / len(values)
    size = min(cell / 2.8, 10.0)
    if size < SMALLEST_FONT:
        return
    luminance = image.to_rgba(values)[..., :3] @ [0.2126, 0.7152, 0.0722]
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            text = f"{value:.2f}".replace("-0.00", "0.00")
            colour = "white" if luminance[i, j] < 0.45 else "black"
            axis.text(j, i, text, size=size, ha="center", va="center", color=colour)
