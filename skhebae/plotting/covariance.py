"""Heat maps of the covariance and correlation of codes."""

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

# With more components than this, numbers in the cells would be illegible.
MOST_WITH_NUMBERS = 12
# Smallest legible font, in points.
SMALLEST_FONT = 6.0


class CovarianceDisplay:
    """Heat maps of the codes' covariance (above) and correlation (below).

    Each model has one column, and all models share the colour scale of each row.
    A component whose standard deviation does not exceed 1e-4 of the largest one
    has no correlations; they are NaN and drawn grey. Use
    `CovarianceDisplay.from_estimator` or `CovarianceDisplay.from_estimators` to
    create a display.

    Parameters
    ----------
    covariances : dict of str to array-like of shape (n_components, n_components)
        Covariance of each model's codes, keyed by the model's name.

    Attributes
    ----------
    correlations : dict of str to ndarray of shape (n_components, n_components)
        Correlations computed from the covariances.
    ax_ : ndarray of Axes of shape (2, n_models)
        Axes of the heat maps.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    LatentDisplay : Two components, with the rows.

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
                    f"covariances[{name!r}] has shape {covariance.shape}. Pass a square matrix."
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
        """Draw the covariance and correlation of one model's codes.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator. With `X`, any transformer is accepted, for example
            PCA or a pipeline.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows whose codes' sample covariance is drawn. None draws
            `latent_covariance_`, the covariance of the aggregated posterior,
            which includes the posterior's noise. In a VAE, a collapsed component
            has a variance near 1 there and near 0 among codes.
        name : str, default=None
            Title of the column; None uses the name of the class.
        ax : sequence of 2 Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        CovarianceDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If `X` is None and the estimator has no aggregated posterior, as is the
            case for a pipeline.
        ValueError
            If `X` has a single row, or `ax` does not hold two axes.
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
        """Draw the covariance and correlation of several models side by side.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted estimators, keyed by the titles of their columns.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows for all estimators, as in `from_estimator`.
        ax : array of 2 * n_models Axes, default=None
            Axes to draw on, those of the covariances first; None creates a new
            figure.

        Returns
        -------
        CovarianceDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Under the conditions of `from_estimator`.
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
        """Draw the heat maps.

        Parameters
        ----------
        ax : array of 2 * n_models Axes, default=None
            Axes to draw on, those of the covariances first; None creates a new
            figure.

        Returns
        -------
        CovarianceDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` holds the wrong number of axes.
        """
        n_models = len(self.covariances)
        largest = max(len(covariance) for covariance in self.covariances.values())
        # Leave room for numbers in the cells.
        side = np.clip(0.42 * min(largest, MOST_WITH_NUMBERS), 3.0, 4.6)
        self.ax_ = make_axes(
            ax,
            (2, n_models),
            type(self).__name__,
            f"a covariance and a correlation for each of {n_models} models",
            figsize=(side * n_models + 1.4, 2 * side + 0.8),
            layout="compressed",  # Meant for panels of fixed aspect ratio.
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
    """Return the sample covariance of the codes of `X`."""
    codes = np.asarray(estimator.transform(X), dtype=np.float64)
    if len(codes) < 2:
        raise ValueError(
            f"X has {len(codes)} row, but a covariance needs at least 2. Pass more rows."
        )
    covariance: NDArray[np.float64] = np.cov(codes, rowvar=False)
    return np.atleast_2d(covariance)


def correlation(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return correlations, with NaN for components that vary by no more than rounding."""
    deviations = np.sqrt(covariance.diagonal().clip(0))
    varies = deviations > 1e-4 * deviations.max()
    scale = np.where(varies, deviations, np.nan)
    values: NDArray[np.float64] = covariance / np.outer(scale, scale)
    return values.clip(-1, 1)


def write_numbers(axis: Axes, image: AxesImage) -> None:
    """Write values into the cells of a heat map if they would be legible."""
    values: NDArray[np.float64] = np.ma.asarray(image.get_array()).filled(np.nan)
    if len(values) > MOST_WITH_NUMBERS:
        return
    extent = axis.get_window_extent()
    # Width of a cell in points, which must hold five characters.
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
