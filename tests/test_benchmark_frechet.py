"""The benchmarks' sample quality: Fréchet distances in closed form, and controls."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from benchmarks import frechet


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
    return frechet.sample_quality(net, test, train[:450], train[450:])


def moments_distance(a, b):
    cross = sqrtm(np.cov(a.T) @ np.cov(b.T)).real
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return shift + np.trace(np.cov(a.T) + np.cov(b.T) - 2 * cross)


@pytest.mark.slow
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
    frechet.sample_quality(net, test, train[:200], train)
    assert sizes[1:] == [(200, 200)] * 3


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
        predicted = net.head(net(torch.from_numpy(test).float()).relu()).argmax(dim=1).numpy()
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


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 28, 28), (1, 8, 8), (3, 5, 7)])
def test_shapes(shape, monkeypatch):
    monkeypatch.setattr(frechet, "MIN_UPDATES", 60)
    rng = np.random.default_rng(0)
    y = np.repeat(["left", "right"], 65)  # 130 rows: no leftover minibatch of two
    rows = rng.normal(size=(130, int(np.prod(shape)))) + (y == "left")[:, None]
    net = frechet.train_feature_net(rows, y, rows, y, shape)
    assert frechet.features(net, rows).shape == (130, 64)
    assert net.accuracy > 0.9


@pytest.mark.slow
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


def test_frechet_is_that_of_torchmetrics(net, digits):
    fid = pytest.importorskip("torchmetrics.image.fid", reason="pip install torchmetrics")
    train, test, *_ = digits
    real, other = frechet.features(net, test), frechet.features(net, train)

    class Features(torch.nn.Identity):
        num_features = real.shape[1]

    metric = fid.FrechetInceptionDistance(Features(), normalize=True)
    metric.update(torch.from_numpy(real), real=True)
    metric.update(torch.from_numpy(other), real=False)
    expected = float(metric.compute())
    assert frechet.frechet_of_features(real, other) == pytest.approx(expected, rel=1e-4)


def test_controls_hold_on_digits(quality):
    assert quality.valid is True
    assert type(quality.value) is float
    assert quality.negative > 10 * quality.positive
    assert quality.value < 2 * quality.positive


def test_quality_finds_what_is_wrong(net, digits, quality):
    train, test, y_train, _ = digits
    threes = np.repeat(train[y_train == 3], 4, axis=0)[:450]
    assert frechet.sample_quality(net, test, threes, train).value > 10 * quality.value
    noise = np.random.default_rng(1).uniform(size=test.shape)
    noisy = frechet.sample_quality(net, test, noise, train)
    assert noisy.value > 10 * noisy.positive
    assert frechet.sample_quality(net, test, noise, train) == noisy


def test_too_few_rows_for_a_distance_are_not_reported(net, digits):
    train, test, *_ = digits
    few = frechet.sample_quality(net, test[:30], train[:30], train)
    assert few.positive > 4 * frechet.floor(net, train, test)
    assert not few.valid


def test_samples_that_are_not_finite_have_no_valid_measure(net, digits):
    train, test, *_ = digits
    samples = np.where(np.arange(64) == 5, np.inf, train)
    assert not frechet.sample_quality(net, test, samples, train).valid
