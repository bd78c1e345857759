"""Forked children work: no lock of the parent stays closed, no thread that is gone is awaited."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from forked_children import SCENES, encoder, in_child
from numpy.testing import assert_array_equal
from tqdm.std import TqdmDefaultWriteLock

from skhebae import AutoencoderTransformer, HEBAETransformer
from skhebae.fitted.codes import WARNING_FILTERS
from skhebae.likelihoods import GaussianLikelihood
from skhebae.networks import GLOBAL_RANDOM_STATE
from skhebae.process import ForkSafeLock, cached_property
from skhebae.process.modes import plain_modes

pytestmark = [
    pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SCRIPT = Path(__file__).with_name("forked_children.py")


@pytest.mark.slow
@pytest.mark.parametrize("scene", SCENES)
def test_children_of_a_process_with_two_threads(scene):
    done = subprocess.run(
        [sys.executable, str(SCRIPT), scene],
        env={**os.environ, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(SCRIPT.parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


class Holder(threading.Thread):
    """Holds a lock in a thread of its own from `start` to `stop`."""

    def __init__(self, lock):
        super().__init__()
        self.lock, self.holds, self.stops = lock, threading.Event(), threading.Event()

    def run(self):
        with self.lock:
            self.holds.set()
            self.stops.wait()

    def __enter__(self):
        self.start()
        assert self.holds.wait(60)

    def __exit__(self, *error):
        self.stops.set()
        self.join()


@pytest.mark.parametrize("lock", [GLOBAL_RANDOM_STATE, WARNING_FILTERS])
def test_a_child_finds_locks_open(lock, table, brief):
    """A fit with networks of the user's and a mixture takes all of them."""

    def fitted():
        model = HEBAETransformer(**brief, encoder=encoder)
        return model.fit_transform(table), model.sample(9, random_state=0)

    with Holder(lock.held()):
        found = in_child(fitted)
    for values, expected in zip(found, fitted(), strict=True):
        assert_array_equal(values, expected)


def test_a_child_shows_its_progress(table, brief, capfd):
    """Beside a thread that holds the lock of tqdm's bars."""

    def fitted():
        return HEBAETransformer(**brief, verbose=True).fit_transform(table)

    with Holder(TqdmDefaultWriteLock.th_lock):
        found = in_child(fitted)
    assert "5/5" in capfd.readouterr().err
    assert_array_equal(found, HEBAETransformer(**brief).fit_transform(table))


def test_a_child_may_leave_the_block_that_it_was_forked_in():
    lock = ForkSafeLock()

    def left_and_entered():
        with lock.held():
            return "entered"

    with lock.held():
        assert in_child(left_and_entered) == "entered"
        ours, its = os.pipe()
        child = os.fork()
        if child:
            os.waitpid(child, 0)
    if not child:  # it left the block like its parent
        with lock.held():
            os.write(its, b"entered")
        os._exit(0)
    os.close(its)
    assert os.read(ours, 9) == b"entered"
    os.close(ours)
    with lock.held():
        pass


class Slow(GaussianLikelihood):
    """A likelihood that tells what it has learned only when it may."""

    asked, may_tell = threading.Event(), threading.Event()
    patient = False

    def learned(self, scaling):
        if Slow.patient:
            Slow.asked.set()
            assert Slow.may_tell.wait(60)
        return super().learned(scaling)


def test_a_child_waits_for_no_property_that_another_thread_computes(table, brief):
    """Before Python 3.12 `functools.cached_property` has a lock for all instances."""
    one, other = (AutoencoderTransformer(**brief, likelihood=Slow).fit(table) for _ in range(2))
    Slow.patient = True
    thread = threading.Thread(target=lambda: one.noise_variance_)
    thread.start()
    assert Slow.asked.wait(60)

    def noise_variance():
        Slow.patient = False
        return other.noise_variance_

    try:
        found = in_child(noise_variance)
    finally:
        Slow.may_tell.set()
        thread.join()
        Slow.patient = False
    assert_array_equal(found, other.noise_variance_)


def test_cached_property():
    class Counter:
        n_calls = 0

        @cached_property
        def value(self):
            """What it is."""
            self.n_calls += 1
            return self.n_calls

    counter = Counter()
    assert [counter.value, counter.value, Counter().value] == [1, 1, 1]
    assert Counter.value.__doc__ == "What it is."


def test_what_cannot_work_names_spawn():
    """Torch refuses gradients in children of processes that had a GPU, and GPUs in all."""

    def refused():
        try:
            with plain_modes():
                raise RuntimeError("Unable to handle autograd's threading with fork-based ...")
        except RuntimeError as error:
            return error.__notes__

    assert "get_context('spawn')" in in_child(refused)[0]
    # In a process of its own it is another error.
    with pytest.raises(RuntimeError) as caught, plain_modes():
        raise RuntimeError("fork")
    assert not hasattr(caught.value, "__notes__")


def test_a_model_is_the_same_in_a_child(fitted, table):
    def encoded():
        return fitted.transform(table), fitted.score_samples(table)

    for values, expected in zip(in_child(encoded), encoded(), strict=True):
        assert_array_equal(np.asarray(values), expected)
