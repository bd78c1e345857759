"""Checks, axes and colours that all displays share; matplotlib is imported only on use."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    AxesLike = Axes | Sequence[Any] | NDArray[np.object_]

# Ten colours that remain distinguishable with colour vision deficiencies
# (M. Petroff, arXiv:2107.02270).
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)
# Grey for whatever has no value: a missing number or an undefined correlation.
MISSING = "0.8"


def check_matplotlib(caller: str) -> None:
    """Raise an error that names the extra to install if matplotlib is missing."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib. Install it with pip install 'skhebae[plot]'."
        ) from error


def check_estimator(estimator: BaseEstimator, needed: Sequence[str], caller: str) -> None:
    """Check that an estimator is fitted and has the attributes the caller needs."""
    check_is_fitted(estimator)
    missing = [name for name in needed if not hasattr(estimator, name)]
    if missing:
        raise TypeError(
            f"{caller} needs {', '.join(missing)}, which {type(estimator).__name__} does not have. "
            "Pass a skhebae estimator. For a pipeline, pass its last step pipeline[-1] and the "
            "rows pipeline[:-1].transform(X); for a search, pass search.best_estimator_."
        )


def check_named(argument: str, values: object, kind: str) -> None:
    """Check that `values` is a non-empty dict keyed by model name."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(
            f"{argument}={values!r} must be a dict of one or more {kind} keyed by name, for "
            "example {'HEBAE': ..., 'VAE': ...}."
        )


def check_estimators(
    estimators: Mapping[str, BaseEstimator], needed: Sequence[str], caller: str
) -> None:
    """Apply `check_estimator` to each of several named estimators."""
    check_named("estimators", estimators, "fitted estimators")
    for estimator in estimators.values():
        check_estimator(estimator, needed, caller)


def check_axes(ax: AxesLike, n_axes: int, caller: str, contents: str) -> list[Axes]:
    """Return the user's axes as a list, after checking their number and figure."""
    from matplotlib.axes import Axes

    axes = list(np.ravel(np.asarray(ax, dtype=object)))
    if not all(isinstance(axis, Axes) for axis in axes):
        raise ValueError(f"ax={ax!r} must be matplotlib Axes, or an array of them.")
    if len(axes) != n_axes:
        raise ValueError(
            f"ax holds {len(axes)} axes, but this {caller} needs {n_axes}: {contents}."
        )
    if any(axis.figure is not axes[0].figure for axis in axes):
        raise ValueError("ax holds axes of different figures. Pass axes of a single figure.")
    return axes


def make_axes(
    ax: AxesLike | None,
    shape: tuple[int, int],
    caller: str,
    contents: str,
    **new: Any,
) -> NDArray[np.object_]:
    """Arrange the user's axes in a grid, or create a new figure with the options `new`."""
    check_matplotlib(caller)
    if ax is None:
        import matplotlib.pyplot as plt

        grid: NDArray[np.object_]
        _, grid = plt.subplots(*shape, squeeze=False, **{"layout": "constrained", **new})
        return grid
    given = check_axes(ax, shape[0] * shape[1], caller, contents)
    return np.array(given, dtype=object).reshape(shape)


def add_legend(axis: Axes, *, new_figure: bool) -> None:
    """Add a legend for the lines of an axes: above a new figure, else inside the axes."""
    lines = axis.get_lines()
    if new_figure:
        n_columns = min(len(lines), 4)
        axis.figure.legend(
            handles=lines, loc="outside upper center", ncols=n_columns, frameon=False
        )
    else:
        axis.legend(handles=lines, fontsize="small")


def wrapped(name: str, width: int = 26) -> str:
    """Wrap a long name over several lines."""
    return textwrap.fill(str(name), width)


def series_name(values: object) -> str | None:
    """Return the name of a pandas or polars Series, and None for an array."""
    name = getattr(values, "name", None) if hasattr(values, "to_numpy") else None
    return None if name is None else str(name)
