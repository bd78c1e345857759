"""Curves of the losses during training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator

from skhebae.plotting._common import (
    PALETTE,
    add_legend,
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

LINESTYLES = ("-", "--", "-.", ":")
# A line over few epochs is short, and over one epoch it is invisible: mark the points.
FEW_EPOCHS = 10


class TrainingDisplay:
    """Reconstruction, penalty and validation loss in each epoch.

    The third panel is drawn only if a model was fitted with early stopping. Use
    `TrainingDisplay.from_estimator` or `TrainingDisplay.from_estimators` to
    create a display.

    Parameters
    ----------
    histories : dict of str to dict
        Each model's `history_`, keyed by the model's name. The display reads the
        lists "reconstruction", "penalty" and "validation_loss", in nats per row.

    Attributes
    ----------
    ax_ : ndarray of 2 or 3 Axes
        Axes of the panels.
    figure_ : Figure
        Figure that contains the axes.

    See Also
    --------
    ReconstructionDisplay : Reconstructions of the fitted model.

    Examples
    --------
    >>> from skhebae.plotting import TrainingDisplay
    >>> history = {"reconstruction": [9.0, 4.0], "penalty": [0.1, 0.2]}
    >>> display = TrainingDisplay({"HEBAE": history}).plot()
    >>> display.ax_.shape
    (2,)
    """

    ax_: NDArray[np.object_]
    figure_: Figure | SubFigure

    def __init__(self, histories: Mapping[str, Mapping[str, Sequence[float]]]) -> None:
        check_named("histories", histories, "histories")
        self.histories = dict(histories)

    @classmethod
    def from_estimator(
        cls, estimator: BaseEstimator, *, name: str | None = None, ax: AxesLike | None = None
    ) -> Self:
        """Draw the training curves of one model.

        Parameters
        ----------
        estimator : estimator
            Fitted skhebae estimator.
        name : str, default=None
            Key in `histories`; None uses the name of the class.
        ax : sequence of 2 or 3 Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        TrainingDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError
            If the estimator is not fitted.
        TypeError
            If the estimator has no `history_`, as is the case for a pipeline.
        ValueError
            If `ax` holds the wrong number of axes.
        """
        title = type(estimator).__name__ if name is None else name
        return cls.from_estimators({title: estimator}, ax=ax)

    @classmethod
    def from_estimators(
        cls, estimators: Mapping[str, BaseEstimator], *, ax: AxesLike | None = None
    ) -> Self:
        """Draw the training curves of several models together.

        Parameters
        ----------
        estimators : dict of str to estimator
            Fitted estimators, keyed by their names in the legend.
        ax : sequence of 2 or 3 Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        TrainingDisplay
            Display that holds what it drew as attributes.

        Raises
        ------
        NotFittedError, TypeError, ValueError
            Under the conditions of `from_estimator`.
        """
        check_matplotlib(cls.__name__)
        check_estimators(estimators, ["history_"], cls.__name__)
        return cls({name: model.history_ for name, model in estimators.items()}).plot(ax=ax)

    def plot(self, ax: AxesLike | None = None) -> Self:
        """Draw the curves.

        Parameters
        ----------
        ax : sequence of 2 or 3 Axes, default=None
            Axes to draw on; None creates a new figure.

        Returns
        -------
        TrainingDisplay
            This display.

        Raises
        ------
        ValueError
            If `ax` holds the wrong number of axes.
        """
        panels = {"reconstruction": "reconstruction", "penalty": "penalty"}
        if any(np.isfinite(h.get("validation_loss", [])).any() for h in self.histories.values()):
            panels["validation_loss"] = "validation loss"
        self.ax_ = make_axes(
            ax,
            (1, len(panels)),
            type(self).__name__,
            ", ".join(panels.values()),
            figsize=(3.6 * len(panels) + 0.4, 3.4),
        )[0]
        self.figure_ = self.ax_[0].figure
        for axis, (key, title) in zip(self.ax_, panels.items(), strict=True):
            self._draw_panel(axis, key)
            axis.set(
                title=title, xlabel="epoch", ylabel="nats per row" if axis is self.ax_[0] else None
            )
            axis.grid(alpha=0.3)
        if len(self.histories) > 1:
            add_legend(self.ax_[0], new_figure=ax is None)
        return self

    def _draw_panel(self, axis: Axes, key: str) -> None:
        from matplotlib.ticker import MaxNLocator

        for i, (name, history) in enumerate(self.histories.items()):
            values = np.asarray(history.get(key, []), dtype=np.float64)
            n_finite = int(np.isfinite(values).sum())
            if n_finite:
                axis.plot(
                    np.arange(1, len(values) + 1),
                    values,
                    color=PALETTE[i % len(PALETTE)],
                    linestyle=LINESTYLES[i % len(LINESTYLES)],
                    marker="o" if n_finite <= FEW_EPOCHS else None,
                    markersize=4,
                    label=wrapped(name),
                )
        axis.xaxis.set_major_locator(
            MaxNLocator(6, integer=True, steps=[1, 2, 5, 10], min_n_ticks=1)
        )
