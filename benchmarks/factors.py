"""Images of known factors, and how well single components of a code stand for single factors."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.metrics import mutual_info_score

Array = NDArray[Any]
#: Pixels of a side, and the values of each factor. A square turned by 90 degrees is the same.
SIDE = 16
X_POSITION = Y_POSITION = tuple(np.linspace(-0.5, 0.5, 8))
SCALE, ORIENTATION = (0.25, 0.3, 0.35, 0.4), tuple(np.linspace(0.0, np.pi / 2, 6, endpoint=False))
SHAPES = ("square", "ellipse", "triangle")
FACTORS = ("x", "y", "scale", "orientation", "shape")

#: Bins of a component's values, for its mutual information with a factor.
BINS = 20
#: Trees of a forest, and the share of the rows that it learns from.
TREES, LEARNED = 50, 0.7


def sprites() -> tuple[Array, Array]:
    """Return all images (n, SIDE^2) within [0, 1], and the index of each factor's value (n, 5)."""
    values = (X_POSITION, Y_POSITION, SCALE, ORIENTATION, SHAPES)
    factors = np.array(list(product(*(range(len(of)) for of in values))))
    x0, y0, size, angle = (np.take(of, factors[:, i]) for i, of in enumerate(values[:4]))
    axis = np.linspace(-1.0, 1.0, SIDE)
    x, y = axis[None, None, :] - x0[:, None, None], axis[None, :, None] - y0[:, None, None]
    cos, sin = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    u, v = (part / size[:, None, None] for part in (cos * x + sin * y, cos * y - sin * x))
    # A shape is where its level is below 1.
    levels = (
        np.maximum(np.abs(u), np.abs(v)),
        np.hypot(u, 2.0 * v),
        np.maximum(-1.5 * v, v + 1.5 * np.abs(u)),
    )
    level = np.choose(factors[:, 4, None, None], levels)
    images = 1.0 / (1.0 + np.exp(8.0 * (level - 1.0).clip(-10.0, 10.0)))
    return images.reshape(len(factors), -1), factors


def mutual_informations(codes: Array, factors: Array) -> Array:
    """Return the mutual information of each component with each factor, (d, k), nats."""
    inner = np.linspace(0.0, 1.0, BINS + 1)[1:-1]
    binned = [np.searchsorted(np.quantile(of, inner), of) for of in codes.T]
    return np.array([[mutual_info_score(of, v) for v in factors.T] for of in binned])


def mutual_information_gap(codes: Array, factors: Array) -> float:
    """Return the MIG: 1 if each factor is in one component only, 0 if in two alike or in none.

    Mean over factors of the difference between the two largest mutual informations, as a share of
    the factor's entropy (equation 6 of Chen et al., arXiv:1802.04942), with components in bins of
    equal counts.
    """
    informations = np.sort(mutual_informations(codes, factors), axis=0)
    entropies = np.array([mutual_info_score(v, v) for v in factors.T])
    return float(((informations[-1] - informations[-2]) / entropies).mean())


def importances(codes: Array, factors: Array, seed: int) -> tuple[Array, float]:
    """Return the importance of each component for each factor, (d, k), and informativeness.

    By forests that predict a factor; informativeness is their accuracy at rows they have not
    seen, 0 by chance and 1 at best, mean over factors.
    """
    order = np.random.default_rng(seed).permutation(len(codes))
    learned, rest = np.split(order, [int(LEARNED * len(order))])
    columns, scores = [], []
    for v in factors.T:
        # All components compete for every split: else unimportant ones would get some.
        forest = ExtraTreesClassifier(TREES, max_features=None, min_samples_leaf=5)
        forest.set_params(random_state=seed).fit(codes[learned], v[learned])
        columns.append(forest.feature_importances_)
        chance = np.unique(v, return_counts=True)[1].max() / len(v)
        scores.append((forest.score(codes[rest], v[rest]) - chance) / (1.0 - chance))
    return np.array(columns).T, float(np.mean(scores))


def concentration(weights: Array) -> Array:
    """Return 1 minus the entropy of each row, normalised, as a share of the largest one."""
    shares = weights / weights.sum(axis=1, keepdims=True).clip(1e-12)
    entropy = -(shares * np.log(shares.clip(1e-12))).sum(axis=1)
    return np.asarray(1.0 - entropy / np.log(weights.shape[1]))


def dci(codes: Array, factors: Array, seed: int = 0) -> dict[str, float]:
    """Return disentanglement, completeness and informativeness, each 1 at best.

    Of Eastwood and Williams (ICLR 2018), with the importances of forests: whether a component
    matters for one factor only (mean over components, by their importance), whether one
    component only matters for a factor (mean over factors), and whether factors can be told.
    """
    weights, informativeness = importances(codes, factors, seed)
    share = weights.sum(axis=1) / weights.sum()
    return {
        "disentanglement": float(share @ concentration(weights)),
        "completeness": float(concentration(weights.T).mean()),
        "informativeness": informativeness,
    }
