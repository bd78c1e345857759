"""What the displays share: checks, axes and colours. Imports matplotlib only when called."""

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

# Ten colours told apart with any colour vision (M. Petroff, arXiv:2107.02270).
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
# Of what has no value: a missing number, an undefined correlation.
MISSING = "0.8"


def check_matplotlib(caller: str) -> None:
    """Say which extra to install if matplotlib is missing."""
    try:
        import_module("matplotlib")
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib; install it with pip install 'skhebae[plot]'."
        ) from error


def check_estimator(estimator: BaseEstimator, needed: Sequence[str], caller: str) -> None:
    """Check that an estimator is fitted and has what the caller will use."""
    check_is_fitted(estimator)
    missing = [name for name in needed if not hasattr(estimator, name)]
    if missing:
        raise TypeError(
            f"{caller} needs {', '.join(missing)}, which {type(estimator).__name__} has not; pass "
            "a skhebae estimator: of a pipeline its last step, pipeline[-1], with rows "
            "pipeline[:-1].transform(X), of a search search.best_estimator_."
        )


def check_named(argument: str, values: object, kind: str) -> None:
    """Check that there is a dict of one value or more, by the models' names."""
    if not isinstance(values, Mapping) or not values:
        raise ValueError(
            f"{argument}={values!r} must be a dict of one or more {kind} by name, for example "
            "{'HEBAE': ..., 'VAE': ...}."
        )


def check_estimators(
    estimators: Mapping[str, BaseEstimator], needed: Sequence[str], caller: str
) -> None:
    """`check_estimator` for each of several named ones."""
    check_named("estimators", estimators, "fitted estimators")
    for estimator in estimators.values():
        check_estimator(estimator, needed, caller)


def check_axes(ax: AxesLike, n_axes: int, caller: str, contents: str) -> list[Axes]:
    """List the caller's axes if there are as many as needed."""
    from matplotlib.axes import Axes

    axes = list(np.ravel(np.asarray(ax, dtype=object)))
    if not all(isinstance(axis, Axes) for axis in axes):
        raise ValueError(f"ax={ax!r} must be matplotlib Axes, or an array of them.")
    if len(axes) != n_axes:
        raise ValueError(
            f"ax holds {len(axes)} axes, but this {caller} needs {n_axes}: {contents}."
        )
    if any(axis.figure is not axes[0].figure for axis in axes):
        raise ValueError("ax holds axes of different figures; pass axes of one.")
    return axes


def make_axes(
    ax: AxesLike | None,
    shape: tuple[int, int],
    caller: str,
    contents: str,
    **new: Any,
) -> NDArray[np.object_]:
    """Arrange the caller's axes in a grid, or make a new figure with `new`."""
    check_matplotlib(caller)
    if ax is None:
        import matplotlib.pyplot as plt

        grid: NDArray[np.object_]
        _, grid = plt.subplots(*shape, squeeze=False, **{"layout": "constrained", **new})
        return grid
    given = check_axes(ax, shape[0] * shape[1], caller, contents)
    return np.array(given, dtype=object).reshape(shape)


def add_legend(axis: Axes, *, new_figure: bool) -> None:
    """Name the lines of an axes: above all axes of a new figure, else inside."""
    lines = axis.get_lines()
    if new_figure:
        n_columns = min(len(lines), 4)
        axis.figure.legend(
            handles=lines, loc="outside upper center", ncols=n_columns, frameon=False
        )
    else:
        axis.legend(handles=lines, fontsize="small")


def wrapped(name: str, width: int = 26) -> str:
    """Break a long name into lines."""
    return textwrap.fill(str(name), width)


def series_name(values: object) -> str | None:
    """Name of a pandas or polars Series; arrays have none."""
    name = getattr(values, "name", None) if hasattr(values, "to_numpy") else None
    return None if name is None else str(name)
