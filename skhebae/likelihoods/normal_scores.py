"""A monotone map from numbers to normal scores, by the distribution function of the rows of fit.

The line of normal scores is divided into segments. An *atom*, a value that many rows share, has a
whole segment: its probability is that of the segment. Other segments are stretches of a line that
maps scores to values one to one.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

FloatArray = NDArray[np.float64]

#: A value is an atom if it holds this many rows, and this share of them.
ATOM_ROWS, ATOM_SHARE = 5, 0.001

#: Segments of stretches, at most, and rows that each holds, about, unless there are few.
MOST_KNOTS, KNOT_ROWS, FEW_KNOTS = 1000, 10, 50

#: Rows that values which no row has count for between two values, and the smallest share of
#: that, which single precision can tell from nothing.
GAP_ROWS, SMALLEST_GAP = 0.1, 2e-6

#: Values on a stretch stay this far from the atoms beside it, in units of the score's magnitude.
MARGIN = 2e-6

#: Decimal places that are looked for.
MOST_DECIMALS = 6


class Segments(NamedTuple):
    """The segments of one column, in increasing order, each (s,).

    Attributes
    ----------
    start : ndarray
        Score at which each begins; the first at minus infinity.
    left : ndarray
        Value at which it begins; for an atom the value itself.
    anchor, value, slope : ndarray
        The segment maps a score u to ``value + slope (u - anchor)``; an atom has the slope 0,
        and its anchor is the score that stands for it.
    """

    start: FloatArray
    left: FloatArray
    anchor: FloatArray
    value: FloatArray
    slope: FloatArray

    @property
    def end(self) -> FloatArray:
        """Score at which each ends."""
        return np.append(self.start[1:], np.inf)

    def scores(self, x: FloatArray) -> FloatArray:
        """Return the scores of values, NaN where they are NaN."""
        missing = np.isnan(x)
        x = np.where(missing, 0.0, x)
        lines, atoms = np.flatnonzero(self.slope > 0.0), np.flatnonzero(self.slope == 0.0)
        scores = np.zeros(len(x))
        if len(lines):
            k = lines[np.searchsorted(self.left[lines], x, side="right").clip(min=1) - 1]
            scores = self.anchor[k] + (x - self.value[k]) / self.slope[k]
            low, high = self.start[k], self.end[k]
            margin = np.minimum(MARGIN * np.maximum(1.0, np.abs(scores)), 0.25 * (high - low))
            scores = scores.clip(low + margin, high - margin)
        if len(atoms):
            at = self.value[atoms]
            place = np.searchsorted(at, x).clip(max=len(at) - 1)
            if len(lines) == 0:  # the nearest
                before = (place - 1).clip(min=0)
                place = np.where(np.abs(at[before] - x) < np.abs(at[place] - x), before, place)
            hit = (at[place] == x) | (len(lines) == 0)
            scores = np.where(hit, self.anchor[atoms[place]], scores)
        scores[missing] = np.nan
        return scores

    def values(self, scores: FloatArray) -> FloatArray:
        """Return the values of scores."""
        k = np.searchsorted(self.start, scores, side="right").clip(min=1) - 1
        result: FloatArray = self.value[k] + self.slope[k] * (scores - self.anchor[k])
        return result


def find_step(values: FloatArray) -> float:
    """Return 1, 0.1, 0.01, ... if all values are multiples of it to rounding, else 0."""
    if len(values) == 0 or np.abs(values).max() > 1e9:
        return 0.0 if len(values) == 0 or (values != np.rint(values)).any() else 1.0
    for decimals in range(MOST_DECIMALS + 1):
        if np.array_equal(np.round(values, decimals), values):
            return float(10.0**-decimals)
    return 0.0


def round_to(values: FloatArray, step: float) -> FloatArray:
    """Round to multiples of a step; 0 leaves values as they are."""
    if step == 0.0:
        return values
    # Division by a whole number gives the decimal number that is meant.
    result: FloatArray = (
        np.rint(values / step) * step
        if step >= 1.0
        else np.rint(values * round(1.0 / step)) / round(1.0 / step)
    )
    return result


def find_segments(
    values: FloatArray, counts: FloatArray, step: float, *, only_atoms: bool = False
) -> Segments:
    """Divide the normal scores between the values of a column.

    Parameters
    ----------
    values : ndarray of shape (m,)
        Different values in increasing order.
    counts : ndarray of shape (m,)
        Rows that each holds.
    step : float
        All values are multiples of it; 0 where they are not.
    only_atoms : bool
        Whether no other values are possible.
    """
    n_rows = float(counts.sum())
    atoms = counts >= max(ATOM_ROWS, ATOM_SHARE * n_rows)
    if only_atoms:
        atoms[:] = True
    gap = 0.0 if only_atoms else max(GAP_ROWS, SMALLEST_GAP * n_rows)
    # Pieces (left, right, rows) from left to right; an atom has left == right.
    pieces: list[tuple[float, float, float]] = []
    budget = n_rows / min(MOST_KNOTS, max(FEW_KNOTS, n_rows / KNOT_ROWS))
    edges = np.flatnonzero(np.diff(np.concatenate([[True], atoms, [True]]).astype(int)))
    runs = iter(edges.reshape(-1, 2).tolist())
    run = next(runs, None)
    left = -np.inf
    for j in [*np.flatnonzero(atoms).tolist(), len(values)]:
        is_end = j == len(values)
        right = np.inf if is_end else float(values[j])
        inside = slice(0, 0)
        if run is not None and run[1] == j:
            inside, run = slice(*run), next(runs, None)
        if not only_atoms:
            pieces += line_pieces(values[inside], counts[inside], left, right, step, gap, budget)
        if not is_end:
            pieces.append((right, right, float(counts[j])))
            left = right
    return lay_out(pieces)


def line_pieces(
    values: FloatArray,
    counts: FloatArray,
    left: float,
    right: float,
    step: float,
    gap: float,
    budget: float,
) -> list[tuple[float, float, float]]:
    """Return the pieces of the stretch between two atoms, or beyond the last one.

    Parameters
    ----------
    values, counts : ndarray of shape (r,)
        What rows have there, perhaps nothing.
    left, right : float
        The atoms, or infinity.
    step : float
    gap : float
        Rows for values that no row has.
    budget : float
        Rows that a piece holds about.
    """
    half = 0.5 * step
    left, right = left + half, right - half
    if not right > left:
        return []
    if len(values) == 0:
        return [(left, right, gap)]
    if step > 0.0:
        low, high = values - half, values + half
        starts = np.concatenate([[left], np.column_stack([low, high]).ravel()])
        ends = np.append(starts[1:], right)
        rows = np.full(len(starts), gap)
        rows[1::2] = counts
    else:
        widths = np.diff(values)
        first = values[0] - (0.5 * widths[0] if len(widths) else 1e-3 * (values[0] - left))
        last = values[-1] + (0.5 * widths[-1] if len(widths) else 1e-3 * (right - values[-1]))
        # A lone value on an endless stretch has no width of its own.
        first = first if np.isfinite(first) else values[0] - max(1e-3 * abs(values[0]), 1e-3)
        last = last if np.isfinite(last) else values[-1] + max(1e-3 * abs(values[-1]), 1e-3)
        inner = np.concatenate([[max(left, first)], values, [min(right, last)]])
        starts = np.concatenate([[left], inner])
        ends = np.concatenate([inner, [right]])
        between = 0.5 * (counts[1:] + counts[:-1])
        rows = np.concatenate([[gap, 0.5 * counts[0]], between, [0.5 * counts[-1], gap]])
    kept = ends > starts
    starts, ends, rows = starts[kept], ends[kept], rows[kept]
    pieces = [(float(starts[0]), float(ends[0]), float(rows[0]))]
    open_rows, open_left = 0.0, float(ends[0])
    for k in range(1, len(starts) - 1):
        open_rows += float(rows[k])
        if open_rows >= budget or k == len(starts) - 2:
            pieces.append((open_left, float(ends[k]), open_rows))
            open_rows, open_left = 0.0, float(ends[k])
    if len(starts) > 1:
        pieces.append((float(starts[-1]), float(ends[-1]), float(rows[-1])))
    return pieces


def lay_out(pieces: list[tuple[float, float, float]]) -> Segments:
    """Give each piece the segment of normal scores that its rows ask for."""
    left, right, rows = (np.array(part) for part in zip(*pieces, strict=True))
    ends = np.cumsum(rows) / rows.sum()
    start = np.concatenate([[-np.inf], ndtri(ends[:-1])])
    end = np.append(start[1:], np.inf)
    middle = ndtri(ends - 0.5 * rows / rows.sum())
    is_atom = left == right
    anchor = np.where(is_atom, middle, np.where(np.isfinite(start), start, end))
    value = np.where(is_atom, left, np.where(np.isfinite(left), left, right))
    with np.errstate(invalid="ignore", divide="ignore"):
        slope = np.where(is_atom, 0.0, (right - left) / (end - start))
    tiny = float(np.finfo(np.float64).tiny)
    slope = np.where(is_atom, 0.0, np.nan_to_num(slope, nan=1.0, posinf=1.0).clip(min=tiny))
    segments = Segments(start, left, anchor, value, slope)
    # Beyond all rows, the mean slope between the middle and the end.
    centre = float(segments.values(np.zeros(1))[0])
    unit = float(value.max() - value.min()) or max(1.0, abs(centre))
    for k, at in ((0, end[0]), (-1, start[-1])):
        if not is_atom[k]:
            steep = (float(value[k]) - centre) / at if at != 0.0 else 0.0
            slope[k] = steep if steep > 0.0 and (at < 0.0) == (k == 0) else unit
    return segments
