"""Curves of likelihoods against the strength of a regularisation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike

from skhebae.diagnostics import RegularisationPath, regularisation_path
from skhebae.plotting._common import PALETTE, add_legend, check_matplotlib, make_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from skhebae.plotting._common import AxesLike

#: Name in the legend, colour and marker of each curve; markers are read without colours.
CURVES = {
    "train": ("training rows", PALETTE[0], "o"),
    "held_out": ("held-out rows", PALETTE[2], "s"),
    "generated": ("generated rows", PALETTE[1], "^"),
}
#: Up to this many values, each is marked on its curve.
FEW_VALUES = 20
#: How far from the best held-out likelihood the axis reaches, in units of what happens there:
#: a covariance with too little regularisation has likelihoods that would hide it.
REACH = 4.0


class RegularisationDisplay:
    """Likelihood of training, held-out and generated rows against a strength.

    Bands are standard errors over folds. Vertical lines are the best value, the largest
    within one standard error of it, and where the generated and the held-out curves cross. Use
    `RegularisationDisplay.from_path` or `RegularisationDisplay.from_estimator` to create a
    display.

    Parameters
    ----------
    path : RegularisationPath
        What `skhebae.diagnostics.regularisation_path` returned.

    Attributes
    ----------
    ax_ : Axes
        Axes of the curves.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    skhebae.diagnostics.regularisation_path : Measures the curves.

    Examples
    --------
    >>> import numpy as np
    >>> from skhebae.diagnostics import regularisation_path
    >>> from skhebae.plotting import RegularisationDisplay
    >>> rows = np.random.default_rng(0).normal(size=(60, 20))
    >>> display = RegularisationDisplay.from_path(regularisation_path(rows))
    >>> display.ax_.get_xlabel()
    'covariance_prior'
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, path: RegularisationPath) -> None:
        if not isinstance(path, RegularisationPath):
            raise TypeError(
                f"path is a {type(path).__name__}; pass what regularisation_path returned, or use "
                "RegularisationDisplay.from_estimator."
            )
        self.path = path

    @classmethod
    def from_path(cls, path: RegularisationPath, *, ax: AxesLike | None = None) -> Self:
        """Draw curves that were measured before.

        Parameters
        ----------
        path : RegularisationPath
            What `skhebae.diagnostics.regularisation_path` returned.
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        RegularisationDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        TypeError
            If `path` is something else.
        ValueError
            If `ax` is not one axes.
        """
        return cls(path).plot(ax=ax)

    @classmethod
    def from_estimator(
        cls,
        estimator: Any,
        X: ArrayLike | Any = None,
        *,
        ax: AxesLike | None = None,
        **options: Any,
    ) -> Self:
        """Measure the curves of an estimator and draw them.

        Parameters
        ----------
        estimator : estimator or array-like of shape (n_samples, n_features)
            As in `skhebae.diagnostics.regularisation_path`.
        X : {array-like, sparse matrix} of shape (n_samples, n_features), default=None
            Rows, with an estimator.
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.
        **options : dict
            Further arguments of `skhebae.diagnostics.regularisation_path`, such as `parameter`
            and `values`.

        Returns
        -------
        RegularisationDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Under the conditions of `regularisation_path`, and if `ax` is not one axes.
        """
        check_matplotlib(cls.__name__)
        return cls(regularisation_path(estimator, X, **options)).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        RegularisationDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` is not one axes.
        """
        axes = make_axes(ax, (1, 1), type(self).__name__, "the curves", figsize=(6.6, 4.4))
        self.ax_ = axes[0, 0]
        self.figure_ = self.ax_.figure
        path = self.path
        for name, (label, colour, marker) in CURVES.items():
            curve, error = getattr(path, name), np.nan_to_num(path.errors[name])
            mark = marker if len(path.values) <= FEW_VALUES else None
            self.ax_.plot(path.values, curve, color=colour, marker=mark, markersize=5, label=label)
            if error.any():
                low, high = curve - error, curve + error
                self.ax_.fill_between(path.values, low, high, color=colour, alpha=0.2, linewidth=0)
        self._draw_places()
        if path.values[0] > 0.0 and path.values[-1] >= 5.0 * path.values[0]:
            self.ax_.set_xscale("log")
        unit = "" if path.score == "log density" else f" ({path.score})"
        self.ax_.set(
            xlabel=path.parameter,
            ylabel=f"nats per row{unit}",
            title=path.model,
            ylim=self._limits(),
        )
        self.ax_.grid(alpha=0.3)
        add_legend(self.ax_, new_figure=ax is None)
        return self

    def _draw_places(self) -> None:
        path, colour = self.path, "0.25"
        self.ax_.axvline(path.best, color=colour, label=f"best, {path.best:.3g}")
        if path.one_standard_error != path.best:
            label = f"one standard error, {path.one_standard_error:.3g}"
            self.ax_.axvline(path.one_standard_error, color=colour, linestyle="--", label=label)
        if path.crossing is not None:
            label = f"curves cross, {path.crossing:.3g}"
            self.ax_.axvline(path.crossing, color=colour, linestyle=":", label=label)

    def _limits(self) -> tuple[float, float]:
        """Return limits around the best held-out likelihood that show what happens near it."""
        path, best = self.path, self.path.best_index
        curves = np.array([getattr(path, name) for name in CURVES])
        top = path.held_out[best]
        errors = [np.nan_to_num(path.errors[name][best]) for name in CURVES]
        # The size of what there is to see; all curves, if they are nearly one.
        size = max(*np.abs(curves[:, best] - top), *errors) or float(np.ptp(curves)) or 1.0
        low = max(float(curves.min()) - 0.3 * size, top - REACH * size)
        high = min(float(curves.max()) + 0.3 * size, top + REACH * size)
        return low, high
