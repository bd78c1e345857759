"""Measures of an embedding of held-out rows, each with a positive and a negative control.

The positive control is the data against itself, the negative one has nothing to do with it
(shuffled codes, broken rows). A measure that does not tell the two apart says nothing about what
lies between them: its `Measured.valid` is False, and reports leave it out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array
from scipy.stats import entropy
from sklearn import manifold
from sklearn import metrics as scores
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics.cluster import contingency_matrix, expected_mutual_information
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import OneHotEncoder

Array = NDArray[Any]
Interval = tuple[float, float]
#: All measures of an embedding.
NAMES = ("trustworthiness", "continuity", "distance_correlation", "knn_accuracy")
NAMES += ("nmi", "ari", "silhouette")

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


def slack(n_rows: int) -> float:
    """Return how far a control may be from chance: 0.05 and three standard errors of a share."""
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
    """Return at most `size` rows of each array, shuffled: they often come sorted by label."""
    parts = [np.asarray(array) for array in arrays]
    order = np.random.default_rng(random_state).permutation(len(parts[0]))[:size]
    return [part[order] for part in parts]


def trustworthiness(X: Array, Z: Array, n_neighbors: int = 5, random_state: int = 0) -> float:
    """Return Venna & Kaski's (2001), on at most `QUADRATIC_ROWS` rows: 1 is best, 0.5 chance."""
    X, Z = subsample(QUADRATIC_ROWS, random_state, X, Z)
    return float(manifold.trustworthiness(X, Z, n_neighbors=n_neighbors))


def trustworthiness_by_chance(n_rows: int, n_neighbors: int) -> float:
    """Return the trustworthiness of neighbours drawn at random: their ranks are uniform."""
    n, k = n_rows, n_neighbors
    return 1.0 - (n - 1 - k) * (n - k) / ((2 * n - 3 * k - 1) * (n - 1))


def knn_accuracy(
    Z_train: Array, y_train: Array, Z_test: Array, y_test: Array, n_neighbors: int
) -> float:
    """Return the accuracy of neighbours among training codes at labels of held-out ones."""
    return float(KNeighborsClassifier(n_neighbors).fit(Z_train, y_train).score(Z_test, y_test))


def clusters(Z: Array, y: Array, random_state: int = 0) -> Array:
    """Return k-means of codes, with as many clusters as there are labels."""
    k_means = KMeans(len(np.unique(y)), n_init=5, random_state=random_state)
    with warnings.catch_warnings():
        # Fewer distinct codes than labels: the scores say so, no warning has to.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return np.asarray(k_means.fit_predict(Z))


def nmi_by_chance(y: Array, of_codes: Array) -> float:
    """Return the normalised mutual information that shuffled clusters have, which is above 0."""
    counts = contingency_matrix(y, of_codes)
    entropies = (entropy(counts.sum(axis=0)) + entropy(counts.sum(axis=1))) / 2
    information = expected_mutual_information(csr_array(counts), len(y))
    return float(information / entropies) if entropies > 0 else 0.0


def distance_correlation(X: Array, Z: Array, random_state: int = 0) -> float:
    """Return the signed root of the unbiased squared distance correlation; 0 is chance.

    Székely & Rizzo (2014), on at most `CORRELATED_ROWS` rows: distances kept, near and far.
    The plain statistic of few rows is far above 0 for unrelated ones. (This is the square root
    of dcor's u_distance_correlation_sqr, whose import changes torch's number of threads.)
    """
    x, z = (_centred_distances(part) for part in subsample(CORRELATED_ROWS, random_state, X, Z))
    norm = np.sqrt(np.vdot(x, x) * np.vdot(z, z))
    squared = np.vdot(x, z) / norm if norm > 0 else 0.0
    return float(np.sign(squared) * np.sqrt(abs(squared)))


def _centred_distances(rows: Array) -> Array:
    """Return U-centred distances: zero diagonal, and rows and columns that sum to zero."""
    distances = scores.pairwise_distances(rows.astype(np.float64))
    n = len(rows)
    sums = distances.sum(axis=0) / (n - 2)
    centred = distances - sums - sums[:, None] + sums.sum() / (n - 1)
    np.fill_diagonal(centred, 0.0)
    return np.asarray(centred)


def two_sample_accuracy(rows: Array, samples: Array, random_state: int = 0) -> float:
    """Return the accuracy of 5 neighbours at telling rows from as many samples; 0.5 is best."""
    size = min(len(rows), len(samples), QUADRATIC_ROWS)
    drawn = [subsample(size, random_state, part)[0] for part in (rows, samples)]
    labels = np.repeat([0, 1], size)
    rows = np.concatenate(drawn)
    return float(cross_val_score(KNeighborsClassifier(5), rows, labels, cv=5).mean())


def sample_realism(
    rows: Array, samples: Array, random_state: int = 0, n_components: int = 20
) -> Measured:
    """Measure `two_sample_accuracy` in the first principal components of the rows.

    Among many noisy features samples without noise are everyone's neighbours, real or not,
    and pass for real. The negative control has rows broken in two ways: features shuffled
    independently of each other, and rows without all but two components; the one that is
    harder to tell apart counts. The positive control has halves of the rows.
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


def row_independence(transform: Callable[[Array], Array], rows: Array) -> dict[str, Any]:
    """Tell whether a code depends on other rows or the call, in shares of the codes' spread."""
    whole = np.asarray(transform(rows), dtype=np.float64)
    spread = max(float(np.sqrt(whole.var(axis=0).mean())), np.finfo(np.float64).tiny)
    n_alone = min(ALONE, len(rows))
    alone = np.concatenate([transform(rows[i : i + 1]) for i in range(n_alone)])
    backwards = transform(np.ascontiguousarray(rows[::-1]))[::-1]
    moved = (
        np.max([np.abs(backwards - whole).max(), np.abs(alone - whole[:n_alone]).max()]) / spread
    )
    repeated = np.abs(transform(rows) - whole).max() / spread
    return {
        "row_independent": bool(moved < SAME),
        "deterministic": bool(repeated < SAME),
        "row_difference": float(moved),
        "repeat_difference": float(repeated),
    }


def neighbourhood_metrics(X: Array, Z: Array, n_neighbors: int, seed: int) -> dict[str, Measured]:
    """Measure what needs no labels; continuity is the trustworthiness of rows as codes' codes."""
    X, Z = subsample(QUADRATIC_ROWS, seed, X, Z)
    kinds = (Z, X, np.random.default_rng(seed + 1).permutation(Z))
    chance = (trustworthiness_by_chance(len(X), n_neighbors),) * 2
    near = slack(min(len(X), CORRELATED_ROWS))
    trust = (trustworthiness(X, codes, n_neighbors) for codes in kinds)
    kept = (trustworthiness(codes, X, n_neighbors) for codes in kinds)
    correlations = (distance_correlation(X, codes) for codes in kinds)
    return {
        "trustworthiness": judged(trust, chance, near),
        "continuity": judged(kept, chance, near),
        "distance_correlation": judged(correlations, (0.0, 0.0), near),
    }


def knn_metric(
    Z_train: Array, y_train: Array, Z_test: Array, y_test: Array, n_neighbors: int, seed: int
) -> Measured:
    """Measure `knn_accuracy` of all rows; controls have at most `QUADRATIC_ROWS` of each kind.

    By chance one neighbour is right as often as two labels agree, many as often as the majority's.
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

    Of many unrelated labels some other one is always near: their silhouette is below 0.
    """
    Z, y = subsample(QUADRATIC_ROWS, seed, Z, y)
    one_hot = OneHotEncoder(sparse_output=False).fit_transform(y[:, None])
    of_codes, of_labels = clusters(Z, y, seed), clusters(one_hot, y, seed)
    order = np.random.default_rng(seed + 1).permutation(len(y))
    grouped = (of_codes, of_labels, of_codes[order])  # shuffled codes have shuffled clusters
    silhouettes = (scores.silhouette_score(codes, y) for codes in (Z, one_hot, Z[order]))
    nmi = (scores.normalized_mutual_info_score(y, g) for g in grouped)
    chance, near = nmi_by_chance(y, of_codes), slack(len(y))
    return {
        "nmi": judged(nmi, (chance, chance), near),
        "ari": judged((scores.adjusted_rand_score(y, g) for g in grouped), (0.0, 0.0), near),
        "silhouette": judged(silhouettes, (-0.5, 0.0), near),
    }


def embedding_metrics(
    train_codes: Array,
    y_train: Array,
    X_test: Array,
    test_codes: Array,
    y_test: Array,
    n_neighbors: int,
    seed: int,
) -> dict[str, Measured]:
    """Measure an embedding of held-out rows; codes that are not finite have no valid measure."""
    if not (np.isfinite(train_codes).all() and np.isfinite(test_codes).all()):
        return dict.fromkeys(NAMES, Measured(np.nan, np.nan, np.nan, False))
    knn = knn_metric(train_codes, y_train, test_codes, y_test, n_neighbors, seed)
    return {
        **neighbourhood_metrics(X_test, test_codes, n_neighbors, seed),
        "knn_accuracy": knn,
        **label_metrics(test_codes, y_test, seed),
    }
