"""Capacity annealing: the divergence of rows is led along a line."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.datasets import load_digits

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import Minibatch
from skhebae.diagnostics import latent_report
from skhebae.distributed import WHOLE
from skhebae.noise import InputNoise
from skhebae.objectives import CapacityObjective, VAEObjective, check_capacity
from skhebae.objectives.capacity import (
    FIRST_BEND,
    LAST_BEND,
    LATEST_SHARE,
    STREAM_BEND,
    bent_distance,
)
from skhebae.training import Run

QUICK = {"n_components": 3, "hidden_layer_sizes": (16,), "random_state": 0}


def scalar(value, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype, device="cpu")


@pytest.fixture(scope="module")
def digits():
    return load_digits().data[:400] / 16.0


def row_divergence(model, X):
    """Return the mean of KL(q(z | x) || N(0, I)), in NumPy."""
    mu, spread = (part.astype(np.float64) for part in model.fitted_.encode_with_spread(X, None))
    return float((0.5 * (mu**2 + spread**2 - 1.0) - np.log(spread)).sum(axis=1).mean())


@pytest.mark.parametrize("excess", [-40.0, -1e-3, 0.0, 1e-6, 0.3, 7.0, 1e4])
@pytest.mark.parametrize("bend", [0.3, 3.0, 300.0])
def test_distance_is_smooth_and_grows_like_the_absolute_value(excess, bend):
    x, b = scalar(excess).requires_grad_(), scalar(bend)
    value = bent_distance(x, b)
    assert_allclose(value.item(), np.hypot(excess, bend) - bend, rtol=1e-9, atol=1e-12)
    assert max(0.0, abs(excess) - bend) - 1e-9 <= value.item() <= abs(excess)
    step = 1e-4
    upper, lower = (bent_distance(x.detach() + s, b) for s in (step, -step))
    (slope,) = torch.autograd.grad(value, x)
    assert_allclose(float(slope), float(upper - lower) / (2 * step), atol=1e-6)


def test_small_distances_survive_single_precision():
    value = bent_distance(scalar(1e-2, torch.float32), scalar(FIRST_BEND, torch.float32))
    assert_allclose(value.item(), 1e-4 / (2 * FIRST_BEND), rtol=1e-5)


@pytest.mark.parametrize("divergence", [0.5, 4.0, 30.0])
def test_penalty_has_the_gradient_of_the_distance(divergence):
    objective = CapacityObjective(1.0, 7.0, 4, 10.0).scheduled(8)
    minibatch, epoch = Minibatch(torch.zeros(3, 2, dtype=torch.float32, device="cpu")), scalar(2.0)
    assert_allclose(float(objective.target(epoch)), 4.0)
    kl = scalar(divergence).requires_grad_()
    penalty = objective.shape_penalty(kl, minibatch, epoch)
    expected = bent_distance(kl.detach() - 4.0, objective.bend(epoch))
    assert_allclose(penalty.item(), float(expected), rtol=1e-12)
    (slope,) = torch.autograd.grad(penalty, kl)
    step = 1e-4
    ends = (bent_distance(kl.detach() + s - 4.0, objective.bend(epoch)) for s in (step, -step))
    upper, lower = ends
    assert_allclose(float(slope), float(upper - lower) / (2 * step), atol=1e-7)


class TwoProcesses(type(WHOLE)):
    """As if another process held a part of the minibatch."""

    def __init__(self, other):
        self.other = other

    def total(self, value):
        return value + torch.stack([self.other, torch.ones_like(self.other)])


def test_processes_share_one_mean():
    """The average of their penalties is that of the mean, and so is their gradient."""
    objective = CapacityObjective(2.0, 2.0, 1, 10.0).scheduled(4)
    rows, epoch = torch.zeros(3, 2, dtype=torch.float32, device="cpu"), scalar(1.0)
    parts = [scalar(0.5).requires_grad_(), scalar(9.0).requires_grad_()]
    penalties = [
        objective.shape_penalty(own, Minibatch(rows, shard=TwoProcesses(other.detach())), epoch)
        for own, other in (parts, parts[::-1])
    ]
    mean = scalar(4.75).requires_grad_()
    whole = objective.shape_penalty(mean, Minibatch(rows), epoch)
    assert_allclose([p.item() for p in penalties], whole.item(), rtol=1e-12)
    slopes = [
        float(torch.autograd.grad(p, own)[0]) for p, own in zip(penalties, parts, strict=True)
    ]
    assert_allclose(slopes, float(torch.autograd.grad(whole, mean)[0]), rtol=1e-12)


def test_schedule():
    """C is on a line that ends by three quarters of a fit; the bend narrows to the last epoch."""
    plain = CapacityObjective(2.0, 10.0, 4, 1.0)
    fit = plain.scheduled(20)
    found = [float(fit.target(scalar(e))) for e in (0.0, 1.0, 2.5, 4.0, 19.0)]
    assert_allclose(found, [2.0, 4.0, 7.0, 10.0, 10.0])
    assert_allclose([float(fit.bend(scalar(e))) for e in (0.0, 20.0)], [FIRST_BEND, LAST_BEND])
    assert plain.scheduled(4).settling_epochs == LATEST_SHARE * 4
    assert CapacityObjective(0.0, 5.0, 0.5, 1.0).scheduled(30).settling_epochs == 15.0
    continued = plain.scheduled(20, 7)
    assert continued.settling_epochs == 0.0
    assert float(continued.target(scalar(0.0))) == 10.0
    assert_allclose(
        [float(continued.bend(scalar(e))) for e in (7.0, 27.0)], [FIRST_BEND, LAST_BEND]
    )
    stream = plain.scheduled(None, 3)
    assert_allclose(float(stream.target(scalar(3.0))), 8.0)
    assert_allclose(float(stream.bend(scalar(3.0))), STREAM_BEND)
    assert plain.settling_epochs == 4.0, "the value that was planned from stays"
    falling = CapacityObjective(8.0, 0.0, 2, 1.0).scheduled(8)
    assert_allclose([float(falling.target(scalar(e))) for e in (0.0, 1.0, 2.0)], [8.0, 4.0, 0.0])


@pytest.fixture(scope="module")
def few(digits):
    return digits[:150]


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli"])
def test_divergence_ends_at_the_target(digits, likelihood):
    for target in (4.0, 9.0):
        model = VAETransformer(
            4, likelihood=likelihood, capacity=(0, target, 0.5), random_state=0
        ).fit(digits)
        assert_allclose(row_divergence(model, digits), target, rtol=0.05)


@pytest.mark.slow
def test_noise_of_training_does_not_count(few):
    """The divergence has the value of rows without noise, and the gradient of those with it."""
    fitted = VAETransformer(**QUICK, capacity=(4, 4, 1), linear_path=False).fit(few).fitted_
    model, x = fitted.model, torch.from_numpy(few[:20].astype(np.float32))
    objective = CapacityObjective(1.0, 1.0, 1, 1.0)

    def evaluate(noisy, of):
        generator = torch.Generator("cpu").manual_seed(0)
        noise = InputNoise(0.8, generator) if noisy else None
        terms = of(model, Minibatch(x, generator=generator, input_noise=noise))
        model.zero_grad()
        terms.row_penalty.mean().backward()
        return terms, torch.cat([p.grad.ravel() for p in model.encoder.parameters()])

    plain = VAEObjective()
    (actual, slope), (noisy, of_noisy) = (evaluate(True, of) for of in (objective, plain))
    clean, _ = evaluate(False, plain)
    with torch.no_grad():
        assert_allclose(actual.row_penalty, clean.row_penalty, rtol=1e-5)
        assert abs(noisy.row_penalty.mean() - clean.row_penalty.mean()).item() > 0.01
        assert_allclose(actual.row_divergence, noisy.row_divergence)
        assert_allclose(slope, of_noisy, rtol=1e-6)


@pytest.mark.slow
def test_history_is_of_what_is_minimised(digits):
    capacity_weight = 50.0
    model = VAETransformer(
        **QUICK, capacity=(0, 6, 0.5), capacity_weight=capacity_weight, linear_path=False
    ).fit(digits)
    history = {name: np.array(values) for name, values in model.history_.items()}
    expected = history["reconstruction"] + capacity_weight * history["penalty"]
    assert_allclose(history["loss"], expected, rtol=1e-5)
    report = latent_report(model, digits)
    assert_allclose(report.row_kl, 6.0, rtol=0.05)
    assert_allclose(report.training_bound, -report.reconstruction, atol=2.0)


def test_no_information(digits):
    """At C = 0 throughout, codes know nothing, and nothing is NaN."""
    model = VAETransformer(**QUICK, capacity=(0, 0, 1), capacity_weight=1000.0).fit(digits)
    assert row_divergence(model, digits) < 0.1
    assert np.isfinite(model.transform(digits)).all()
    assert np.isfinite(model.score_samples(digits)).all()


@pytest.mark.slow
def test_training_does_not_stop_while_the_target_moves(digits):
    """Nor does early stopping keep the weights of those epochs, whose loss is lower."""
    for early in (True, False):
        model = VAETransformer(
            **QUICK, batch_size=20, capacity=(0, 6, 15), max_iter=40, tol=1e3, n_iter_no_change=1,
            early_stopping=early,
        ).fit(digits)  # fmt: skip
        assert 15 < model.n_iter_ < 40
    model = VAETransformer(**QUICK, capacity=(0, 6, 0.5), early_stopping=True).fit(digits)
    assert_allclose(row_divergence(model, digits), 6.0, rtol=0.1)


@pytest.mark.slow
def test_a_stream_counts_the_epochs_of_all_calls(digits):
    model = VAETransformer(**QUICK, batch_size=40, capacity=(0, 5, 30))
    for _ in range(60):
        model.partial_fit(digits)
        if model.n_iter_ == 15:
            assert 0.5 < row_divergence(model, digits) < 4.5
    assert_allclose(row_divergence(model, digits), 5.0, rtol=0.15)
    with pytest.raises(ValueError, match=re.escape("capacity=(0, 5, 0.5) gives a share of")):
        VAETransformer(**QUICK, capacity=(0, 5, 0.5)).partial_fit(digits)


@pytest.mark.slow
def test_warm_start_goes_on_at_the_end(digits):
    model = VAETransformer(**QUICK, capacity=(0, 6, 0.5), warm_start=True).fit(digits)
    n_before = model.n_iter_
    model.fit(digits)
    later = np.array(model.history_["elbo"])[n_before:]
    divergence = -later - np.array(model.history_["reconstruction"])[n_before:]
    assert divergence.min() > 3.0
    assert_allclose(row_divergence(model, digits), 6.0, rtol=0.05)


def test_weights_are_copies_of_rows():
    """The mean whose distance counts is the weighted one."""
    objective = CapacityObjective(2.0, 2.0, 1, 1.0).scheduled(4)
    rows = torch.zeros(3, 2, dtype=torch.float32, device="cpu")
    divergence = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float32, device="cpu")
    weight = torch.tensor([2.0, 1.0, 1.0], dtype=torch.float32, device="cpu")
    weighted = Minibatch(rows, weight=weight)
    copies = Minibatch(rows[[0, 0, 1, 2]])
    epoch = scalar(1.0, torch.float32)
    actual = objective.shape_penalty(weighted.mean(divergence), weighted, epoch)
    expected = objective.shape_penalty(copies.mean(divergence[[0, 0, 1, 2]]), copies, epoch)
    assert_allclose(float(actual), float(expected), rtol=1e-6)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_resumed_fits_are_the_same(few, tmp_path, monkeypatch):
    path = tmp_path / "fit"
    model = VAETransformer(**QUICK, capacity=(0, 6, 0.5), linear_path=False, max_iter=20)
    whole = clone(model).fit(few)
    monkeypatch.setattr("skhebae.training.checkpoint.COST", 0.0)
    calls = []

    def stop(self, epoch):
        calls.append(epoch)
        if len(calls) > 12:
            raise KeyboardInterrupt
        return original(self, epoch)

    original = Run.move_to
    with monkeypatch.context() as patch:
        patch.setattr(Run, "move_to", stop)
        with pytest.raises(KeyboardInterrupt):
            clone(model).fit(few, checkpoint=path)
    assert path.exists()
    resumed = clone(model).fit(few, checkpoint=path)
    assert resumed.history_["loss"] == whole.history_["loss"]
    assert_array_equal(resumed.transform(few), whole.transform(few))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_it_is_copied_and_kept(few, tmp_path):
    for capacity in ((0, 6, 0.5), [1.0, 6.0, 10]):
        model = VAETransformer(**QUICK, capacity=capacity, capacity_weight=40.0, max_iter=20)
        assert clone(model).capacity == capacity
        model.fit(few)
        model.save(tmp_path / "model")
        for copy in (pickle.loads(pickle.dumps(model)), VAETransformer.load(tmp_path / "model")):
            assert copy.capacity == capacity
            assert type(copy.capacity) is type(capacity)
            assert copy.capacity_weight == 40.0
            assert_array_equal(copy.transform(few), model.transform(few))
            assert latent_report(copy, few).row_kl == latent_report(model, few).row_kl


BAD = {
    "two values": (0, 5),
    "negative": (-1, 5, 10),
    "not finite": (0, np.inf, 10),
    "not a number": (0, np.nan, 10),
    "a bool": (0, True, 10),
    "text": (0, "5", 10),
    "no epochs": (0, 5, 0),
    "negative epochs": (0, 5, -3),
    "epochs above 1 that are no integer": (0, 5, 2.5),
    "all epochs": (0, 5, 1.0),
    "no number of epochs": (0, 5, None),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_bad_capacities_say_what_is_wrong(kind):
    X = np.random.default_rng(0).random((20, 4))
    with pytest.raises(ValueError, match=re.escape(f"capacity={BAD[kind]!r}")) as raised:
        VAETransformer(2, capacity=BAD[kind]).fit(X)
    assert "Give (start, end, epochs)" in str(raised.value)


def test_what_does_not_go_with_a_capacity():
    X = np.random.default_rng(0).random((20, 4))
    with pytest.raises(ValueError, match=re.escape("beta=2.0 and capacity=(0, 5, 3) are two")):
        VAETransformer(2, beta=2.0, capacity=(0, 5, 3)).fit(X)
    with pytest.raises(ValueError, match="'capacity' parameter"):
        VAETransformer(2, capacity=5).fit(X)
    with pytest.raises(ValueError, match="'capacity_weight' parameter"):
        VAETransformer(2, capacity=(0, 5, 3), capacity_weight=0.0).fit(X)
    for other in (HEBAETransformer, WAETransformer):
        with pytest.raises(TypeError, match="capacity"):
            other(2, capacity=(0, 5, 3))


def test_values_of_numpy_are_numbers():
    assert check_capacity((np.float32(0), np.int64(5), np.int64(9))) == (0.0, 5.0, 9)
    assert check_capacity([0, 5, np.float64(0.5)]) == (0.0, 5.0, 0.5)
