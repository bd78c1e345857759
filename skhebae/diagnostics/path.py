"""Likelihoods against the strength of a regularisation: their numbers and their text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas

from skhebae.diagnostics._checks import import_pandas
from skhebae.markup import html_remarks, html_table

FloatArray = NDArray[np.float64]

CURVES = ("train", "held_out", "generated")
#: Largest number of values that `repr` lists; of more, evenly spaced ones.
SHOWN_VALUES = 15
#: Width of a mean with its standard error in `repr`.
CELL = 20


@dataclass(frozen=True, eq=False)
class RegularisationPath:
    """Likelihoods of training, held-out and generated rows against a strength.

    `regularisation_path` returns one. ``print(path)`` shows the table and what follows
    from it, and a notebook shows the same.

    Attributes
    ----------
    model : str
        What was fitted: the class of the estimator, or "Gaussian".
    parameter : str
        Name of the strength.
    score : str
        "log density" of the Gaussian, or the method of the estimator that `train`, `held_out`
        and `generated` are means of.
    n_rows, n_folds : int
        Number of rows, and how many times they were divided into training and held-out rows.
    values : ndarray of shape (n_values,)
        Strengths, ascending.
    train, held_out, generated : ndarray of shape (n_values,)
        Mean log-likelihood of the rows that a model was fitted to, of held-out rows, and of rows
        that the model draws, in nats per row. Means over folds.
    errors : dict of str to ndarray of shape (n_values,)
        Standard errors of these three means over folds, by their names, and "difference", the
        standard error of `held_out` minus its highest mean. All values share the rows of a
        fold, so values differ by less than folds do. NaN with a single fold.
    """

    model: str
    parameter: str
    score: str
    n_rows: int
    n_folds: int
    values: FloatArray
    train: FloatArray
    held_out: FloatArray
    generated: FloatArray
    errors: Mapping[str, FloatArray]

    @property
    def best_index(self) -> int:
        """Index of the value with the highest held-out likelihood."""
        return int(np.argmax(self.held_out))

    @property
    def best(self) -> float:
        """Value with the highest held-out likelihood."""
        return float(self.values[self.best_index])

    @property
    def one_standard_error(self) -> float:
        """Largest value whose held-out likelihood is within a standard error of the highest.

        The standard error is that of the difference from the highest, over the same folds. With a
        single fold there is none, and this is `best`.
        """
        behind = self.held_out[self.best_index] - self.held_out
        near = behind <= np.nan_to_num(self.errors["difference"])
        return float(self.values[near].max())

    @property
    def crossing(self) -> float | None:
        """Value from which on held-out rows are likelier than generated ones.

        A model that overfits finds its own rows likelier than new ones. From there on, the first
        change of sign of the difference counts. It is interpolated between two values, in their
        logarithms if all are positive. None if there is no such change.
        """
        gap = self.generated - self.held_out
        changes = np.flatnonzero((gap[:-1] > 0.0) & (gap[1:] <= 0.0))
        if not len(changes):
            return None
        left = changes[0]
        logarithmic = self.values[0] > 0.0
        ends = self.values[left : left + 2]
        low, high = np.log(ends) if logarithmic else ends
        place = low + (high - low) * gap[left] / (gap[left] - gap[left + 1])
        return float(np.exp(place) if logarithmic else place)

    @property
    def gap(self) -> float:
        """Likelihood of generated rows minus that of held-out ones, at `best`."""
        return float(self.generated[self.best_index] - self.held_out[self.best_index])

    @property
    def is_at_an_end(self) -> bool:
        """Whether `best` is the smallest or largest value, so that a better one may lie beyond."""
        return self.best_index in (0, len(self.values) - 1)

    def to_frame(self) -> pandas.DataFrame:
        """Return the curves as a data frame.

        Returns
        -------
        pandas.DataFrame
            One row per value, indexed by it, with the columns "train", "held_out", "generated",
            and the standard errors "train_error", "held_out_error", "generated_error" and
            "difference_error".

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("RegularisationPath.to_frame")
        columns = {name: getattr(self, name) for name in CURVES}
        columns |= {f"{name}_error": error for name, error in self.errors.items()}
        return pd.DataFrame(columns, index=pd.Index(self.values, name=self.parameter))

    @property
    def _title(self) -> str:
        folds = f"{self.n_folds} {'folds' if self.n_folds > 1 else 'held-out share'}"
        rows = f"{self.n_rows} rows ({self.score}, nats per row; {folds})"
        return f"RegularisationPath of {self.model} on {rows}"

    def _table(self) -> list[tuple[str, ...]]:
        """Return the strength, the means with errors, and a mark, for some of the values."""
        places = np.arange(len(self.values))
        if len(places) > SHOWN_VALUES:
            places = np.unique(np.linspace(0, len(places) - 1, SHOWN_VALUES).round().astype(int))
            places = np.union1d(places, [self.best_index])
        lines = []
        for i in places:
            numbers = [(getattr(self, name)[i], self.errors[name][i]) for name in CURVES]
            cells = [f"{v:.3f}" + ("" if math.isnan(e) else f" +- {e:.2f}") for v, e in numbers]
            mark = "best" if i == self.best_index else ""
            lines.append((f"{self.values[i]:.4g}", *cells, mark))
        return lines

    def _findings(self) -> list[tuple[str, str]]:
        """Return what follows from the curves, as pairs of name and value."""
        crossing = "none" if self.crossing is None else f"{self.crossing:.4g}"
        largest = f"{self.parameter} = {self.one_standard_error:.4g}"
        return [
            ("highest held-out likelihood", f"{self.parameter} = {self.best:.4g}"),
            ("largest within one standard error", largest),
            ("generated and held-out curves cross", crossing),
            ("generated minus held-out at the best", f"{self.gap:.3f}"),
        ]

    @property
    def remarks(self) -> tuple[str, ...]:
        """What there is to say about the values that were tried."""
        if not self.is_at_an_end:
            return ()
        side = "smaller" if self.best_index == 0 else "larger"
        return (f"The best value is the last on its side: try {side} ones too.",)

    def __repr__(self) -> str:
        width = max(12, len(self.parameter))
        head = f"{self.parameter:>{width}}" + "".join(f"{name:>{CELL}}" for name in CURVES)
        lines = [self._title, "", head]
        for value, *cells, mark in self._table():
            joined = "".join(f"{cell:>{CELL}}" for cell in cells)
            lines.append(f"{value:>{width}}{joined}" + (f"  {mark}" if mark else ""))
        lines.append("")
        lines += [f"{what:<42} {value}" for what, value in self._findings()]
        lines += [f"! {remark}" for remark in self.remarks]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = (self.parameter, *(name.replace("_", "-") for name in CURVES), "")
        table = html_table(head, self._table(), caption=self._title, right=range(4))
        return f"<div>{table}{html_table((), self._findings())}{html_remarks(self.remarks)}</div>"
