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
    from matplotlib.artist import Artist
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
INDEPENDENCE = "independent codes would miss instead"


class BoundGapDisplay:
    """Stacked bars of what the bound of each model loses, in nats per row, with standard errors.

    The second panel leaves out what the encoder loses in its family, which is often most. A diamond
    shows there where a bar would end if posteriors were diagonal, for encoders whose posteriors
    are not. A bar that is much longer than the shortest one is cut off, and says how long
    it is. Use `BoundGapDisplay.from_estimator` or
    `BoundGapDisplay.from_estimators` to create a display.

    Parameters
    ----------
    gaps : dict of str to BoundGap
        Results of `bound_gap`, keyed by the models' names.

    Attributes
    ----------
    ax_ : ndarray of 2 Axes
        Axes of the whole gap, and of its parts without the encoder's.
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

    ax_: NDArray[np.object_]
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
        ax : sequence of 2 Axes, default=None
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
            As `bound_gap`, and if `ax` does not hold two axes.
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
        ax : sequence of 2 Axes, default=None
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
        ax : sequence of 2 Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        BoundGapDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` does not hold two axes.
        """
        size = (9.0, 0.55 * len(self.gaps) + 1.6)
        contents = "the whole gap, and its parts without the encoder's"
        self.ax_ = make_axes(ax, (1, 2), type(self).__name__, contents, figsize=size)[0]
        self.figure_ = self.ax_[0].figure
        means = [{k: mean for k, (mean, _) in gap.summary.items()} for gap in self.gaps.values()]
        whole = longest_bar([mean["total"] for mean in means])
        largest = max(
            mean["gaussian"] + max(mean["family"], mean["independence"]) for mean in means
        )
        parts = list(PARTS.items())
        self._draw_bars(self.ax_[0], parts, 1.2 * whole)
        self._draw_bars(self.ax_[1], parts[:2], 1.2 * max(largest, 1e-3))
        self._draw_independence(self.ax_[1])
        for place, mean in enumerate(means):
            if mean["total"] > 1.2 * whole:
                text = "∞" if math.isinf(mean["total"]) else f"{mean['total']:.3g} →"
                where = (1.18 * whole, place)
                self.ax_[0].text(*where, text, color="white", ha="right", va="center")
        self.ax_[0].set_title("whole gap", fontsize="medium")
        self.ax_[1].set_title("without the encoder's part", fontsize="medium")
        self._add_legend(new_figure=ax is None)
        return self

    def _draw_bars(self, axis: Axes, parts: list[tuple[str, str]], edge: float) -> None:
        """Draw the parts of each bar one after the other, each with its error."""
        places = np.arange(len(self.gaps))
        left = np.zeros(len(places))
        for (part, label), colour in zip(parts, PALETTE, strict=False):
            numbers = np.array([gap.summary[part] for gap in self.gaps.values()])
            # Below 0 by chance only.
            widths = np.minimum(numbers[:, 0].clip(0.0), edge - left)
            axis.barh(places, widths, left=left, height=0.6, color=colour, label=label)
            left = left + widths
            within = np.isfinite(numbers[:, 1]) & (left < edge)
            axis.errorbar(
                left[within],
                places[within],
                xerr=numbers[within, 1],
                fmt="none",
                ecolor="black",
                elinewidth=1.0,
                capsize=2.0,
            )
        axis.set_yticks(places, [wrapped(name) for name in self.gaps])
        axis.set_xlim(0.0, edge)
        axis.invert_yaxis()
        axis.set_xlabel("log p(x) - bound, nats per row")

    def _draw_independence(self, axis: Axes) -> None:
        """Mark what independent codes would lose, where the encoder's are not independent."""
        for place, gap in enumerate(self.gaps.values()):
            if gap.posterior_family == "scaled":
                lost = gap.summary["gaussian"][0] + gap.summary["independence"][0]
                axis.plot(lost, place, "D", c="white", mec="black", ms=5, label=INDEPENDENCE)

    def _add_legend(self, *, new_figure: bool) -> None:
        """Add a legend of both axes: above a new figure, else inside the first axes."""
        shown: dict[str, Artist] = {}
        for axis in self.ax_:
            for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
                shown.setdefault(label, handle)
        order = [label for label in (*PARTS.values(), INDEPENDENCE) if label in shown]
        handles = [shown[label] for label in order]
        if new_figure:
            self.figure_.legend(handles, order, loc="outside upper center", ncols=2, frameon=False)
        else:
            self.ax_[0].legend(handles, order, fontsize="small")


def longest_bar(totals: list[float]) -> float:
    """Return the length of the longest bar that is drawn whole."""
    finite = [total for total in totals if math.isfinite(total) and total > 0.0]
    if not finite:
        return 1.0
    return max(total for total in finite if total <= LONGEST * min(finite))
