"""Bars of what is lost between log p(x) and the bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from skhebae.diagnostics import BoundGap, bound_gap
from skhebae.plotting._common import (
    PALETTE,
    check_estimators,
    check_matplotlib,
    check_named,
    make_axes,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from skhebae.plotting._common import AxesLike

# Bars of up to this multiple of the shortest one are drawn whole, and longer ones are cut off.
LONGEST = 6.0
PARTS = {
    "gaussian": "any Gaussian misses",
    "family": "the encoder's family misses",
    "amortisation": "the encoder misses in its family",
}


class BoundGapDisplay:
    """Stacked bars of what the bound of each model loses, in nats per row, with standard errors.

    A diamond shows what any Gaussian and independent codes lose together, where the encoder's
    posteriors are not diagonal ones. A bar that is much longer than the shortest one is cut
    off, with its length beside it. Use `BoundGapDisplay.from_estimator` or
    `BoundGapDisplay.from_estimators` to create a display.

    Parameters
    ----------
    gaps : dict of str to BoundGap
        Results of `bound_gap`, keyed by the models' names.

    Attributes
    ----------
    ax_ : Axes
        Axes of the bars.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    skhebae.diagnostics.bound_gap : The numbers.

    Examples
    --------
    >>> from sklearn.datasets import load_wine
    >>> from skhebae import HEBAETransformer, VAETransformer
    >>> from skhebae.plotting import BoundGapDisplay
    >>> X = load_wine().data
    >>> models = {"VAE": VAETransformer(2, random_state=0).fit(X)}
    >>> models["HEBAE"] = HEBAETransformer(2, row_share=1.0, random_state=0).fit(X)
    >>> display = BoundGapDisplay.from_estimators(models, X, max_rows=30)
    >>> list(display.gaps)
    ['VAE', 'HEBAE']
    """

    ax_: Axes
    figure_: Figure | SubFigure

    def __init__(self, gaps: Mapping[str, BoundGap]) -> None:
        check_named("gaps", gaps, "results of bound_gap")
        for name, gap in gaps.items():
            if not isinstance(gap, BoundGap):
                raise ValueError(
                    f"gaps[{name!r}] is of type {type(gap).__name__}. Pass what bound_gap returns."
                )
        self.gaps = dict(gaps)

    @classmethod
    def from_estimator(
        cls,
        estimator: BaseEstimator,
        X: Any,
        *,
        name: str | None = None,
        ax: AxesLike | None = None,
        **options: Any,
    ) -> Self:
        """Measure and draw what the bound of one model loses.

        Parameters
        ----------
        estimator : estimator
            Fitted estimator of skhebae.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to measure.
        name : str, default=None
            Name beside the bar; None uses the name of the class.
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.
        **options : dict
            Options of `bound_gap`, as ``max_rows``.

        Returns
        -------
        BoundGapDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            As `bound_gap`, and if `ax` does not hold one axes.
        """
        title = type(estimator).__name__ if name is None else name
        return cls.from_estimators({title: estimator}, X, ax=ax, **options)

    @classmethod
    def from_estimators(
        cls,
        estimators: Mapping[str, BaseEstimator],
        X: Any,
        *,
        ax: AxesLike | None = None,
        **options: Any,
    ) -> Self:
        """Measure and draw what the bounds of several models lose.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted estimators of skhebae, keyed by the names beside their bars.
        X : {array-like, sparse matrix} of shape (n_samples, n_features)
            Rows to measure, the same for all.
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.
        **options : dict
            Options of `bound_gap`, as ``max_rows``.

        Returns
        -------
        BoundGapDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Under the conditions of `from_estimator`.
        """
        check_matplotlib(cls.__name__)
        check_estimators(estimators, ["elbo", "log_likelihood"], cls.__name__)
        gaps = {name: bound_gap(own, X, **options) for name, own in estimators.items()}
        return cls(gaps).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw the bars.

        Parameters
        ----------
        ax : Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        BoundGapDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` does not hold one axes.
        """
        size = (7.0, 0.55 * len(self.gaps) + 1.5)
        axes = make_axes(ax, (1, 1), type(self).__name__, "the bars of all models", figsize=size)
        self.ax_ = axes[0, 0]
        self.figure_ = self.ax_.figure
        places = np.arange(len(self.gaps))
        limit = longest_bar([gap.summary["total"][0] for gap in self.gaps.values()])
        self._draw_bars(places, limit)
        self._draw_marks(places, limit)
        self.ax_.set_yticks(places, [wrapped(name) for name in self.gaps])
        self.ax_.set_xlim(0.0, 1.2 * limit)
        self.ax_.invert_yaxis()
        self.ax_.set_xlabel("log p(x) - bound, nats per row")
        handles, labels = self.ax_.get_legend_handles_labels()
        if ax is None:
            self.figure_.legend(handles, labels, loc="outside upper center", ncols=2, frameon=False)
        else:
            self.ax_.legend(handles, labels, fontsize="small")
        return self

    def _draw_bars(self, places: NDArray[np.intp], limit: float) -> None:
        """Draw the parts of each bar one after the other, each with its error."""
        left = np.zeros(len(places))
        for (part, label), colour in zip(PARTS.items(), PALETTE, strict=False):
            numbers = np.array([gap.summary[part] for gap in self.gaps.values()])
            # Below 0 by chance only.
            widths = np.minimum(numbers[:, 0].clip(0.0), 1.2 * limit - left)
            self.ax_.barh(places, widths, left=left, height=0.6, color=colour, label=label)
            ends = left + widths
            within = np.isfinite(numbers[:, 1]) & (ends < 1.2 * limit)
            self.ax_.errorbar(
                ends[within],
                places[within],
                xerr=numbers[within, 1],
                fmt="none",
                ecolor="black",
                elinewidth=1.0,
                capsize=2.0,
            )
            left = ends

    def _draw_marks(self, places: NDArray[np.intp], limit: float) -> None:
        """Draw what independent codes would lose, and the lengths of bars that are cut off."""
        label = "any Gaussian and independent codes miss"
        for place, gap in zip(places, self.gaps.values(), strict=True):
            means = {name: mean for name, (mean, _) in gap.summary.items()}
            if gap.posterior_family == "scaled":
                lost = means["gaussian"] + means["independence"]
                self.ax_.plot(
                    lost, place, "D", color="white", markeredgecolor="black", ms=5, label=label
                )
                label = "_again"
            if means["total"] > 1.2 * limit:
                text = "∞" if math.isinf(means["total"]) else f"{means['total']:.3g} →"
                self.ax_.text(1.18 * limit, place, text, color="white", ha="right", va="center")


def longest_bar(totals: list[float]) -> float:
    """Return the length of the longest bar that is drawn whole."""
    finite = [total for total in totals if math.isfinite(total) and total > 0.0]
    if not finite:
        return 1.0
    return max(total for total in finite if total <= LONGEST * min(finite))
