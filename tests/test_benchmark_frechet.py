"""The benchmarks' sample quality: Fréchet distances in closed form, and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from benchmarks import frechet

pytest.importorskip("torchmetrics", reason="pip install torchmetrics")
pytest.importorskip("prdc", reason="pip install prdc")

SHARES = ("precision", "recall", "density", "coverage")


@pytest.fixture(scope="module")
def net(digits):
    train, test, y_train, y_test = digits
    return frechet.train_feature_net(train, y_train, test, y_test, (1, 8, 8), seed=0)


@pytest.fixture
def brief(monkeypatch):
    """Training that takes a moment."""
    monkeypatch.setattr(frechet, "MIN_UPDATES", 1)
    monkeypatch.setattr(frechet, "MIN_EPOCHS", 1)


@pytest.fixture(scope="module")
def quality(net, digits):
    train, test, *_ = digits
    return frechet.sample_quality(net, test, train[:450], reference_rows=train[450:])


def moments_distance(a, b):
    cross = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return shift + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * cross)


def test_frechet_is_the_closed_form(net, digits):
    train, test, *_ = digits
    noisy = test + np.random.default_rng(0).normal(scale=0.3, size=test.shape)
    for other in (train, noisy):
        expected = moments_distance(frechet.features(net, test), frechet.features(net, other))
        assert frechet.frechet_distance(net, test, other) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_known_gaussians():
    rng = np.random.default_rng(0)
    scales, shift = np.array([1.0, 2.0, 0.5]), np.array([1.0, -2.0, 0.0])
    draws = rng.normal(size=(2, 200_000, 3))
    expected = np.square(shift).sum() + np.square(scales - 1).sum()
    distance = frechet.frechet_of_features(draws[0], draws[1] * scales + shift)
    assert distance == pytest.approx(expected, rel=0.01)


def test_frechet_of_exact_moments():
    # Corners of a cube have exactly known moments; one feature is dead.
    corners = np.array(np.meshgrid([-1, 1], [-1, 1], [0])).reshape(3, -1).T.astype(float)
    n = len(corners)
    variance = n / (n - 1)
    distance = frechet.frechet_of_features(corners, 3 * corners + [1.0, 0.0, 0.0])
    assert distance == pytest.approx(1 + 2 * variance * (3 - 1) ** 2)


def test_frechet_is_symmetric_and_zero_on_itself(net, digits):
    train, test, *_ = digits
    there = frechet.frechet_distance(net, test, train)
    assert there > 0.1
    assert frechet.frechet_distance(net, train, test) == pytest.approx(there, rel=1e-6)
    assert abs(frechet.frechet_distance(net, test, test[::-1])) < 1e-4


def test_frechet_grows_with_what_is_wrong(net, digits):
    train, test, *_ = digits
    rng = np.random.default_rng(0)
    floor = frechet.floor(net, train, test)
    distances = [
        frechet.frechet_distance(net, test, test + rng.normal(scale=scale, size=test.shape))
        for scale in (0.1, 0.3, 1.0)
    ]
    assert floor < distances[1] < distances[2]
    assert distances[0] < distances[1]


@pytest.fixture
def sizes(monkeypatch):
    """Numbers of rows behind each distance computed."""
    seen = []

    def counting(real, generated, compute=frechet.frechet_of_features):
        seen.append((len(real), len(generated)))
        return compute(real, generated)

    monkeypatch.setattr(frechet, "frechet_of_features", counting)
    return seen


def test_distances_have_equally_many_rows(net, digits, sizes):
    train, test, *_ = digits
    frechet.floor(net, train, test)
    assert sizes == [(450, 450)]
    frechet.sample_quality(net, test, train[:200], reference_rows=train)
    assert sizes[1:] == [(200, 200)] * 3
    frechet.sample_quality(net, test, train)
    assert sizes[4:] == [(225, 225)] * 3


def test_floor(net, digits):
    train, test, *_ = digits
    floor = frechet.floor(net, train, test)
    assert 0 < floor < 3
    assert floor == frechet.floor(net, train, test)
    assert frechet.floor(net, train[:100], test[:100]) > 2 * floor  # the bias of few rows


def test_net_classifies_digits(net, digits):
    _, test, _, y_test = digits
    assert net.accuracy > 0.95
    with torch.inference_mode():
        predicted = net.logits(torch.from_numpy(test).float()).argmax(dim=1).numpy()
    assert (predicted == y_test).mean() == net.accuracy


def test_features_are_standardised_on_training_rows(net, digits):
    features = frechet.features(net, digits[0])
    assert features.shape == (len(digits[0]), 64)
    assert features.dtype == np.float64
    assert features.mean(axis=0) == pytest.approx(0.0, abs=0.2)
    assert features.std(axis=0) == pytest.approx(1.0, abs=0.2)


def test_features_of_a_row_are_its_own(net, digits):
    test = digits[1]
    net.train()  # features are those of inference whatever state the network was left in
    whole = frechet.features(net, test)
    assert frechet.features(net, test[:1]) == pytest.approx(whole[:1], abs=1e-4)
    assert frechet.features(net, test[::-1])[::-1] == pytest.approx(whole, abs=1e-4)


@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 5, 7), (40,)])
def test_shapes(shape, monkeypatch):
    monkeypatch.setattr(frechet, "MIN_UPDATES", 60)
    rng = np.random.default_rng(0)
    y = np.repeat(["left", "right"], 65)  # 130 rows: no leftover minibatch of two
    rows = rng.normal(size=(130, int(np.prod(shape)))) + (y == "left")[:, None]
    net = frechet.train_feature_net(rows, y, rows, y, None if len(shape) == 1 else shape)
    assert frechet.features(net, rows).shape == (130, 64)
    assert net.accuracy > 0.9


@pytest.mark.usefixtures("brief")
def test_seeds_and_global_random_state(digits):
    train, test, y_train, y_test = digits
    before = torch.get_rng_state()
    threads = torch.get_num_threads()
    first, again, other = (
        frechet.train_feature_net(train, y_train, test, y_test, (1, 8, 8), seed)
        for seed in (0, 0, 1)
    )
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert (frechet.features(first, test) == frechet.features(again, test)).all()
    assert not np.allclose(frechet.features(first, test), frechet.features(other, test))


@pytest.mark.usefixtures("brief")
def test_cache(digits, tmp_path, monkeypatch):
    train, test, y_train, y_test = digits
    cache = frechet.cache_path(tmp_path / "new", "digits", 0)
    assert cache != frechet.cache_path(tmp_path / "new", "digits", 1)
    made = frechet.train_feature_net(train, y_train, test, y_test, (1, 8, 8), 0, cache)
    assert [path.name for path in cache.parent.iterdir()] == [cache.name]
    trained = []
    monkeypatch.setattr(frechet, "_fit", lambda net, *_: trained.append(net.eval()))
    kept = frechet.train_feature_net(train, y_train, test, y_test, (1, 8, 8), 0, cache)
    assert not trained
    assert kept.accuracy == made.accuracy
    assert (frechet.features(kept, test) == frechet.features(made, test)).all()
    # Another seed, other rows, other labels or another shape are not what the file holds.
    changed = [
        (train, y_train, test, y_test, (1, 8, 8), 1),
        (train + 1, y_train, test, y_test, (1, 8, 8), 0),
        (train, y_train[::-1], test, y_test, (1, 8, 8), 0),
        (train, y_train, test, y_test, None, 0),
    ]
    for i, arguments in enumerate(changed):
        content = cache.read_bytes()
        frechet.train_feature_net(*arguments, cache)
        assert len(trained) == i + 1
        cache.write_bytes(content)


def test_neighbour_shares_of_known_sets(capsys):
    grid = np.arange(20.0)[:, None]
    same = frechet.neighbour_shares(grid, grid, 2)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    far = frechet.neighbour_shares(grid, grid + 100, 2)
    assert far == dict.fromkeys(SHARES, 0.0)
    # Half of the rows only: all samples are realistic, half of the rows are reached.
    half = frechet.neighbour_shares(grid, np.tile(grid[:10], (2, 1)) + 0.01, 2)
    assert half["precision"] == 1.0
    assert half["coverage"] == pytest.approx(0.5, abs=0.1)
    assert capsys.readouterr().out == ""


def test_controls_hold_on_digits(quality):
    assert set(quality) == {"frechet", *SHARES}
    for name, result in quality.items():
        assert result.valid is True, (name, result)
        assert type(result.value) is float
    for name in SHARES:
        assert quality[name].positive > 0.8
        assert quality[name].negative < 0.15
        # Real rows in the place of samples are as good as the positive control.
        assert quality[name].value == pytest.approx(quality[name].positive, abs=0.15)
    assert quality["frechet"].negative > 10 * quality["frechet"].positive
    assert quality["frechet"].value < 2 * quality["frechet"].positive


def test_quality_finds_what_is_wrong(net, digits, quality):
    train, test, y_train, _ = digits
    one = frechet.sample_quality(
        net, test, np.repeat(train[y_train == 3], 4, axis=0)[:450], reference_rows=train
    )
    assert one["precision"].value > 0.8
    assert max(one["recall"].value, one["coverage"].value) < 0.3
    assert one["frechet"].value > 10 * quality["frechet"].value
    noise = np.random.default_rng(1).uniform(size=test.shape)
    noisy = frechet.sample_quality(net, test, noise, reference_rows=train)
    assert max(noisy[name].value for name in SHARES) < 0.2
    assert noisy["frechet"].value > 10 * noisy["frechet"].positive


def test_quality_is_deterministic_and_needs_no_reference(net, digits):
    train, test, *_ = digits
    results = [frechet.sample_quality(net, test, train) for _ in range(2)]
    assert results[0] == results[1]
    assert results[0]["coverage"].valid
    assert results[0]["coverage"].positive > 0.8


def test_too_few_rows_for_a_distance_are_not_reported(net, digits):
    train, test, *_ = digits
    few = frechet.sample_quality(net, test[:30], train[:30], reference_rows=train)
    assert few["frechet"].positive > 4 * frechet.floor(net, train, test)
    assert not few["frechet"].valid


def test_samples_that_are_not_finite_have_no_valid_measure(net, digits):
    train, test, *_ = digits
    samples = np.where(np.arange(64) == 5, np.inf, train)
    results = frechet.sample_quality(net, test, samples)
    assert set(results) == {"frechet", *SHARES}
    assert not any(result.valid for result in results.values())
