"""The benchmarks' measures of embeddings: known values, and controls that do control."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.metrics import normalized_mutual_info_score

from benchmarks import metrics

NAMES = set(metrics.NAMES)


@pytest.fixture(scope="module")
def embedded(digits):
    """Arguments of `embedding_metrics` for PCA of digits."""
    train, test, y_train, y_test = digits
    pca = PCA(10, random_state=0).fit(train)
    return pca.transform(train), y_train, test, pca.transform(test), y_test, 5, 0


@pytest.fixture(scope="module")
def measured(embedded):
    return metrics.embedding_metrics(*embedded)


def with_codes(embedded, train_codes, test_codes):
    _, y_train, X_test, _, y_test, n_neighbors, seed = embedded
    arguments = (train_codes, y_train, X_test, test_codes, y_test, n_neighbors, seed)
    return metrics.embedding_metrics(*arguments)


def test_subsample_takes_the_same_rows_in_random_order():
    X, y = np.arange(100.0)[:, None] / 2, np.arange(100)
    few_X, few_y = metrics.subsample(30, 0, X, y)
    assert len(few_X) == len(set(few_y)) == 30
    assert (few_X[:, 0] == few_y / 2).all()
    (everything,) = metrics.subsample(1000, 0, y)
    assert sorted(everything) == list(y)
    assert abs(np.corrcoef(everything, y)[0, 1]) < 0.3
    assert (metrics.subsample(30, 0, y)[0] == few_y).all()
    assert (metrics.subsample(30, 1, y)[0] != few_y).any()


def ranks(X):
    """Rank of every row among the neighbours of every other; 0 is the row itself."""
    distances = np.linalg.norm(X[:, None] - X[None], axis=2)
    return distances.argsort(axis=1, kind="stable").argsort(axis=1, kind="stable")


def test_trustworthiness_and_continuity_by_their_definition():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 4))
    Z = X[:, :2] + 0.1 * rng.normal(size=(60, 2))
    n, k = 60, 5

    def penalty(of_space, of_neighbours):
        near = (of_neighbours > 0) & (of_neighbours <= k)
        return np.maximum(of_space - k, 0)[near].sum() * 2 / (n * k * (2 * n - 3 * k - 1))

    trust, kept = 1 - penalty(ranks(X), ranks(Z)), 1 - penalty(ranks(Z), ranks(X))
    assert metrics.trustworthiness(X, Z) == pytest.approx(trust)
    assert metrics.trustworthiness(Z, X) == pytest.approx(kept)  # continuity
    assert abs(trust - kept) > 0.005


def test_rotation_and_scale_of_codes_leave_neighbourhoods(embedded):
    X, Z = embedded[2], embedded[3]
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]
    for measure in (metrics.trustworthiness, metrics.distance_correlation):
        assert measure(X, 7 * Z @ rotation + 3) == pytest.approx(measure(X, Z), abs=1e-6)


@pytest.mark.parametrize(("n", "k"), [(40, 5), (200, 10)])
def test_trustworthiness_by_chance(n, k):
    rng = np.random.default_rng(0)
    values = [
        metrics.trustworthiness(rng.normal(size=(n, 3)), rng.normal(size=(n, 2)), k)
        for _ in range(60)
    ]
    error = np.std(values) / 60**0.5
    assert abs(np.mean(values) - metrics.trustworthiness_by_chance(n, k)) < 4 * error


def test_distance_correlation_by_its_definition():
    rng = np.random.default_rng(0)
    n = 40
    X = rng.normal(size=(n, 30))
    Z = X[:, :2] ** 2

    def centred(rows):
        a = np.array([[np.linalg.norm(p - q) for q in rows] for p in rows])
        totals, whole = a.sum(axis=0), a.sum() / ((n - 1) * (n - 2))
        return (a - np.add.outer(totals, totals) / (n - 2) + whole) * (1 - np.eye(n))

    x, z = centred(X), centred(Z)
    assert x.sum(axis=0) == pytest.approx(0.0, abs=1e-9)
    squared = (x * z).sum() / np.sqrt((x**2).sum() * (z**2).sum())
    expected = np.sign(squared) * abs(squared) ** 0.5
    assert metrics.distance_correlation(X, Z) == pytest.approx(expected)


@pytest.mark.slow
@pytest.mark.skipif(find_spec("dcor") is None, reason="no dcor: pip install dcor")
def test_distance_correlation_is_that_of_dcor():
    X = np.random.default_rng(0).normal(size=(80, 6))
    Z = X[:, :2] ** 2
    # In a process of its own: importing dcor changes the threads of the others' torch.
    code = (
        "import dcor, numpy as np; X = np.random.default_rng(0).normal(size=(80, 6));"
        "print(dcor.u_distance_correlation_sqr(X, X[:, :2] ** 2))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert metrics.distance_correlation(X, Z) ** 2 == pytest.approx(float(output.stdout))


def test_squared_distance_correlation_of_unrelated_rows_is_0_on_average():
    rng = np.random.default_rng(0)
    pairs = [(rng.normal(size=(60, 300)), rng.normal(size=(60, 5))) for _ in range(40)]
    values = np.array([metrics.distance_correlation(*pair) for pair in pairs])
    squared = np.sign(values) * values**2
    assert abs(squared.mean()) < 3 * squared.std() / 40**0.5
    assert squared.std() < 0.05


def test_clusters_known_by_construction():
    y = np.repeat(["a", "b", "c"], 20)
    Z = np.repeat(np.eye(3), 20, axis=0) * 10 + np.random.default_rng(0).normal(size=(60, 3))
    found = metrics.label_metrics(Z, y, 0)
    assert found["nmi"].value == pytest.approx(1.0)
    assert found["ari"].value == pytest.approx(1.0)
    assert found["silhouette"].value > 0.6
    # Clusters crossed with labels share nothing.
    crossed = metrics.label_metrics(Z, np.tile([0, 1, 2], 20), 0)
    assert crossed["nmi"].value < 0.01
    assert abs(crossed["ari"].value) < 0.05


def test_nmi_by_chance():
    rng = np.random.default_rng(0)
    y, clusters = rng.integers(6, size=80), rng.integers(5, size=80)
    values = [normalized_mutual_info_score(y, rng.permutation(clusters)) for _ in range(200)]
    chance = metrics.nmi_by_chance(y, clusters)
    assert chance > 0.05
    assert abs(np.mean(values) - chance) < 4 * np.std(values) / 200**0.5
    assert metrics.nmi_by_chance(y, np.zeros(80, dtype=int)) == 0.0


def test_knn_accuracy_counts():
    Z_train, y_train = np.array([[0.0], [1.0], [5.0]]), np.array(["a", "a", "b"])
    Z_test, y_test = np.array([[0.2], [5.1], [4.0], [0.9]]), np.array(["a", "b", "a", "b"])
    assert metrics.knn_accuracy(Z_train, y_train, Z_test, y_test, 1) == 0.5


def test_controls_hold_on_digits(measured):
    assert set(measured) == NAMES
    for name, result in measured.items():
        assert result.valid, (name, result)
        assert result.positive == pytest.approx(1.0, abs=1e-4)
        assert result.negative < result.value < result.positive
        assert all(type(number) is float for number in (result.value, result.negative))
        assert result.valid is True
    assert measured["knn_accuracy"].value > 0.95
    assert measured["trustworthiness"].value > 0.95
    assert measured["trustworthiness"].negative == pytest.approx(0.5, abs=0.05)
    assert measured["distance_correlation"].value > 0.9


def test_measures_are_deterministic(embedded, measured):
    assert metrics.embedding_metrics(*embedded) == measured
    other_seed = metrics.embedding_metrics(*embedded[:-1], 1)
    assert other_seed["trustworthiness"].negative != measured["trustworthiness"].negative
    value = measured["trustworthiness"].value  # of the same rows: only ties differ
    assert other_seed["trustworthiness"].value == pytest.approx(value, abs=1e-4)


def test_global_random_state_untouched(embedded):
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    metrics.embedding_metrics(*embedded)
    assert (np.random.get_state()[1] == before).all()


@pytest.mark.parametrize("broken", ["constant", "shuffled", "noise"])
def test_broken_codes_score_no_better_than_chance(embedded, measured, broken):
    rng = np.random.default_rng(5)
    breaks = {
        "constant": np.ones_like,
        "shuffled": rng.permutation,
        "noise": lambda codes: rng.normal(size=codes.shape),
    }[broken]
    results = with_codes(embedded, breaks(embedded[0]), breaks(embedded[3]))
    tolerance = metrics.slack(len(embedded[2]))
    for name, result in results.items():
        assert not result.valid or abs(result.value - result.negative) < tolerance, (name, result)
        assert result.value < measured[name].value - 0.2


def test_rows_sorted_by_label_lend_constant_codes_nothing(embedded):
    X, y = embedded[2], embedded[4]
    order = np.argsort(y, kind="stable")
    constant = np.zeros((len(X), 2))
    assert metrics.trustworthiness(X[order], constant) < 0.65
    assert metrics.label_metrics(constant, y[order], 0)["silhouette"].value == 0.0


def test_codes_that_are_not_finite_have_no_valid_measure(embedded):
    codes = embedded[3].copy()
    codes[3, 1] = np.nan
    results = with_codes(embedded, embedded[0], codes)
    assert set(results) == NAMES
    assert not any(result.valid for result in results.values())


def test_a_measure_that_tells_nothing_apart_is_invalid(embedded):
    train, _, X, test, _, n_neighbors, seed = embedded
    rng = np.random.default_rng(0)
    rare_train, rare = (rng.random(len(codes)) < 0.03 for codes in (train, test))
    results = metrics.embedding_metrics(train, rare_train, X, test, rare, n_neighbors, seed)
    accuracy = results["knn_accuracy"]
    assert accuracy.value > 0.9  # as good as it looks, and as good as no codes at all
    assert not accuracy.valid


@pytest.mark.parametrize(
    ("numbers", "valid"),
    [
        ((0.7, 1.0, 0.5), True),
        ((0.7, 0.9, 0.5), False),  # the data against itself is not best
        ((0.7, 1.0, 0.65), False),  # shuffled codes are better than chance
        ((0.7, 1.0, 0.2), False),  # or worse than chance can be
        ((0.7, 0.5, 1.0), False),  # the wrong way round
        ((np.nan, 1.0, 0.5), False),
        ((0.7, np.nan, 0.5), False),
        ((0.7, 1.0, np.nan), False),
    ],
)
def test_judged(numbers, valid):
    result = metrics.judged(numbers, (0.5, 0.5), 0.1)
    assert result.valid is valid
    assert result.positive == numbers[1] or np.isnan(numbers[1])


def test_two_samples(digits):
    train, test, *_ = digits
    accuracy = metrics.two_sample_accuracy(test, train)
    assert accuracy == pytest.approx(0.5, abs=0.07)
    assert metrics.two_sample_accuracy(test, test + 5.0) == 1.0
    assert metrics.two_sample_accuracy(test, train) == accuracy


def test_sample_realism(digits):
    train, test, *_ = digits
    real = metrics.sample_realism(test, train)
    blurred = PCA(3, random_state=0).fit(train)
    blurry = metrics.sample_realism(test, blurred.inverse_transform(blurred.transform(train)))
    assert real.valid
    assert blurry.valid
    assert abs(real.value - 0.5) < 0.07
    assert blurry.value > 0.85
    assert (real.positive, real.negative) == (blurry.positive, blurry.negative)


def test_independent_features_leave_no_negative_control():
    rows = np.random.default_rng(0).normal(size=(400, 6))  # shuffled, they are as real
    realism = metrics.sample_realism(rows[:200], rows[200:])
    assert realism.negative < 0.6
    assert not realism.valid


def test_noiseless_samples_do_not_pass_for_real_among_noisy_features():
    rng = np.random.default_rng(0)
    signal = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 500))
    rows = signal[:300] + 3 * rng.normal(size=(300, 500))
    realism = metrics.sample_realism(rows, signal[300:], n_components=500)
    assert realism.value < 0.6  # everyone's neighbours
    assert not realism.valid


def test_row_independence():
    rows = np.random.default_rng(0).normal(size=(50, 4))
    mixing = np.random.default_rng(1).normal(size=(4, 2))
    fine = metrics.row_independence(lambda X: X @ mixing, rows)
    assert fine["row_independent"] is fine["deterministic"] is True
    assert fine["row_difference"] < 1e-12
    assert fine["repeat_difference"] == 0.0


def test_row_dependence_and_randomness_are_found():
    rows = np.random.default_rng(0).normal(size=(50, 4))
    rng = np.random.default_rng(1)
    first_few = metrics.ALONE  # right for those that are mapped alone, in their places
    dependent = {
        "centred": lambda X: X - X.mean(axis=0),
        "by place": lambda X: X + np.arange(len(X))[:, None] / 10,
        "late": lambda X: X + (np.arange(len(X)) >= first_few)[:, None],
        "undefined": lambda X: np.full((len(X), 2), np.nan),
        "random": lambda X: X + 0.1 * rng.normal(size=X.shape),
    }
    found = {name: metrics.row_independence(of, rows) for name, of in dependent.items()}
    assert not any(of["row_independent"] for of in found.values())
    assert found["centred"]["deterministic"]
    assert not found["random"]["deterministic"]


def test_row_independence_is_relative_to_the_spread():
    rows = np.random.default_rng(0).normal(size=(50, 4))
    small, large = (
        metrics.row_independence(lambda X, scale=scale: scale * (X + 0.01 * len(X)), rows)
        for scale in (1e-6, 1e6)
    )
    assert small["row_difference"] == pytest.approx(large["row_difference"], rel=1e-6)
    assert not small["row_independent"]
