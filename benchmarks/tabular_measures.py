"""How close generated rows are to real ones, and whether they are copies of training rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import NearestNeighbors

from benchmarks.mixed_tables import MixedTable
from benchmarks.runner import Row

FloatArray = NDArray[np.float64]

#: Rows that have a level, for its loss to count.
LEVEL_ROWS = 10
#: Folds of the classifier that tells generated rows from real ones.
FOLDS = 3


class Coding:
    """Numbers for the values of a table, the same for all frames.

    Parameters
    ----------
    frames : iterable of DataFrame
        All levels that may occur are in them.
    """

    def __init__(self, frames: Iterable[Any]) -> None:
        whole = pd.concat(frames)
        self.levels = {
            name: sorted(whole[name].dropna().astype(str).unique())
            for name in whole
            if not pd.api.types.is_numeric_dtype(whole[name])
        }
        self.numbers = [name for name in whole if name not in self.levels]

    def codes(self, frame: Any, names: Iterable[str]) -> FloatArray:
        """Return numbers and places of levels, NaN where a value is missing, (n, p)."""
        columns = [self._column(frame, name) for name in names]
        return np.column_stack(columns)

    def _column(self, frame: Any, name: str) -> FloatArray:
        if name in self.levels:
            codes = pd.Categorical(frame[name].astype(object), categories=self.levels[name]).codes
            return np.where(codes < 0, np.nan, codes.astype(np.float64))
        values: FloatArray = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
        return values

    def mask(self, names: Iterable[str]) -> list[bool]:
        """Tell which columns hold levels."""
        return [name in self.levels for name in names]

    def points(self, frame: Any, reference: Any) -> NDArray[np.float32]:
        """Return rows whose distances count each column alike, missing values as the mean.

        Numbers are standardised by the reference; two other levels are a distance of 1 apart.
        """
        parts = []
        for name in frame:
            own = self._column(frame, name)
            if name in self.levels:
                hot = own[:, None] == np.arange(len(self.levels[name]))
                parts.append(hot / 2.0**0.5)
                continue
            usual = self._column(reference, name)
            unit = np.nanstd(usual) or 1.0
            parts.append(np.nan_to_num((own - np.nanmean(usual)) / unit)[:, None])
        return np.concatenate(parts, axis=1).astype(np.float32)


def measure(data: MixedTable, rows: Any, seed: int) -> Row:
    """Return everything but what sdmetrics measures, by name."""
    coding = Coding([data.train, data.other, data.test, rows])
    names = [name for name in data.train if name != data.label]
    found: Row = {
        "auc_hist_gradient_boosting": auc(coding, data, rows, names, hist(coding, names, seed)),
        "auc_gradient_boosting": auc(
            coding, data, rows, names, GradientBoostingClassifier(random_state=seed)
        ),
        "auc_real_or_not": told_from_real(coding, data.other, rows, seed),
        "levels_lost": levels_lost(coding, data.train, rows),
        "invalid_values": invalid_values(coding, data.train, rows),
    }
    return found | distances(coding, data, rows)


def hist(coding: Coding, names: list[str], seed: int) -> HistGradientBoostingClassifier:
    """Make scikit-learn's histogram-based gradient boosting."""
    return HistGradientBoostingClassifier(
        categorical_features=coding.mask(names), random_state=seed
    )


def auc(coding: Coding, data: MixedTable, rows: Any, names: list[str], model: Any) -> float | None:
    """Train a classifier on rows, and return its ROC AUC on real ones; None if it has no class."""
    # Plain gradient boosting refuses missing values.
    known, real = rows.dropna(), data.test.dropna()
    labels = known[data.label].astype(str)
    if set(labels) != set(real[data.label].astype(str)):
        return None
    model.fit(coding.codes(known, names), labels)
    scores = model.predict_proba(coding.codes(real, names))
    if scores.shape[1] == 2:
        scores = scores[:, 1]
    value = roc_auc_score(real[data.label].astype(str), scores, multi_class="ovr")
    return float(value)


def told_from_real(coding: Coding, real: Any, rows: Any, seed: int) -> float:
    """Return the ROC AUC of a classifier that tells rows from real ones, cross-validated."""
    names = list(real)
    X = np.concatenate([coding.codes(frame, names) for frame in (real, rows)])
    y = np.repeat([0, 1], [len(real), len(rows)])
    model = hist(coding, names, seed)
    scores = cross_val_predict(model, X, y, cv=FOLDS, method="predict_proba")
    return float(roc_auc_score(y, scores[:, 1]))


def levels_lost(coding: Coding, train: Any, rows: Any) -> int:
    """Count levels that some training rows have and no generated one."""
    lost = 0
    for name in coding.levels:
        counts = train[name].dropna().astype(str).value_counts()
        frequent = set(counts.index[counts >= LEVEL_ROWS])
        lost += len(frequent - set(rows[name].dropna().astype(str)))
    return lost


def invalid_values(coding: Coding, train: Any, rows: Any) -> int:
    """Count values that no training row could have: beyond bounds, fractions, other levels."""
    invalid = 0
    for name in train:
        usual, own = train[name].dropna(), rows[name].dropna()
        if name in coding.levels:
            invalid += int((~own.astype(str).isin(usual.astype(str).unique())).sum())
            continue
        invalid += int(((own < usual.min()) | (own > usual.max())).sum())
        if (usual == usual.round()).all():
            invalid += int((own != own.round()).sum())
    return invalid


def distances(coding: Coding, data: MixedTable, rows: Any) -> Row:
    """Return which share of rows has its neighbour among training rows, and how near it is.

    Compared with as many other real rows: copies of training rows would be nearer to those. The
    ratio of medians is that to the distances of other real rows from training rows.
    """
    train, other, own = (
        coding.points(frame, data.train) for frame in (data.train, data.other, rows)
    )
    to_train, to_other = nearest(train, own), nearest(other, own)
    nearer = np.mean(to_train < to_other) + 0.5 * np.mean(to_train == to_other)
    usual = float(np.median(nearest(train, other)))
    ratio = float(np.median(to_train)) / usual if usual > 0.0 else None
    found: Row = {"distance_ratio": ratio, "distance_to_training": float(np.median(to_train))}
    # Other real rows are in the reference.
    return found | {"nearer_to_training": None if rows is data.other else float(nearer)}


def nearest(reference: NDArray[Any], rows: NDArray[Any]) -> FloatArray:
    """Return the distance of each row from the nearest of a reference."""
    search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(reference)
    found: FloatArray = np.round(search.kneighbors(rows)[0][:, 0].astype(np.float64), 3)
    return found
