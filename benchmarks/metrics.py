"""Measures of an embedding of held-out rows, each with a positive and a negative control.

The positive control is the data against itself (codes = rows, codes = one-hot labels, real
rows against other real rows), the negative one has nothing to do with the data (shuffled
codes, broken rows). A measure that does not tell the two apart says nothing about what lies
between them: its `Measured.valid` is False, and reports leave it out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import entropy
from sklearn import manifold
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import (
    adjusted_rand_score,
    normalized_mutual_info_score,
    pairwise_distances,
    silhouette_score,
)
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import OneHotEncoder

from benchmarks import common

Array = NDArray[Any]
Interval = tuple[float, float]

#: Rows behind whatever costs their square, at most: neighbourhoods, silhouettes, two samples.
QUADRATIC_ROWS = 2000
#: Rows behind the distance correlation, which holds several matrices of distances.
CORRELATED_ROWS = 1000
#: Rows mapped alone by `row_independence`.
ALONE = 5
#: Differences of a row's codes that count as none, as a share of the codes' spread.
SAME = 1e-3
#: How far a positive control may be from the best value: duplicate rows tie, and classes
#: with fewer rows than neighbours are outvoted.
BEST_SLACK = 0.05
#: Controls closer than this tell nothing apart (as k-NN where 95 % have one label).
RESOLUTION = 0.1


@dataclass(frozen=True)
class Measured:
    """A number, the same number for its two controls, and whether they came out as known."""

    value: float
    positive: float
    negative: float
    valid: bool


@dataclass(frozen=True)
class Independence:
    """Largest differences of codes, as shares of their spread, and whether they are none."""

    independent: bool
    deterministic: bool
    difference: float
    repeat_difference: float


def slack(n_rows: int) -> float:
    """How far a control may be from chance: 0.05 and three standard errors of a proportion."""
    return 0.05 + 1.5 / n_rows**0.5


def judged(
    numbers: Iterable[float],
    worst: Interval,
    worst_slack: float,
    best: Interval = (1.0, 1.0),
    best_slack: float = BEST_SLACK,
) -> Measured:
    """Hold a value's controls, given after it, against the intervals they are known to lie in."""
    value, positive, negative = (float(number) for number in numbers)
    valid = (
        bool(np.isfinite(value))
        and best[0] - best_slack <= positive <= best[1] + best_slack
        and worst[0] - worst_slack <= negative <= worst[1] + worst_slack
        and abs(positive - negative) >= RESOLUTION
    )
    return Measured(value, positive, negative, valid)


def subsample(size: int, random_state: int, *arrays: ArrayLike) -> list[Array]:
    """At most `size` rows of each array, the same ones, in random order.

    Rows are often sorted by label, and their order decides where distances tie and which
    fold they are in.
    """
    parts = [np.asarray(array) for array in arrays]
    order = np.random.default_rng(random_state).permutation(len(parts[0]))[:size]
    return [part[order] for part in parts]


def trustworthiness(X: Array, Z: Array, n_neighbors: int = 5, random_state: int = 0) -> float:
    """How far neighbours among codes are neighbours among rows, too; 1 is best, 0.5 chance.

    Venna & Kaski (2001), on at most `QUADRATIC_ROWS` rows.
    """
    X, Z = subsample(QUADRATIC_ROWS, random_state, X, Z)
    return float(manifold.trustworthiness(X, Z, n_neighbors=n_neighbors))


def continuity(X: Array, Z: Array, n_neighbors: int = 5, random_state: int = 0) -> float:
    """How far neighbours among rows stay neighbours among codes; 1 is best, 0.5 chance."""
    return trustworthiness(Z, X, n_neighbors, random_state)


def trustworthiness_by_chance(n_rows: int, n_neighbors: int) -> float:
    """Trustworthiness of neighbours drawn at random: their ranks are uniform."""
    n, k = n_rows, n_neighbors
    return 1.0 - (n - 1 - k) * (n - k) / ((2 * n - 3 * k - 1) * (n - 1))


def knn_accuracy(
    Z_train: Array, y_train: Array, Z_test: Array, y_test: Array, n_neighbors: int
) -> float:
    """Accuracy of nearest neighbours among training codes at labels of held-out ones."""
    return float(KNeighborsClassifier(n_neighbors).fit(Z_train, y_train).score(Z_test, y_test))


def clusters(Z: Array, y: Array, random_state: int = 0) -> Array:
    """k-means of codes, with as many clusters as there are labels."""
    k_means = KMeans(len(np.unique(y)), n_init=5, random_state=random_state)
    with warnings.catch_warnings():
        # Fewer distinct codes than labels: the scores say so, no warning has to.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(k_means.fit_predict(Z))


def nmi(Z: Array, y: Array, random_state: int = 0) -> float:
    """Normalised mutual information of labels and k-means of codes; 1 is best."""
    return float(normalized_mutual_info_score(y, clusters(Z, y, random_state)))


def ari(Z: Array, y: Array, random_state: int = 0) -> float:
    """Rand index of labels and k-means of codes, adjusted for chance; 1 is best, 0 chance."""
    return float(adjusted_rand_score(y, clusters(Z, y, random_state)))


def nmi_by_chance(y: Array, of_codes: Array) -> float:
    """Normalised mutual information that shuffled clusters have, which is above 0."""
    counts = contingency_matrix(y, of_codes)
    entropies = (entropy(counts.sum(axis=0)) + entropy(counts.sum(axis=1))) / 2
    information = expected_mutual_information(csr_array(counts), len(y))
    return float(information / entropies) if entropies > 0 else 0.0


def silhouette(Z: Array, y: Array, random_state: int = 0) -> float:
    """Silhouette of the labels among at most `QUADRATIC_ROWS` codes; 1 is best, chance <= 0."""
    Z, y = subsample(QUADRATIC_ROWS, random_state, Z, y)
    return float(silhouette_score(Z, y))


def distance_correlation(X: Array, Z: Array, random_state: int = 0) -> float:
    """Signed root of the unbiased squared distance correlation; 1 is best, 0 chance.

    Székely & Rizzo (2014), on at most `CORRELATED_ROWS` rows: distances kept, near and far.
    The plain statistic of 1,000 rows of 784 independent features and 5 unrelated ones
    is 0.34, and more with fewer rows. (This is the square root of what dcor calls
    u_distance_correlation_sqr. Importing dcor compiles for seconds and changes torch's number
    of threads, behind the back of whoever measures time.)
    """
    x, z = (_centred_distances(part) for part in subsample(CORRELATED_ROWS, random_state, X, Z))
    norm = np.sqrt(np.vdot(x, x) * np.vdot(z, z))
    squared = np.vdot(x, z) / norm if norm > 0 else 0.0
    return float(np.sign(squared) * np.sqrt(abs(squared)))


def _centred_distances(rows: Array) -> Array:
    """U-centred matrix of distances: zero diagonal, and rows and columns that sum to zero."""
    distances = pairwise_distances(rows.astype(np.float64))
    n = len(rows)
    sums = distances.sum(axis=0) / (n - 2)
    centred = distances - sums - sums[:, None] + sums.sum() / (n - 1)
    np.fill_diagonal(centred, 0.0)
    return np.asarray(centred)


def two_sample_accuracy(rows: Array, samples: Array, random_state: int = 0) -> float:
    """Accuracy of 5 neighbours at telling rows from samples, equally many; 0.5 is best.

    At most `QUADRATIC_ROWS` of each.
    """
    size = min(len(rows), len(samples), QUADRATIC_ROWS)
    drawn = (subsample(size, random_state, part)[0] for part in (rows, samples))
    return common.two_sample_accuracy(*drawn)


def sample_realism(
    rows: Array, samples: Array, random_state: int = 0, n_components: int = 20
) -> Measured:
    """`two_sample_accuracy` in the first principal components of the rows, with controls.

    Among many noisy features samples without noise are everyone's neighbours, real or not,
    and pass for real. The negative control has rows broken in two ways: features shuffled
    independently of each other, and rows without all but two components; the one that is
    told apart less counts. The positive control has halves of the rows.
    """
    pca = PCA(min(n_components, *rows.shape), random_state=random_state).fit(rows)
    broken = [pca.transform(np.random.default_rng(random_state).permuted(rows, axis=0))]
    samples = pca.transform(samples)
    (rows,) = subsample(2 * QUADRATIC_ROWS, random_state, pca.transform(rows))
    if rows.shape[1] > 2:
        broken.append(np.where(np.arange(rows.shape[1]) < 2, rows, 0.0))
    half = len(rows) // 2
    numbers = (
        two_sample_accuracy(rows, samples, random_state),
        two_sample_accuracy(rows[:half], rows[half:], random_state),
        min(two_sample_accuracy(rows, part, random_state) for part in broken),
    )
    return judged(numbers, (0.75, 1.0), 0.0, best=(0.5, 0.5), best_slack=slack(len(rows)))


def row_independence(transform: Callable[[Array], Array], rows: Array) -> Independence:
    """Whether a row's code is the same alone, in a reversed batch, in the whole, and again."""
    whole = np.asarray(transform(rows), dtype=np.float64)
    spread = max(float(np.sqrt(whole.var(axis=0).mean())), np.finfo(np.float64).tiny)
    backwards = np.asarray(transform(np.ascontiguousarray(rows[::-1])))[::-1]
    alone = np.concatenate([transform(rows[i : i + 1]) for i in range(min(ALONE, len(rows)))])

    def difference(codes: Array, of_whole: Array) -> float:
        return float(np.abs(codes - of_whole).max() / spread)

    repeat = difference(np.asarray(transform(rows)), whole)
    moved = float(np.max([difference(backwards, whole), difference(alone, whole[: len(alone)])]))
    return Independence(moved < SAME, repeat < SAME, moved, repeat)


def neighbourhood_metrics(X: Array, Z: Array, n_neighbors: int, seed: int) -> dict[str, Measured]:
    """Measure what needs no labels, on `QUADRATIC_ROWS`; the rows are their own best codes."""
    X, Z = subsample(QUADRATIC_ROWS, seed, X, Z)
    shuffled = np.random.default_rng(seed + 1).permutation(Z)
    chance = trustworthiness_by_chance(len(X), n_neighbors)
    measures: dict[str, tuple[Callable[[Array, Array], float], float]] = {
        "trustworthiness": (partial(trustworthiness, n_neighbors=n_neighbors), chance),
        "continuity": (partial(continuity, n_neighbors=n_neighbors), chance),
        "distance_correlation": (distance_correlation, 0.0),
    }
    tolerance = slack(min(len(X), CORRELATED_ROWS))
    return {
        name: judged((measure(X, codes) for codes in (Z, X, shuffled)), (worst, worst), tolerance)
        for name, (measure, worst) in measures.items()
    }


def knn_metric(
    Z_train: Array, y_train: Array, Z_test: Array, y_test: Array, n_neighbors: int, seed: int
) -> Measured:
    """`knn_accuracy` of all rows; its controls have at most `QUADRATIC_ROWS` of each kind.

    By chance one neighbour is right as often as two labels agree, and many are as often
    as the label of the majority.
    """
    few_Z_train, few_train = subsample(QUADRATIC_ROWS, seed, Z_train, y_train)
    few_Z_test, few_test = subsample(QUADRATIC_ROWS, seed, Z_test, y_test)
    encoder = OneHotEncoder(sparse_output=False).fit(np.concatenate([y_train, y_test])[:, None])
    one_hot = [encoder.transform(labels[:, None]) for labels in (few_train, few_test)]
    unrelated = np.random.default_rng(seed + 1).permutation(few_train)
    shares = np.unique(few_test, return_counts=True)[1] / len(few_test)
    numbers = (
        knn_accuracy(Z_train, y_train, Z_test, y_test, n_neighbors),
        knn_accuracy(one_hot[0], few_train, one_hot[1], few_test, n_neighbors),
        knn_accuracy(few_Z_train, unrelated, few_Z_test, few_test, n_neighbors),
    )
    return judged(numbers, (float(np.square(shares).sum()), shares.max()), slack(len(few_test)))


def label_metrics(Z: Array, y: Array, seed: int) -> dict[str, Measured]:
    """Compare codes with labels, on `QUADRATIC_ROWS`; one-hot labels are their own best codes.

    The silhouette of unrelated labels is below 0 where there are many: each row is compared
    with the nearest of the other labels.
    """
    Z, y = subsample(QUADRATIC_ROWS, seed, Z, y)
    one_hot = OneHotEncoder(sparse_output=False).fit_transform(y[:, None])
    of_codes, of_labels = clusters(Z, y, seed), clusters(one_hot, y, seed)
    order = np.random.default_rng(seed + 1).permutation(len(y))
    grouped = (of_codes, of_labels, of_codes[order])  # shuffled codes have shuffled clusters
    chance = nmi_by_chance(y, of_codes)
    near = slack(len(y))
    return {
        "nmi": judged((normalized_mutual_info_score(y, g) for g in grouped), (chance,) * 2, near),
        "ari": judged((adjusted_rand_score(y, g) for g in grouped), (0.0, 0.0), near),
        "silhouette": judged((silhouette(c, y) for c in (Z, one_hot, Z[order])), (-0.5, 0.0), near),
    }


def embedding_metrics(
    train_codes: Array,
    y_train: Array | None,
    X_test: Array,
    test_codes: Array,
    y_test: Array | None,
    n_neighbors: int,
    seed: int,
) -> dict[str, Measured]:
    """All measures of an embedding of held-out rows; without labels, those that need none.

    Codes that are not finite have no valid measure.
    """
    if not (np.isfinite(train_codes).all() and np.isfinite(test_codes).all()):
        nothing = Measured(np.nan, np.nan, np.nan, False)
        names = ["trustworthiness", "continuity", "distance_correlation"]
        if y_test is not None:
            names += ["knn_accuracy", "nmi", "ari", "silhouette"]
        return dict.fromkeys(names, nothing)
    measured = neighbourhood_metrics(X_test, test_codes, n_neighbors, seed)
    if y_train is not None and y_test is not None:
        measured["knn_accuracy"] = knn_metric(
            train_codes, y_train, test_codes, y_test, n_neighbors, seed
        )
        measured |= label_metrics(test_codes, y_test, seed)
    return measured
