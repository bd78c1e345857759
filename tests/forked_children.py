"""Forks children of a process that has computed with two threads; run by test_forks.py.

``OMP_NUM_THREADS=2 python tests/forked_children.py NAME`` exits with 0 if the children return what
the parent does.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import warnings

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits
from threadpoolctl import threadpool_info
from torch import nn
from torch.utils.data import DataLoader, Dataset

from skhebae import HEBAETransformer

#: Seconds after which a child counts as hanging.
PATIENCE = 120

FORK = multiprocessing.get_context("fork")
DIGITS = load_digits().data.astype(np.float32)
#: Wide enough for two threads, and fitted within a second.
WIDE = {"n_components": 10, "hidden_layer_sizes": (512,), "max_iter": 1, "random_state": 0}
#: As narrow as most networks; a fit has one thread, so that parent and child agree to the bit.
NARROW = {"n_components": 3, "hidden_layer_sizes": (16,), "max_iter": 2, "random_state": 0}


def encoder(shape, n_outputs):
    return nn.Linear(*shape, n_outputs)


def in_child(function, *arguments):
    """Return the result of a function in a forked child."""
    ours, its = FORK.Pipe()
    child = FORK.Process(target=lambda: its.send(function(*arguments)))
    child.start()
    its.close()
    try:
        if not ours.poll(PATIENCE):
            raise AssertionError(f"The child hangs in {function.__name__}.")
        return ours.recv()  # EOFError if it failed
    finally:
        child.kill()
        child.join()


def saved_and_loaded(model):
    with tempfile.TemporaryDirectory() as folder:
        model.save(f"{folder}/model")
        return HEBAETransformer.load(f"{folder}/model").transform(DIGITS)


def streamed():
    model = HEBAETransformer(**NARROW).partial_fit(iter([DIGITS[:900], DIGITS[900:]]))
    return model.sample(20, random_state=0)


def everything(model):
    return {
        "transform": model.transform(DIGITS),
        "inverse_transform": model.inverse_transform(model.transform(DIGITS)),
        "sample": model.sample(20, random_state=0, noise=True),
        "score_samples": model.score_samples(DIGITS[:300]),
        "log_likelihood": model.log_likelihood(DIGITS[:50]),
        "file": saved_and_loaded(model),
        "stream": streamed(),
        "fit": HEBAETransformer(**NARROW).fit(DIGITS).transform(DIGITS),
        "fit_transform": HEBAETransformer(**NARROW, encoder=encoder).fit_transform(DIGITS),
    }


def wide_model():
    """A model after whose fit all OpenMP libraries have threads."""
    assert torch.get_num_threads() == 2
    return HEBAETransformer(**WIDE).fit(DIGITS)


def methods():
    model = wide_model()
    found, expected = in_child(everything, model), everything(model)
    for name, values in expected.items():
        assert_array_equal(found[name], values, err_msg=name)
    # A fit of several threads rounds differently with one.
    wide = in_child(lambda: HEBAETransformer(**WIDE).fit(DIGITS).history_["loss"])
    np.testing.assert_allclose(wide, model.history_["loss"], rtol=1e-3)


def threads():
    """A child computes with one thread once it uses skhebae, and not before."""
    model = wide_model()

    def counted():
        return {library["num_threads"] for library in threadpool_info() if is_openmp(library)}

    def is_openmp(library):
        return library["user_api"] == "openmp"

    def counted_after_use():
        before = torch.get_num_threads()
        model.transform(DIGITS[:1])
        return before, torch.get_num_threads(), counted()

    assert in_child(counted_after_use) == (2, 1, {1})
    # A grandchild too.
    assert in_child(lambda: in_child(counted_after_use)) == (2, 1, {1})
    assert counted() == {2}
    assert torch.get_num_threads() == 2


def joblib():
    model = wide_model()
    parts = np.array_split(DIGITS, 4)
    with Parallel(n_jobs=2, backend="multiprocessing", timeout=PATIENCE) as parallel:
        codes = parallel(delayed(model.transform)(part) for part in parts)
        fits = parallel(
            delayed(HEBAETransformer(**NARROW).fit_transform)(part) for part in parts[:2]
        )
    assert_array_equal(np.concatenate(codes), model.transform(DIGITS))
    for fit, part in zip(fits, parts, strict=False):
        assert_array_equal(fit, HEBAETransformer(**NARROW).fit_transform(part))


class Codes(Dataset):
    """Encodes rows in the workers of a DataLoader."""

    def __init__(self, model):
        self.model = model

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return self.model.transform(DIGITS[index : index + 1])[0]


def data_loader():
    model = wide_model()
    loader = DataLoader(
        Codes(model),
        batch_size=16,
        num_workers=2,
        multiprocessing_context="fork",
        timeout=PATIENCE,
    )
    codes = torch.cat(list(loader)).numpy()
    assert_array_equal(codes, model.transform(DIGITS[:64]))
    # And as a stream: the reader's thread asks workers, which encode.
    stacked = HEBAETransformer(2, random_state=0).partial_fit(iter(loader))
    assert_array_equal(
        stacked.transform(codes),
        HEBAETransformer(2, random_state=0)
        .partial_fit(iter(np.array_split(codes, 4)))
        .transform(codes),
    )


class Pausing:
    """A learning rate that waits, in the first epoch, until a child has been forked."""

    def __init__(self):
        self.reached, self.goes_on = threading.Event(), threading.Event()

    def __call__(self, epoch):
        self.reached.set()
        assert self.goes_on.wait(PATIENCE)
        return 1.0


def beside_a_fit():
    """Another thread is in the middle of a fit, with the global random state in its hands."""
    model = wide_model()
    expected = everything(model)
    pausing = Pausing()
    fit = HEBAETransformer(**WIDE, encoder=encoder, learning_rate=pausing)
    thread = threading.Thread(target=fit.fit, args=(DIGITS,))
    thread.start()
    assert pausing.reached.wait(PATIENCE)
    try:
        found = in_child(everything, model)
    finally:
        pausing.goes_on.set()
        thread.join()
    for name, values in expected.items():
        assert_array_equal(found[name], values, err_msg=name)


class Forking:
    """A learning rate that forks a child in the middle of its own fit."""

    def __init__(self, function, *arguments):
        self.parts, self.found = (function, *arguments), None

    def __call__(self, epoch):
        if self.found is None:
            self.found = in_child(*self.parts)
        return 1.0


def within_a_fit():
    model = wide_model()
    expected = everything(model)
    forking = Forking(everything, model)
    HEBAETransformer(**WIDE, encoder=encoder, learning_rate=forking).fit(DIGITS)
    for name, values in expected.items():
        assert_array_equal(forking.found[name], values, err_msg=name)


SCENES = {
    function.__name__: function
    for function in (methods, threads, joblib, data_loader, beside_a_fit, within_a_fit)
}

if __name__ == "__main__":
    warnings.simplefilter("ignore")  # Python 3.12 warns of every fork beside threads
    SCENES[sys.argv[1]]()
