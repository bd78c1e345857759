"""Fits in several processes: as one process would have done it, or a clear error in all."""

from __future__ import annotations

import multiprocessing
import time

import numpy as np
import pytest
import torch
from distributed_workers import (
    earlier_and_failing,
    fit_stored,
    fit_with,
    gathered_gradient,
    killed_in_epoch,
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
from skhebae.data import CountScaling, FeatureScaling
from skhebae.data.scaling import FeatureMoments
from skhebae.data.values import Values
from skhebae.engine.checkpoint import Checkpoint
from skhebae.estimators.collective import processes_of
from skhebae.estimators.fitting import MIXTURE_ROWS, kept_rows
from skhebae.exceptions import DistributedWarning
from skhebae.files import read_document
from skhebae.processes import ALONE, Share

pytestmark = [
    pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

CPU = torch.device("cpu")
SECONDS = 60.0


class Failure(Exception):  # noqa: N818
    """What a process raised: name of the class, and text."""


class Workers:
    """Processes of one group, that do one thing after the other."""

    def __init__(self, folder, size=2, seconds=SECONDS):
        context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
        self._seconds = seconds
        self.pipes, self.processes = [], []
        for rank in range(size):
            here, there = context.Pipe()
            arguments = (rank, size, str(folder / "store"), seconds, there)
            process = context.Process(target=serve, args=arguments, daemon=True)
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def start(self, function, *of_ranks):
        for pipe, arguments in zip(self.pipes, of_ranks, strict=True):
            pipe.send((function, arguments))

    def answer(self, rank):
        """Return what a process returned, or the `Failure`; EOFError if it is dead."""
        if not self.pipes[rank].poll(self._seconds + 30.0):
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
    """Two processes to kill, which wait for each other no longer than 10 seconds."""
    folder = tmp_path / "group"
    folder.mkdir()
    workers = Workers(folder, seconds=10.0)
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
        for name, weights in first._model.state_dict().items():
            assert_array_equal(weights.numpy(), other._model.state_dict()[name].numpy())
        for name in ("latent_mean_", "latent_covariance_", "_noise_covariance"):
            assert_array_equal(getattr(first, name), getattr(other, name))
        for key, values in first.history_.items():
            assert_array_equal(values, other.history_[key])
        assert_array_equal(first._scaling.location, other._scaling.location)
        assert_array_equal(first._mixture.means, other._mixture.means)
        assert first._moments.n_rows == other._moments.n_rows
        assert first.n_iter_ == other.n_iter_


# One process and two


CASES = {
    "HEBAE": {"cls": "HEBAETransformer"},
    "HEBAE, row_share": {"cls": "HEBAETransformer", "row_share": 0.5, "covariance": "diag"},
    "VAE": {"cls": "VAETransformer"},
    "WAE": {"cls": "WAETransformer"},
}


def one_and_two(pair, case, changes=()):
    """Losses of 50 steps and the models, of one process of 256 rows and of two of 128."""
    n_steps, batch_size = 50, 256
    X = table(n_steps * batch_size)
    params = {**QUICK, **CASES[case], "max_iter": 1, "input_noise": 0.0, "precision": "float32"}
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
    # The last step of `fit` sets the noise variances, by draws of noise.
    state = model._model.state_dict()
    return np.concatenate(
        [of.numpy().ravel() for name, of in state.items() if name != "likelihood.log_noise"]
    )


@pytest.mark.parametrize("case", CASES)
def test_two_processes_learn_what_one_does(pair, case):
    (losses, alone), (losses_of_two, together) = one_and_two(pair, case)
    assert len(losses) == 50
    assert losses[-1] < losses[0] - 1.0
    assert_allclose(losses_of_two, losses, atol=1e-4, rtol=1e-5)
    assert_allclose(weights_of(together), weights_of(alone), atol=1e-4)
    for name in ("loss", "reconstruction", "penalty", "elbo"):
        assert_allclose(together.history_[name], alone.history_[name], atol=1e-4, rtol=1e-5)
    assert_allclose(together.latent_covariance_, alone.latent_covariance_, atol=1e-3)
    assert_allclose(together.noise_variance_, alone.noise_variance_, rtol=0.05)


@pytest.mark.parametrize("case", ["HEBAE", "WAE"])
def test_a_gather_without_gradients_does_not(pair, case):
    (losses, alone), (losses_of_two, together) = one_and_two(pair, case, ["cut"])
    assert np.abs(losses_of_two - losses).max() > 1e-2
    assert np.abs(weights_of(together) - weights_of(alone)).max() > 1e-2
