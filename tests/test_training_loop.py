from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from skhebae.data import FeatureScaling, Minibatch, ResidentRows, Table, map_rows
from skhebae.data.chunks import CHUNK_NUMBERS, CHUNK_ROWS
from skhebae.exceptions import NonFiniteLossError
from skhebae.fitted.build import Architecture, build_model
from skhebae.objectives import HEBAEObjective, Terms
from skhebae.posterior import score
from skhebae.training import (
    Generators,
    Run,
    Schedule,
    Split,
    devices,
    resolve_device,
    resolve_precision,
    train,
)
from skhebae.training.loop import check_finite, run_epoch, train_epoch, validate
from skhebae.training.schedule import EarlyStopping, is_flat
from skhebae.training.step import LossTerms, loss_terms, open_steps

CPU = torch.device("cpu")


def make_run(objective=None, weight_decay=0.0, n_rows=90):
    """A run and rows of a small Gaussian table."""
    objective = objective or HEBAEObjective(1.0)
    X = np.random.default_rng(0).standard_normal((n_rows, 6)) @ np.triu(np.ones((6, 6)))
    scaling = FeatureScaling.measure(Table(X))
    architecture = Architecture(6, 2, (8,), "relu", "gaussian", objective.n_scales(2))
    model = build_model(architecture, scaling, torch.Generator().manual_seed(0))
    generators = Generators(torch.Generator().manual_seed(1), torch.Generator().manual_seed(2))
    run = Run(model, objective, generators, weight_decay=weight_decay)
    return run, ResidentRows(X, scaling, CPU)


def parameters(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.mark.parametrize(
    ("losses", "window", "tol", "expected"),
    [
        ([], 1, 0.0, False),
        ([5.0, 5.0, 5.0], 2, 1.0, False),  # two windows need four epochs
        ([5.0, 5.0, 5.0, 5.0], 2, 1e-3, True),
        ([5.0, 5.0, 5.0, 5.0], 2, 0.0, False),  # 0 is no less than 0
        ([4.0, 3.0, 2.0, 1.0], 2, 1.0, False),
        ([4.0, 3.0, 2.0, 1.0], 2, 2.5, True),
        ([1.0, 2.0, 3.0, 4.0], 2, 0.5, False),  # it rises: not flat either
        ([9.0, 9.0, 2.0, 3.0, 3.0, 2.0], 2, 0.1, True),  # only the last two windows count
    ],
)
def test_is_flat_compares_means_of_windows(losses, window, tol, expected):
    assert is_flat(losses, window, tol) is expected


def test_early_stopping_restores_the_best_weights():
    run, _ = make_run()
    stopper = EarlyStopping(run.model, patience=2, tol=0.0)
    weights = []
    for loss in (3.0, 1.0, 2.0, 1.5):
        with torch.no_grad():
            for parameter in run.model.parameters():
                parameter.add_(1.0)
        weights.append(parameters(run.model))
        stopped = stopper.update(loss)
        assert stopped is (loss == 1.5)
    stopper.restore()
    assert torch.equal(parameters(run.model), weights[1])


def test_early_stopping_keeps_improvements_that_are_too_small_to_wait_for():
    run, _ = make_run()
    stopper = EarlyStopping(run.model, patience=3, tol=0.5)
    stops = []
    for loss in (10.0, 9.8, 9.6, 9.4, 9.3, 9.2, 9.1):
        stops.append(stopper.update(loss))
        with torch.no_grad():
            run.model.likelihood.log_noise.fill_(-loss)  # after this loss
    # 9.4 is more than tol under 10 and resets the count, 9.3 to 9.1 are not under 9.4.
    assert stops == [False] * 6 + [True]
    stopper.restore()
    assert_allclose(run.model.likelihood.log_noise.detach(), -9.2)


def test_early_stopping_without_any_update_changes_nothing():
    run, _ = make_run()
    before = parameters(run.model)
    EarlyStopping(run.model, 2, 0.0).restore()
    assert torch.equal(parameters(run.model), before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["loss", "reconstruction", "penalty", "validation loss"])
def test_check_finite_names_term_and_epoch(name, value):
    means = {"loss": 1.0, "reconstruction": 1.0, "penalty": 1.0, "validation loss": 1.0}
    check_finite(means, 6)
    with pytest.raises(NonFiniteLossError, match=rf"The {name} became .* in epoch 7\."):
        check_finite({**means, name: value}, 6)


def test_check_finite_names_the_part_before_the_whole():
    nan = float("nan")
    with pytest.raises(ArithmeticError, match="The penalty became nan"):
        check_finite({"loss": nan, "reconstruction": 1.0, "penalty": nan}, 0)


def test_run_epoch_is_the_mean_over_rows():
    _, rows = make_run(n_rows=10)
    minibatches = np.split(np.arange(10), [5, 8])
    seen = []

    def step(minibatch, i):
        seen.append(minibatch.x)
        first = minibatch.x[:, 0].mean()
        n_rows = torch.tensor(float(len(minibatch)), requires_grad=True)
        return LossTerms(first, torch.tensor(float(i)), n_rows, torch.tensor(-torch.inf))

    means = run_epoch(step, rows, minibatches)
    assert list(means) == ["loss", "reconstruction", "penalty", "elbo"]
    assert means["elbo"] == -np.inf
    table = rows.take(np.arange(10)).x
    assert torch.equal(torch.cat(seen), table)
    assert_allclose(means["loss"], float(table[:, 0].mean()), atol=1e-6)
    assert_allclose(means["reconstruction"], (5 * 0 + 3 * 1 + 2 * 2) / 10)
    assert_allclose(means["penalty"], (5 * 5 + 3 * 3 + 2 * 2) / 10)


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "meta", "xpu", ""])
def test_unknown_devices_are_named_errors(name):
    with pytest.raises(ValueError, match=rf"device={name!r} is not a device that skhebae knows"):
        resolve_device(name)


def test_absent_devices_are_named_errors(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for name, count in {"cuda": 0, "cuda:1": 0, "mps": 0, "cpu:1": 1}.items():
        with pytest.raises(ValueError, match=rf"device='{name}' .* torch sees {count} such"):
            resolve_device(name)
    assert resolve_device("auto") == resolve_device("cpu") == CPU


def test_present_cuda_devices_are_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ValueError, match="torch sees 2 such"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("native", [True, False])
def test_precision_is_lowered_where_it_pays(native, monkeypatch):
    monkeypatch.setattr(devices, "has_native_bfloat16", lambda device: native)
    large = devices.BFLOAT16_WEIGHTS
    expected = torch.bfloat16 if native else torch.float32
    assert resolve_precision("auto", CPU, large) is expected
    assert resolve_precision("auto", CPU, large - 1) is torch.float32
    assert resolve_precision("float32", CPU, large) is torch.float32
    assert resolve_precision("bfloat16", CPU, 1) is torch.bfloat16


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True}, True),
        ({"avx2": True}, False),
        ({}, False),
    ],
)
def test_native_bfloat16_of_a_cpu(capabilities, expected, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert devices.has_native_bfloat16(CPU) is expected


def test_native_bfloat16_of_other_devices(monkeypatch):
    assert not devices.has_native_bfloat16(torch.device("mps"))
    for capability, expected in (((7, 5), False), ((8, 0), True), ((9, 0), True)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda d, c=capability: c)
        assert devices.has_native_bfloat16(torch.device("cuda")) is expected


@pytest.mark.parametrize("name", ["encode", "decode", "score"])
def test_map_rows_of_a_row_does_not_depend_on_the_others(name):
    run, _ = make_run()
    model = run.model.eval()
    width = 2 if name == "decode" else 6
    table = torch.randn((701, width), generator=torch.Generator().manual_seed(0))
    function = {
        "encode": lambda minibatch: model.encode(minibatch)[0],
        "decode": lambda minibatch: model.decode(minibatch.x),
        "score": lambda minibatch: score(model, minibatch),
    }[name]
    together = map_rows(function, lambda rows: Minibatch(table[rows]), 701)
    assert together.dtype == np.float32
    for i in (0, 255, 256, 511, 512, 700):
        alone = map_rows(function, lambda rows, i=i: Minibatch(table[i : i + 1][rows]), 1)
        assert np.array_equal(alone[0], together[i])
    some = torch.tensor([700, 3, 256])
    few = map_rows(function, lambda rows: Minibatch(table[some][rows]), 3)
    assert np.array_equal(few, together[some])


@pytest.mark.parametrize("n_rows", [1, CHUNK_ROWS - 1, CHUNK_ROWS, CHUNK_ROWS + 1])
def test_map_rows_keeps_order_and_shape(n_rows):
    table = torch.arange(3.0 * n_rows).reshape(n_rows, 3)
    shapes = set()

    def function(minibatch):
        shapes.add(tuple(minibatch.x.shape))
        return 2.0 * minibatch.x[:, :, None]

    result = map_rows(function, lambda rows: Minibatch(table[rows]), n_rows)
    assert np.array_equal(result, 2.0 * table.numpy()[:, :, None])
    assert shapes == {(CHUNK_ROWS, 3)}


def test_map_rows_bounds_its_chunks():
    sizes = []
    table = torch.arange(12.0).reshape(6, 2)

    def function(minibatch):
        sizes.append(len(minibatch))
        return minibatch.x.sum(dim=1)

    def read(rows):
        return Minibatch(table[rows])

    result = map_rows(function, read, 6, numbers_per_row=CHUNK_NUMBERS // 4)
    assert sizes == [4, 4]
    assert_allclose(result, table.sum(dim=1))
    sizes.clear()
    map_rows(function, read, 6, numbers_per_row=10 * CHUNK_NUMBERS)
    assert sizes == [1] * 6


def test_loss_is_reconstruction_plus_weighted_penalty():
    run, rows = make_run(HEBAEObjective(0.25))
    minibatch = rows.take(np.arange(20))

    def seeded():
        return minibatch.replace(generator=torch.Generator().manual_seed(0))

    loss, reconstruction, penalty, _ = loss_terms(run, seeded())
    terms = run.objective(run.model, seeded())
    assert_allclose(float(reconstruction.detach()), float(terms.reconstruction.detach().mean()))
    # Reported above what codes drawn from the prior would have.
    expected = float(terms.minibatch_penalty.detach()) - run.objective.prior_penalty(20, 2)
    assert_allclose(float(penalty.detach()), expected, rtol=1e-5)
    assert_allclose(float(loss.detach()), float((reconstruction + 0.25 * penalty).detach()))


def test_validation_repeats_its_noise_and_touches_no_generator():
    run, rows = make_run()
    schedule = Schedule(n_epochs=1, batch_size=30, learning_rate=1e-3, input_noise=0.5)
    states = [generator.get_state() for generator in run.generators.by_name().values()]
    assert len(states) == 2
    before = parameters(run.model)
    losses = [validate(run, rows, np.arange(90), schedule) for _ in range(2)]
    assert losses[0] == losses[1]
    assert torch.equal(parameters(run.model), before)
    assert torch.equal(run.generators.order.get_state(), states[0])
    assert torch.equal(run.generators.noise.get_state(), states[1])


def test_learning_rate_falls_linearly_to_zero(monkeypatch):
    run, rows = make_run()
    rates = []
    step = run.optimizer.step
    monkeypatch.setattr(
        run.optimizer, "step", lambda: rates.append(run.optimizer.learning_rate) or step()
    )
    schedule = Schedule(n_epochs=4, batch_size=30, learning_rate=0.12)
    train(run, rows, Split(np.arange(90)), schedule)
    assert_allclose(rates, 0.12 * (1.0 - np.arange(12) / 12))
    rates.clear()
    with open_steps(run) as move:
        train_epoch(run, move, rows, np.arange(90), Schedule(4, 30, 0.12, decay="constant"), 0)
    assert_allclose(rates, 0.12)


def test_weight_decay_shrinks_matrices_alone():
    run, _ = make_run(weight_decay=0.5)
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    for parameter in run.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    run.optimizer.learning_rate = 0.1
    run.optimizer.step()
    for name, parameter in run.model.named_parameters():
        factor = 0.95 if parameter.ndim > 1 else 1.0
        assert_allclose(parameter.detach(), factor * before[name], rtol=1e-6)


def test_training_lowers_the_loss_and_reports_every_epoch():
    run, rows = make_run()
    schedule = Schedule(n_epochs=8, batch_size=30, learning_rate=1e-2)
    split, losses = Split(np.arange(60), np.arange(60, 90)), []
    history, converged = train(run, rows, split, schedule, on_epoch=losses.append)
    assert not converged
    assert {key: len(values) for key, values in history.items()} == dict.fromkeys(
        ("loss", "reconstruction", "penalty", "elbo", "validation_loss", "seconds"), 8
    )
    assert losses == history["loss"]
    assert history["loss"][-1] < history["loss"][0]
    expected = np.add(history["reconstruction"], history["penalty"])
    assert_allclose(history["loss"], expected, rtol=1e-5)
    # The best weights are back: validating again gives the best loss.
    best = validate(run, rows, np.arange(60, 90), schedule)
    assert best == min(history["validation_loss"])


def test_training_stops_at_a_nonfinite_loss():
    class Diverging(HEBAEObjective):
        def __call__(self, model, minibatch):
            terms = super().__call__(model, minibatch)
            return Terms(
                terms.reconstruction,
                minibatch_penalty=terms.minibatch_penalty.log() * 0 - torch.inf,
            )

    run, rows = make_run(Diverging(1.0))
    schedule = Schedule(n_epochs=3, batch_size=30, learning_rate=1e-3)
    with pytest.raises(NonFiniteLossError, match=r"The penalty became -inf in epoch 1\."):
        train(run, rows, Split(np.arange(90)), schedule)


def test_an_epoch_that_raises_leaves_no_gradient_behind(monkeypatch):
    run, rows = make_run()
    released = []
    monkeypatch.setattr(type(run.group), "release", lambda self: released.append(1))
    # The third epoch raises, so there are gradients of the second to leave.
    schedule = Schedule(
        n_epochs=5, batch_size=30, learning_rate=1e-3, decay=lambda epoch: 1.0 / (2 - epoch)
    )
    with pytest.raises(ZeroDivisionError):
        train(run, rows, Split(np.arange(90)), schedule)
    assert run.n_steps == 6
    assert all(p.grad is None for p in run.model.parameters())
    assert released == [1]
