"""Fits in several processes: as one process would have done it, or a clear error in all."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from distributed_workers import (
    ENCODERS,
    earlier_and_failing,
    fit_and_warn,
    fit_stored,
    fit_transform,
    fit_with,
    gathered_gradient,
    interrupted,
    killed_in_epoch,
    left_after_failing,
    left_after_fit,
    measured,
    recorded_losses,
    serve,
    shards_with_the_same_minibatches,
)
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.data import FeatureMoments, FeatureScaling, Table
from skhebae.distributed import SINGLE, GroupShard
from skhebae.exceptions import DistributedWarning
from skhebae.files import read_document, write_document
from skhebae.fitted.agreement import find_group
from skhebae.fitted.measure import MIXTURE_ROWS, kept_rows
from skhebae.likelihoods import CountScaling
from skhebae.likelihoods.distinct_values import DistinctValues

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

CPU = torch.device("cpu")
#: How long processes wait for each other, however busy the machine, and how long a test for them.
SECONDS = 900.0
PATIENCE = 300.0


class Failure(Exception):  # noqa: N818
    """What a process raised: name of the class, and text."""


class Workers:
    """Processes of one group, that do one thing after the other."""

    def __init__(self, folder, size=2, seconds=SECONDS):
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self.pipes, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            arguments = (rank, size, str(folder / "store"), seconds, there)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)
        for pipe in self.pipes:
            pipe.recv()
        for pipe in self.pipes:
            pipe.send("join")

    def start(self, function, *of_ranks):
        for pipe, arguments in zip(self.pipes, of_ranks, strict=True):
            pipe.send((function, arguments))

    def answer(self, rank):
        """Return what a process returned, or the `Failure`; EOFError if it is dead."""
        if not self.pipes[rank].poll(PATIENCE):
            raise TimeoutError(f"rank {rank} hangs")
        result, error = self.pipes[rank].recv()
        return result if error is None else Failure(*error)

    def run(self, function, *of_ranks):
        """Call a function in every process, with arguments for each; what they return."""
        self.start(function, *of_ranks)
        answers = [self.answer(rank) for rank in range(len(self.pipes))]
        for answer in answers:
            if isinstance(answer, Failure):
                raise answer
        return answers

    def failures(self, function, *of_ranks):
        """Class and text of the error in every process."""
        self.start(function, *of_ranks)
        answers = [self.answer(rank) for rank in range(len(self.pipes))]
        assert all(isinstance(answer, Failure) for answer in answers), answers
        return [answer.args for answer in answers]

    def end(self):
        for process in self.processes:
            process.kill()
            process.join()


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two processes that live as long as the tests of this file."""
    workers = Workers(tmp_path_factory.mktemp("pair"))
    yield workers
    workers.end()


@pytest.fixture
def pair_of_its_own(tmp_path):
    """Two processes to kill."""
    folder = tmp_path / "group"
    folder.mkdir()
    workers = Workers(folder)
    yield workers
    workers.end()


def table(n_rows=600, seed=0):
    rng = np.random.default_rng(seed)
    codes = rng.normal(size=(n_rows, 3))
    return codes @ rng.normal(size=(3, 10)) + 0.3 * rng.normal(size=(n_rows, 10)) + 2.0


QUICK = {"n_components": 2, "hidden_layer_sizes": (16,), "random_state": 0, "max_iter": 4}


def assert_same_fit(models):
    """All ranks have the same model, to the last bit."""
    first, *others = models
    for other in others:
        for name, weights in first.fitted_.model.state_dict().items():
            assert_array_equal(weights.numpy(), other.fitted_.model.state_dict()[name].numpy())
        for name in ("latent_mean", "latent_covariance", "noise_covariance"):
            assert_array_equal(getattr(first.fitted_, name), getattr(other.fitted_, name))
        for name in ("outward", "loadings", "explained_variance_ratio"):
            assert_array_equal(getattr(first.fitted_.axes, name), getattr(other.fitted_.axes, name))
        for key, values in first.history_.items():
            assert_array_equal(values, other.history_[key])
        assert_array_equal(first.fitted_.scaling.location, other.fitted_.scaling.location)
        mixtures = (model.fitted_.mixture.now() for model in (first, other))
        assert_array_equal(*(mixture.means for mixture in mixtures))
        assert first.fitted_.moments.n_rows == other.fitted_.moments.n_rows
        assert first.n_iter_ == other.n_iter_


# One process and two


CASES = {
    "HEBAE": {"cls": "HEBAETransformer"},
    "HEBAE, row_share": {"cls": "HEBAETransformer", "row_share": 0.5, "covariance": "diag"},
    "VAE": {"cls": "VAETransformer"},
    "VAE, capacity": {"cls": "VAETransformer", "capacity": (1, 2, 1)},
    "WAE": {"cls": "WAETransformer"},
}


def one_and_two(pair, case, changes=()):
    """Losses of 50 steps and the models, of one process of 256 rows and of two of 128."""
    n_steps, batch_size = 50, 256
    X = table(n_steps * batch_size)
    # (The trial of a linear path would take steps, too.)
    params = {**QUICK, **CASES[case], "max_iter": 1, "input_noise": 0.0, "precision": "float32"}
    params["linear_path"] = False
    measuring = ("all code variance rows", "often code variance")
    alone = recorded_losses({**params, "batch_size": batch_size}, X, measuring)
    shards = shards_with_the_same_minibatches(X, 2, n_steps, params["random_state"])
    params |= {"batch_size": batch_size // 2, "distributed": True}
    of_ranks = pair.run(
        recorded_losses, *((params, shard, (*measuring, *changes)) for shard in shards)
    )
    losses, models = zip(*of_ranks, strict=True)
    assert_same_fit(models)
    return alone, (np.mean(losses, axis=0), models[0])


def weights_of(model):
    # The last step of `fit` sets noise variances and gains, by draws of noise, and what the encoder
    # sees in place of missing entries, by other rows.
    late = ("likelihood.log_noise", "likelihood.calibration", "fill.")
    state = model.fitted_.model.state_dict()
    kept = sorted(name for name in state if not name.startswith(late))
    return np.concatenate([state[name].numpy().ravel() for name in kept])


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_does(pair, case):
    (losses, alone), (losses_of_two, together) = one_and_two(pair, case)
    assert len(losses) == 50
    assert losses[-1] < losses[0] - 1.0
    assert_allclose(losses_of_two, losses, atol=1e-4, rtol=1e-5)
    assert_allclose(weights_of(together), weights_of(alone), atol=1e-4)
    for name in ("loss", "reconstruction", "penalty", "elbo"):
        assert_allclose(together.history_[name], alone.history_[name], atol=1e-4, rtol=1e-5)
    own, other = (model.fitted_.with_encoder_codes() for model in (together, alone))
    assert_allclose(own.latent_covariance, other.latent_covariance, atol=1e-3)
    # Their axes, and shares, are measured on other rows.
    scale = np.abs(alone.components_).max()
    assert_allclose(together.components_, alone.components_, atol=0.1 * scale)
    ratios = [model.explained_variance_ratio_ for model in (together, alone)]
    assert_allclose(*ratios, atol=0.03)
    assert_allclose(ratios[0].sum(), ratios[1].sum(), atol=0.02)
    assert_allclose(together.noise_variance_, alone.noise_variance_, rtol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["HEBAE", "WAE"])
def test_a_gather_without_gradients_does_not(pair, case):
    (losses, alone), (losses_of_two, together) = one_and_two(pair, case, ["cut"])
    assert np.abs(losses_of_two - losses).max() > 1e-2
    assert np.abs(weights_of(together) - weights_of(alone)).max() > 1e-2


# The linear start and its trial


def curve(n_rows=420):
    """Noisy points on a curve in six dimensions, which no line follows."""
    rng = np.random.default_rng(0)
    t = rng.uniform(0.0, 2.0 * np.pi, n_rows)
    waves = [np.cos(t), np.sin(t), np.cos(2 * t), np.sin(2 * t), np.cos(3 * t), t / 2.0]
    return np.stack(waves, axis=1) + 0.05 * rng.normal(size=(n_rows, 6))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "cut"), [("HEBAE, row_share", 0), ("HEBAE, row_share", 240), ("WAE", 1)]
)
def test_two_processes_start_from_the_components_of_one(pair, case, cut):
    X = table(400)
    still = {"max_iter": 1, "learning_rate_init": 1e-30}  # training moves nothing
    params = {**QUICK, **CASES[case], **still}
    alone = fit_with(params, X, {})
    models = pair.run(fit_with, (params, X[:cut], {}), (params, X[cut:], {}))
    assert_same_fit(models)
    assert_allclose(weights_of(models[0]), weights_of(alone), atol=1e-4)
    assert alone.fitted_.model.encoder.path.weight.abs().max() > 0.1
    codes = [model.fitted_.with_encoder_codes().encode(X) for model in (models[0], alone)]
    assert_allclose(*codes, atol=1e-4)
    assert_allclose(np.cov(codes[0].T), np.eye(2), atol=0.01)


@pytest.mark.parametrize(
    ("kind", "share"),
    [
        ("noise", 1.0),
        pytest.param("curve", 0.0, marks=pytest.mark.slow),
        pytest.param("curve", 0.3, marks=pytest.mark.slow),
    ],
)
def test_the_verdict_is_that_of_all_processes(pair, kind, share):
    X = curve() if kind == "curve" else np.random.default_rng(0).normal(size=(420, 6))
    params = {**QUICK, "hidden_layer_sizes": (32,), "max_iter": 40}
    cut = round(share * len(X))
    models = pair.run(fit_with, (params, X[:cut], {}), (params, X[cut:], {}))
    assert_same_fit(models)
    assert [model.is_linear_ for model in models] == [kind == "noise"] * 2


@pytest.mark.slow
def test_few_rows_in_each_process_are_enough_together(pair):
    params = {**QUICK, "hidden_layer_sizes": (32,), "max_iter": 60}
    X = curve(120)
    assert HEBAETransformer(**params).fit(X[:60]).is_linear_
    models = pair.run(fit_with, (params, X[:60], {}), (params, X[60:], {}))
    assert [model.is_linear_ for model in models] == [False] * 2


# The parts


@pytest.mark.parametrize("sizes", [(3, 5), (4, 0), (0, 2), (1, 1)])
def test_gather_has_the_gradient_of_one_process(pair, sizes):
    rng = np.random.default_rng(0)
    codes, weights = 0.5 * rng.normal(size=(sum(sizes), 2)), rng.normal(size=(2, sum(sizes)))
    arguments = (codes, sizes, weights)
    gradients, rows, draws = zip(*pair.run(gathered_gradient, arguments, arguments), strict=True)
    whole = torch.from_numpy(codes).requires_grad_()
    values = whole.square().sum(dim=1).exp()
    # The mean over processes of what each has as its loss.
    loss = 0.5 * (values * torch.from_numpy(weights)).sum() + whole.sum(dim=1).mean()
    (expected,) = torch.autograd.grad(loss, whole)
    # DistributedDataParallel takes the mean over processes: half of the sum.
    assert_allclose(0.5 * np.concatenate(gradients), expected, rtol=1e-12)
    for rank in range(2):
        assert_array_equal(rows[rank], codes)
        assert_array_equal(draws[rank], draws[0])


counts = st.lists(st.integers(0, 40), min_size=1, max_size=5).filter(sum)


@given(counts, st.integers(1, 9))
def test_parts_are_what_array_split_makes(counts, n_minibatches):
    generator = torch.Generator()
    split = [np.array_split(np.arange(n), n_minibatches) for n in counts]
    for i in range(n_minibatches):
        sizes = [n // n_minibatches + (i < n % n_minibatches) for n in counts]
        assert sizes == [len(of_rank[i]) for of_rank in split]
        if sum(sizes) == 0:
            continue
        everything = torch.arange(sum(sizes))
        parts = [GroupShard(sizes, rank, generator) for rank in range(len(counts))]
        own = [part.own(everything) for part in parts]
        assert [len(rows) for rows in own] == sizes
        assert torch.equal(torch.cat(own), everything)
        values = everything.double()
        means = [
            float(part.mean(rows))
            for part, rows in zip(parts, own, strict=True)
            for rows in [rows.double()]
        ]
        assert_allclose(np.mean(means), float(values.mean()), rtol=1e-12, atol=1e-12)
        assert {part.total_rows(len(rows)) for part, rows in zip(parts, own, strict=True)} == {
            sum(sizes)
        }


@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=6).filter(sum))
def test_codes_are_kept_in_proportion_to_rows(counts):
    kept = kept_rows(counts)
    assert sum(kept) == min(sum(counts), MIXTURE_ROWS)
    assert all(0 <= here <= n for here, n in zip(kept, counts, strict=True))
    share = sum(kept) / sum(counts)
    assert all(abs(here - share * n) <= 1.0 for here, n in zip(kept, counts, strict=True))


cuts = st.lists(st.integers(0, 60), max_size=4).map(sorted)


@pytest.mark.slow
@given(cuts, st.integers(0, 2**31 - 1))
def test_moments_of_shards_merge_to_those_of_the_table(cuts, seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(60, 4)) * [1.0, 1e3, 1e-3, 0.0] + [0.0, 5.0, 1.0, 0.1]
    whole = FeatureMoments.measure(X)
    for make in (np.asarray, sparse.csr_matrix):
        parts = [FeatureMoments.measure(make(part)) for part in np.split(X, cuts)]
        merged = parts[0]
        for part in parts[1:]:
            merged = merged.merge(part)
        assert_array_equal(merged.n_rows, 60.0)
        assert_allclose(merged.mean, whole.mean, rtol=1e-12, atol=1e-12)
        assert_allclose(merged.variance, whole.variance, rtol=1e-12, atol=1e-18)
        assert_array_equal(merged.low, whole.low)
        assert_array_equal(merged.high, whole.high)
        assert_array_equal(merged.is_constant(), [False, False, False, True])


class Shards:
    """Stands for processes: gives what each of them would have given."""

    def __init__(self, measure):
        self._measure = measure
        self.calls = 0

    def gather(self, value):
        del value
        self.calls += 1
        return self._measure[self.calls - 1]


@given(cuts, st.integers(0, 2**31 - 1))
def test_values_of_shards_have_the_median_of_all(cuts, seed):
    rng = np.random.default_rng(seed)
    values = rng.integers(1, 30, size=60).astype(float)
    parts = [np.unique(part, return_counts=True) for part in np.split(values, cuts)]
    gathered = DistinctValues.gather(values, Shards([parts]))
    assert gathered.total() == 60
    assert gathered.median() == np.median(values)
    assert_allclose(gathered.log_deviation(), np.log(values).std(), rtol=1e-12)


@pytest.mark.parametrize("cut", [0, 1, 37, 100])
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix])
def test_scaling_is_of_all_tables(pair, cut, form):
    X = table(100) * [1, 1, 1, 1, 1, 1, 1e4, 1, 1, 0] + 0.1
    expected = FeatureScaling.measure(Table(form(X)))
    parts = [(form(part), "gaussian") for part in (X[:cut], X[cut:])]
    for scaling in pair.run(measured, *parts):
        assert_allclose(scaling.location, expected.location, rtol=1e-12)
        assert_allclose(scaling.scale, expected.scale, rtol=1e-12)
        assert_allclose(scaling.variance, expected.variance, rtol=1e-12)
        assert scaling.location[-1] == 0.1  # a constant is exact
        assert scaling.scale[-1] == 1.0


@pytest.mark.parametrize("cut", [0, 1, 37])
def test_scaling_of_counts_is_of_all_tables(pair, cut):
    rng = np.random.default_rng(0)
    counts = sparse.csr_matrix(rng.poisson(rng.gamma(1.0, 1.0, (100, 1)) * np.ones(8)))
    factors = rng.gamma(2.0, 1.0, 100)
    expected = CountScaling.measure(Table(counts, size_factor=factors))
    parts = ((slice(cut)), (slice(cut, None)))
    arguments = [(counts[rows], "poisson", factors[rows]) for rows in parts]
    for scaling in pair.run(measured, *arguments):
        assert scaling.typical_size == expected.typical_size
        for name in ("location", "scale", "proportions", "log_size_deviation", "size_unit"):
            assert_allclose(getattr(scaling, name), getattr(expected, name), rtol=1e-12)


# Shards of all kinds


KINDS = {
    "uneven": ({}, 0.8),
    "an empty rank": ({"cls": "VAETransformer"}, 1.0),
    "the first is empty": ({"row_share": 0.5}, 0.0),
    "early stopping": ({"early_stopping": True, "max_iter": 30, "n_iter_no_change": 1}, 0.6),
    "WAE, one row": ({"cls": "WAETransformer", "learning_rate": "constant"}, 1 / 600),
    "bernoulli": ({"likelihood": "bernoulli", "input_noise": 0.3}, 1.0),
    "everything by itself": ({"max_iter": "auto", "batch_size": "auto"}, 0.5),
}


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=pytest.mark.slow if kind == "everything by itself" else ())
        for kind in KINDS
    ],
)
def test_shards_of_any_size(pair, kind):
    params, share = KINDS[kind]
    params = {**QUICK, "batch_size": 32, **params}
    X = table()
    if "likelihood" in params:
        X = 1.0 / (1.0 + np.exp(-X))
    cut = round(share * len(X))
    models = pair.run(fit_with, (params, X[:cut], {}), (params, X[cut:], {}))
    assert_same_fit(models)
    model = models[0]
    assert model.fitted_.moments.n_rows == 600
    # As good as the fit of one process with as many rows in a minibatch.
    if params["batch_size"] != "auto":
        params["batch_size"] *= 2
    cls = {"VAETransformer": VAETransformer, "WAETransformer": WAETransformer}
    alone = cls.get(params.pop("cls", ""), HEBAETransformer)(**params).fit(X)
    assert model.n_iter_ == alone.n_iter_ or params["early_stopping"]
    assert_allclose(model.latent_covariance_, model.latent_covariance_.T)
    error, expected = (
        ((of.inverse_transform(of.transform(X)) - X) ** 2).mean() for of in (model, alone)
    )
    assert error < 1.25 * expected
    assert_allclose(model.score(X), alone.score(X), atol=0.15 * X.std() * X.shape[1] ** 0.5)


def test_counts_with_batches_of_one_rank_alone(pair):
    rng = np.random.default_rng(0)
    X = sparse.csr_matrix(rng.poisson(np.exp(0.3 * table())).astype(np.float32))
    batch = np.repeat(["a", "b", "c"], 200)
    params = {**QUICK, "likelihood": "negative_binomial", "batch_size": 32}
    arguments = [
        (params, X[rows], {"batch": batch[rows], "size_factor": np.full(X[rows].shape[0], 2.0)})
        for rows in (slice(250), slice(250, 600))
    ]
    models = pair.run(fit_with, *arguments)
    assert_same_fit(models)
    assert models[0].batches_.tolist() == ["a", "b", "c"]
    assert_array_equal(models[0].theta_, models[1].theta_)
    assert np.isfinite(models[1].score_samples(X, batch=batch)).all()
    # Nobody needs labels for no rows.
    arguments = [(params, X, {"batch": batch}), (params, X[:0], {})]
    models = pair.run(fit_with, *arguments)
    assert_same_fit(models)
    assert models[1].batches_.tolist() == ["a", "b", "c"]


def test_weights_of_two_processes_are_those_of_one(pair):
    """With linear networks: principal component analysis of all rows, by their weights."""
    X = table(120)
    weight = np.random.default_rng(0).integers(0, 4, 120).astype(np.float64)
    weight[:20] = 0.0  # a process may lack more rows than the other
    params = {**QUICK, "hidden_layer_sizes": (), "linear_path": True, "cls": "WAETransformer"}
    halves = slice(50), slice(50, None)
    arguments = [(params, X[rows], {"sample_weight": weight[rows]}) for rows in halves]
    models = pair.run(fit_with, *arguments)
    assert_same_fit(models)
    alone = WAETransformer(**{k: v for k, v in params.items() if k != "cls"})
    alone.fit(X, sample_weight=weight)
    assert models[0].fitted_.moments.n_rows == weight.sum()
    start = [model.fitted_.scaling for model in (models[0], alone)]
    assert_allclose(start[0].location, start[1].location, rtol=1e-12)
    assert_allclose(start[0].scale, start[1].scale, rtol=1e-12)


@pytest.mark.parametrize("kind", ["HEBAETransformer", "VAETransformer", "WAETransformer"])
def test_rows_of_weight_0_are_absent_in_every_process(pair, kind):
    X = table(200)
    weight = np.random.default_rng(0).integers(0, 3, 200).astype(np.float64)
    params = {**QUICK, "cls": kind, "batch_size": 32, "early_stopping": True}
    weighted = [(params, X[r::2], {"sample_weight": weight[r::2]}) for r in range(2)]
    kept = [np.flatnonzero(weight[r::2]) for r in range(2)]
    absent = [
        (params, X[r::2][kept[r]], {"sample_weight": weight[r::2][kept[r]]}) for r in range(2)
    ]
    one, two = (pair.run(fit_with, *arguments) for arguments in (weighted, absent))
    assert_same_fit(one)
    assert_array_equal(one[0].transform(X), two[0].transform(X))
    assert one[0].history_["validation_loss"] == two[0].history_["validation_loss"]
    # A process whose rows all have weight 0 is one without rows.
    weighted = [(params, X, {"sample_weight": weight}), (params, X, {"sample_weight": 0.0})]
    absent = [(params, X, {"sample_weight": weight}), (params, X[:0], {})]
    one, two = (pair.run(fit_with, *arguments) for arguments in (weighted, absent))
    assert_array_equal(one[1].transform(X), two[0].transform(X))


def test_processes_must_agree_on_weights(pair):
    X = table(40)
    for weights, message in (
        ((np.ones(40), None), "given in some processes and not in others"),
        ((np.zeros(40), np.zeros(40)), "zero in every row"),
        ((np.full(40, 0.01), np.full(40, 0.01)), "adds up to 0.8"),
        ((np.ones(40), np.full(40, -1.0)), "is -1.0 in row 0"),
    ):
        arguments = [(QUICK, X, {"sample_weight": weight}) for weight in weights]
        for name, text in pair.failures(fit_with, *arguments):
            assert name == "ValueError"
            assert message in text


def test_partial_fit_is_collective(pair):
    X = table()
    tables = [X[:300], X[300:]]
    arguments = [
        (QUICK, None, {"partial": [part[rank::2] for part in tables]}) for rank in range(2)
    ]
    models = pair.run(fit_with, *arguments)
    assert_same_fit(models)
    assert models[0].n_iter_ == 2
    assert models[0].fitted_.moments.n_rows == 600


def test_a_feature_that_varies_later_in_one_process(pair):
    X = table()
    X[:300, 2] = 0.0
    X[301:600:2, 2] = 0.0
    tables = [X[:300], X[300:]]
    arguments = [
        (QUICK, None, {"partial": [part[rank::2] for part in tables]}) for rank in range(2)
    ]
    models = pair.run(fit_with, *arguments)
    assert_same_fit(models)
    expected = FeatureScaling.measure(Table(X))
    for model in models:
        assert model.fitted_.scaling.constant.size == 0
        assert_allclose(model.fitted_.scaling.location[2], expected.location[2], rtol=1e-12)
        assert_allclose(model.fitted_.scaling.scale[2], expected.scale[2], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dropout", "in part idle"])
def test_networks_of_the_user(pair, tmp_path, name):
    X = table()
    params = {**QUICK, "encoder": ENCODERS[name], "batch_size": 50}
    shards = X[:280], X[280:]
    expected = pair.run(fit_with, *((params, shard, {}) for shard in shards))
    assert_same_fit(expected)
    # Masks of dropout, too, go on as they would have.
    path = str(tmp_path / "fit")
    arguments = [(params, shard, path, 2) for shard in shards]
    assert pair.run(interrupted, *arguments) == ["InterruptedFitError"] * 2
    models = pair.run(fit_with, *((params, shard, {"checkpoint": path}) for shard in shards))
    assert_same_result(models[1], expected[0])


def test_the_seed_is_that_of_rank_0(pair):
    X = table()
    params = [QUICK, {**QUICK, "random_state": None}, {**QUICK, "random_state": 7}]
    models = [pair.run(fit_with, (params[0], X[::2], {}), (of, X[1::2], {}))[1] for of in params]
    for model in models[1:]:
        assert model.history_["loss"] == models[0].history_["loss"]
        assert_array_equal(model.transform(X), models[0].transform(X))


@pytest.mark.slow
def test_three_processes(tmp_path):
    workers = Workers(tmp_path, size=3)
    try:
        X = table()
        counts = np.random.default_rng(0).poisson(np.exp(0.3 * X))
        for params, rows in (
            ({**QUICK, "batch_size": 16}, X),
            ({**QUICK, "cls": "WAETransformer", "likelihood": "poisson"}, counts),
        ):
            shards = (rows[:401], rows[:0], rows[401:])
            models = workers.run(fit_with, *((params, shard, {}) for shard in shards))
            assert_same_fit(models)
            assert models[1].fitted_.moments.n_rows == 600
    finally:
        workers.end()


def test_pickles_of_before_have_no_such_parameter():
    model = HEBAETransformer(**QUICK).fit(table())
    state = model.__getstate__()
    del state["distributed"]
    old = HEBAETransformer.__new__(HEBAETransformer)
    old.__setstate__(state)
    assert old.get_params()["distributed"] == "auto"
    assert_array_equal(old.transform(table()), model.transform(table()))
    old.fit(table())


@pytest.mark.slow
def test_no_rows_have_no_codes(pair):
    X = table()
    codes, none = pair.run(fit_transform, (QUICK, X), (QUICK, X[:0]))
    assert codes.shape == (600, 2)
    assert none.shape == (0, 2)
    assert none.dtype == np.float32


@pytest.mark.slow
@pytest.mark.parametrize("cut", [3000, 5000])
def test_rows_of_a_file(pair, tmp_path, cut):
    h5py = pytest.importorskip("h5py")
    X = table(5000).astype(np.float32)
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        file["X"] = X
    path = str(tmp_path / "rows.h5")
    params = {**QUICK, "max_iter": 2}
    models = pair.run(fit_stored, (params, path, (0, cut)), (params, path, (cut, 5000)))
    assert_same_fit(models)
    assert_allclose(models[0].fitted_.scaling.location, X.mean(axis=0, dtype=float), rtol=1e-6)


@pytest.mark.slow
def test_a_saved_model_needs_no_group(pair, tmp_path):
    X = table()
    models = pair.run(fit_with, (QUICK, X[::2], {}), (QUICK, X[1::2], {}))
    models[0].save(tmp_path / "model")
    loaded = HEBAETransformer.load(tmp_path / "model")
    assert loaded.distributed == "auto"
    assert_array_equal(loaded.transform(X), models[1].transform(X))


# Errors


def test_bad_rows_of_one_rank_are_an_error_of_all(pair):
    X = table()
    bad = X.copy()
    bad[3, 4] = np.inf
    for (first, second), text in {
        (0, 1): "Rank 1 of 2: X has numbers that are too large",
        (1, 0): "Rank 0 of 2: X has numbers that are too large",
    }.items():
        tables = (X, bad)
        failures = pair.failures(fit_with, (QUICK, tables[first], {}), (QUICK, tables[second], {}))
        for kind, message in failures:
            assert kind == "ValueError"
            assert message.startswith(text)


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ({}, {"X": table()[:, :9]}, "disagree on n_features"),
        ({}, {"params": {"activation": "relu"}}, "disagree on activation"),
        ({}, {"batch": ["a"] * 600}, "batch= was given in some processes"),
        ({"batch": [1] * 600}, {"batch": ["a"] * 600}, "text in some processes"),
        ({}, {"size_factor": np.ones(600)}, "size_factor= was given in some processes"),
        ({"checkpoint": "fit"}, {}, "disagree on whether checkpoint= is given"),
        ({}, {"batch": ["a"] * 5}, "Rank 1 of 2: batch has shape"),
        ({"X": table()[:1]}, {"X": table()[:0]}, r"1 sample"),
        ({}, {"checkpoint": 1}, None),
    ],
)
def test_what_processes_disagree_on(pair, first, second, message, tmp_path):
    if message is None:
        first = {"checkpoint": str(tmp_path / "no" / "folder")}
        second, message = first, "Rank 0 of 2: checkpoint="
    arguments = []
    for options in (first, second):
        options = dict(options)
        params = {**QUICK, **options.pop("params", {})}
        arguments.append((params, options.pop("X", table()), options))
    failures = pair.failures(fit_with, *arguments)
    assert failures[0] == failures[1]
    assert message in failures[0][1]


def test_a_failed_fit_keeps_the_earlier_one(pair):
    X = table()
    bad = X.copy()
    bad[0] = np.inf
    answers = pair.run(earlier_and_failing, (QUICK, X[::2], X[::2]), (QUICK, X[1::2], bad[::2]))
    for before, after, message in answers:
        assert_array_equal(before, after)
        assert message.startswith("Rank 1 of 2")


def test_false_fits_alone_in_a_group(pair):
    X = table()
    alone = HEBAETransformer(**QUICK).fit(X[:300])
    params = {**QUICK, "distributed": False}
    models = pair.run(fit_with, (params, X[:300], {}), (params, X[300:], {}))
    # Not to the last bit: those processes have another number of threads than this one.
    assert_allclose(models[0].transform(X), alone.transform(X), rtol=1e-3, atol=1e-4)
    assert models[1].fitted_.moments.n_rows == 300
    assert not np.array_equal(models[1].transform(X), alone.transform(X))


def test_nothing_of_the_group_outlives_a_fit(pair):
    """What did was destroyed at the end of the process, and could abort it."""
    X = table()
    assert pair.run(left_after_fit, (QUICK, X[:300]), (QUICK, X[300:])) == [False, False]


def test_nothing_of_the_group_outlives_an_epoch_that_raises(pair):
    """Not even while the error is handled, whose traceback holds the frames of the fit."""
    X = table()
    answers = pair.run(left_after_failing, (QUICK, X[:300]), (QUICK, X[300:]))
    assert answers == [(False, "InterruptedFitError")] * 2


def test_true_needs_a_group():
    with pytest.raises(ValueError, match=r"distributed=True needs a process group.*none is init"):
        HEBAETransformer(**QUICK, distributed=True).fit(table())
    with pytest.raises(ValueError, match="'distributed' parameter"):
        HEBAETransformer(**QUICK, distributed="yes").fit(table())


def test_launched_without_a_group_warns(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.warns(DistributedWarning, match="4 processes were launched.*init_process_group"):
        HEBAETransformer(**QUICK).fit(table())
    assert find_group(False, CPU) is SINGLE
    for not_several in ("1", "", "four"):
        monkeypatch.setenv("WORLD_SIZE", not_several)
        assert find_group("auto", CPU) is SINGLE


# Interruptions


def assert_same_result(model, expected):
    for name, weights in expected.fitted_.model.state_dict().items():
        assert_array_equal(model.fitted_.model.state_dict()[name].numpy(), weights.numpy())
    assert model.history_["loss"] == expected.history_["loss"]


@pytest.mark.slow
def test_a_killed_process_is_named_and_the_fit_goes_on(pair, pair_of_its_own, tmp_path):
    X = table()
    params = {**QUICK, "max_iter": 6, "batch_size": 32, "input_noise": 0.3}
    shards = X[:350], X[350:]
    expected = pair.run(fit_with, *((params, shard, {}) for shard in shards))
    path = str(tmp_path / "fit")
    workers = pair_of_its_own
    workers.start(killed_in_epoch, *((params, shard, path, 1, 3) for shard in shards))
    # By its closed connection: the group's own time-out is longer than we wait here.
    survivor = workers.answer(0)
    assert isinstance(survivor, Failure)
    kind, message = survivor.args
    assert kind == "DistributedError"
    assert f"The checkpoint at {path!r} is intact" in message
    assert "torchrun --max-restarts" in message
    assert read_document(path)["identity"]["processes"] == 2
    arguments = [(params, shard, {"checkpoint": path}) for shard in shards]
    models = pair.run(fit_with, *arguments)
    assert_same_fit(models)
    assert_same_result(models[1], expected[0])
    # Another number of processes, and other rows, are another fit.
    with pytest.raises(ValueError, match=r"processes \(2 there, 1 here\)"):
        HEBAETransformer(**params).fit(X, checkpoint=path)
    failures = pair.failures(fit_with, arguments[0], (params, X[340:], {"checkpoint": path}))
    assert {kind for kind, _ in failures} == {"CheckpointError"}
    assert "which differs in n_samples" in failures[1][1]


@pytest.mark.parametrize("n_files", [1, 2, 4])
@pytest.mark.slow
def test_goes_on_within_an_epoch(pair, tmp_path, n_files):
    X = table(800)
    params = {**QUICK, "batch_size": 32, "max_iter": 2, "input_noise": 0.3}
    shards = X[:500], X[500:]
    expected = pair.run(fit_with, *((params, shard, {}) for shard in shards))
    path = str(tmp_path / "fit")
    changes = ("within epochs", "every third minibatch")
    arguments = [(params, shard, path, n_files, changes) for shard in shards]
    assert pair.run(interrupted, *arguments) == ["InterruptedFitError"] * 2
    # 12 minibatches an epoch: files after 3, 6, 9 and, of the next, 12.
    assert ("unfinished" in read_document(path)["state"]) == (n_files < 4)
    models = pair.run(fit_with, *((params, shard, {"checkpoint": path}) for shard in shards))
    assert_same_fit(models)
    assert_same_result(models[1], expected[0])


@pytest.mark.slow
def test_rows_and_labels_of_every_process_count(pair, tmp_path):
    X, path = table(400), str(tmp_path / "fit")
    params = {**QUICK, "max_iter": 2}
    shards, labels = (X[:200], X[200:]), np.arange(200) % 2

    def arguments(second, second_labels):
        own = ((shards[0], labels), (second, second_labels))
        return [(params, rows, {"checkpoint": path, "batch": batch}) for rows, batch in own]

    models = pair.run(fit_with, *arguments(shards[1], labels))
    for second, batch, differing in (
        (shards[1][::-1].copy(), labels, "rows"),
        (shards[1], 1 - labels, "batch"),
    ):
        failures = pair.failures(fit_with, *arguments(second, batch))
        assert {kind for kind, _ in failures} == {"CheckpointError"}
        assert all(f"which differs in {differing} (" in text for _, text in failures)
    again = pair.run(fit_with, *arguments(shards[1], labels))
    assert_same_result(again[1], models[0])


@pytest.mark.slow
def test_a_malformed_checkpoint_gives_way_in_all_processes(pair, tmp_path):
    """One whose state suits the first process, and not the second."""
    X, path = table(400), str(tmp_path / "fit")
    params = {**QUICK, "batch_size": 32, "max_iter": 4}
    shards = X[:200], X[200:]
    expected = pair.run(fit_with, *((params, shard, {}) for shard in shards))
    assert (
        pair.run(interrupted, *((params, shard, path, 3) for shard in shards))
        == ["InterruptedFitError"] * 2
    )
    document = read_document(path)
    generators = document["state"]["trainer"]["generators"]["1"]
    generators["noise"] = np.zeros_like(generators["noise"])
    write_document(path, document)
    answers = pair.run(fit_and_warn, *((params, shard, {"checkpoint": path}) for shard in shards))
    models, caught = zip(*answers, strict=True)
    assert caught == (["CheckpointWarning"], [])
    assert_same_fit(models)
    assert_same_result(models[1], expected[0])
    write_document(f"{path}.before", document)
    write_document(path, document)
    failures = pair.failures(fit_with, *((params, shard, {"checkpoint": path}) for shard in shards))
    assert {kind for kind, _ in failures} == {"CheckpointError"}
    assert "no earlier checkpoint" in failures[1][1]


SCRIPT = """
import os, signal, sys, warnings
import numpy as np
import torch
from torch import distributed
from distributed_workers import changed
from skhebae import HEBAETransformer
from skhebae.training import loop

warnings.simplefilter("ignore")
folder, killed = sys.argv[1], sys.argv[2] == "killed"
# Not by torchrun's own store: processes that were restarted find addresses of dead ones in it.
distributed.init_process_group(
    "gloo",
    init_method=f"file://{folder}/{sys.argv[2]}.{os.environ['TORCHELASTIC_RESTART_COUNT']}",
    rank=int(os.environ["RANK"]),
    world_size=int(os.environ["WORLD_SIZE"]),
)
rank, size = distributed.get_rank(), distributed.get_world_size()
train_epoch = loop.train_epoch

def dying(run, step, rows, indices, schedule, epoch, *unfinished):
    means = train_epoch(run, step, rows, indices, schedule, epoch, *unfinished)
    if killed and epoch == 3 and rank == 1 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return means

loop.train_epoch = dying
X = np.random.default_rng(0).normal(size=(600, 10))
model = HEBAETransformer(2, hidden_layer_sizes=(16,), random_state=0, max_iter=8)
with changed("write always"):
    model.fit(X[rank::size], checkpoint=f"{folder}/{sys.argv[2]}.ckpt")
if rank == 0:
    model.save(f"{folder}/{sys.argv[2]}")
print("restarts", os.environ["TORCHELASTIC_RESTART_COUNT"])
distributed.destroy_process_group()
"""


def torchrun(*arguments):
    tests = Path(__file__).parent
    variables = {**os.environ, "OMP_NUM_THREADS": "1"}
    variables["PYTHONPATH"] = os.pathsep.join(
        filter(None, [str(tests.parent), str(tests), os.environ.get("PYTHONPATH")])
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    command += ["--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env=variables, timeout=300
    ).stdout


@pytest.mark.slow
def test_torchrun_restarts_from_the_checkpoint(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    output = torchrun("--max-restarts", "1", str(script), str(tmp_path), "killed")
    assert "restarts 1" in output
    output = torchrun("--max-restarts", "1", str(script), str(tmp_path), "whole")
    assert "restarts 0" in output
    killed, whole = (HEBAETransformer.load(tmp_path / name) for name in ("killed", "whole"))
    assert_same_result(killed, whole)


@pytest.mark.slow
def test_a_silent_process_is_named_within_the_time_out(tmp_path):
    X = table()
    workers = Workers(tmp_path, seconds=20.0)
    try:
        # Without a silent one nobody waits so long; imports of a first fit are done.
        workers.run(fit_with, (QUICK, X[::2], {}), (QUICK, X[1::2], {}))
        arguments = (None, 1, 2, signal.SIGSTOP)
        workers.start(killed_in_epoch, (QUICK, X[::2], *arguments), (QUICK, X[1::2], *arguments))
        survivor = workers.answer(0)
    finally:
        workers.end()
    assert survivor.args[0] == "DistributedError"
    assert "before the process group timed out" in survivor.args[1]
    assert "With checkpoint=path" in survivor.args[1]


# Feature-wise parameters


@pytest.mark.parametrize(
    "likelihood",
    [
        "negative_binomial",
        pytest.param("zero_inflated_negative_binomial", marks=pytest.mark.slow),
    ],
)
def test_two_processes_find_the_dispersions_of_one(pair, likelihood):
    rng = np.random.default_rng(0)
    theta = np.repeat([0.5, 5.0], 5)
    X = rng.poisson(rng.gamma(theta, 30.0 / theta, (1200, 10))).astype(float)
    batch = np.arange(1200) % 3
    params = {**QUICK, "likelihood": likelihood, "max_iter": 30}
    alone = fit_with(params, X, {"batch": batch})
    shards = [(X[:300], batch[:300]), (X[300:], batch[300:])]
    options = ({"batch": own} for _, own in shards)
    models = pair.run(
        fit_with, *((params, rows, own) for (rows, _), own in zip(shards, options, strict=True))
    )
    assert_same_fit(models)
    assert_array_equal(models[0].theta_, models[1].theta_)
    assert_allclose(np.log(models[0].theta_), np.log(alone.theta_), atol=0.5)
    scalings = [model.fitted_.scaling for model in (alone, models[0])]
    for name in ("dispersion", "zero_share", "log_size_quantiles"):
        assert_allclose(*(getattr(scaling, name) for scaling in scalings), rtol=1e-9)
