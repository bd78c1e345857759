"""What speed depends on: nothing slow is imported, no thread is spent, no pass is made twice."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.exceptions import ConvergenceWarning
from torch import nn

from skhebae import HEBAETransformer
from skhebae.data import Table
from skhebae.data.prefetch import MinibatchReader
from skhebae.data.scaling import LARGEST, FeatureScaling, may_exceed
from skhebae.likelihoods import GaussianLikelihood
from skhebae.objectives import VAEObjective
from skhebae.prior import StandardNormalPrior
from skhebae.training import graphs, threads
from skhebae.training.adam import Adam
from skhebae.training.threads import fitting_threads

FIRST_FIT = """
import sys, warnings
import numpy as np
import sklearn.mixture, sklearn.preprocessing, torch
from skhebae import HEBAETransformer
before = set(sys.modules)
warnings.simplefilter("ignore")
X = np.random.default_rng(0).poisson(1.0, size=(60, 5)).astype("float32")
for likelihood in ("gaussian", "negative_binomial"):
    model = HEBAETransformer(2, max_iter=2, likelihood=likelihood).fit(X)
    model.inverse_transform(model.transform(X)), model.score_samples(X)
print(*sorted({name.split(".")[0] for name in set(sys.modules) - before}))
print(*("torch._dynamo" in sys.modules, "sympy" in sys.modules))
"""


@pytest.mark.slow
def test_a_first_fit_imports_neither_compiler_nor_algebra():
    """Each takes longer than the fit: torch's compiler and sympy."""
    done = subprocess.run(
        [sys.executable, "-c", FIRST_FIT], capture_output=True, text=True, check=True
    )
    imported, flags = done.stdout.splitlines()
    assert not {"sympy", "mpmath", "networkx"} & set(imported.split())
    assert flags == "False False"


def parameters(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 3), (3,), (2, 4), ())
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_adam_is_that_of_torch_to_the_last_bit(weight_decay):
    ours, theirs = parameters(), parameters()
    adam = Adam(ours, weight_decay)
    groups = [
        {"params": [p for p in theirs if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in theirs if p.ndim <= 1], "weight_decay": 0.0},
    ]
    expected = torch.optim.AdamW(groups, fused=True)
    generator = torch.Generator().manual_seed(1)
    for step in range(5):
        rate = 0.1 / (1 + step)
        adam.learning_rate = rate
        for group in expected.param_groups:
            group["lr"] = rate
        for p, q in zip(ours, theirs, strict=True):
            # One parameter has no gradient at first.
            gradient = torch.randn(p.shape, generator=generator)
            p.grad = q.grad = None if step < 2 and p.ndim == 0 else gradient
        adam.step()
        expected.step()
        for p, q in zip(ours, theirs, strict=True):
            assert torch.equal(p, q)
    adam.zero_grad()
    assert all(p.grad is None for p in ours)


def test_adam_goes_on_from_its_state():
    first, second = parameters(), parameters()
    one, other = Adam(first, 0.0), Adam(second, 0.0)
    one.learning_rate = other.learning_rate = 0.1
    for p in first:
        p.grad = torch.ones_like(p)
    one.step()
    with torch.no_grad():
        for p, q in zip(first, second, strict=True):
            q.copy_(p)
            q.grad = p.grad
    other.restore(one.state())
    one.step()
    other.step()
    for p, q in zip(first, second, strict=True):
        assert torch.equal(p, q)


def test_small_networks_take_one_thread_of_the_calling_thread_alone():
    model = HEBAETransformer(2, max_iter=1, tol=1e9).set_params(n_iter_no_change=1)
    with pytest.warns(ConvergenceWarning):
        model.fit(np.random.default_rng(0).normal(size=(50, 4)))
    before = torch.get_num_threads()
    with fitting_threads(model.fitted_.model, 32):
        inside = [library["num_threads"] for library in threads._controller().info()]
    after = [library["num_threads"] for library in threads._controller().info()]
    assert set(inside) <= {1}
    assert torch.get_num_threads() == before
    with fitting_threads(model.fitted_.model, threads.WORTH_IT):
        assert [library["num_threads"] for library in threads._controller().info()] == after


@given(
    st.lists(st.floats(-(2.0**66), 2.0**66, width=32), min_size=0, max_size=30),
    st.sampled_from([1.0, 1e15]),
)
def test_no_number_beyond_the_bound_is_missed(numbers, bound):
    values = np.array(numbers, dtype=np.float32)
    if values.size and np.abs(values).max() > bound:
        assert may_exceed(values, bound)
    if np.linalg.norm(values.astype(np.float64)) < 0.99 * bound:
        assert not may_exceed(values, bound)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.longdouble])
def test_values_beyond_float32_are_named(dtype):
    X = np.random.default_rng(0).normal(size=(40, 3)).astype(dtype)
    scaling = FeatureScaling.measure(Table(X.astype(np.float64)))
    assert_allclose(scaling.standardise(X).std(axis=0), 1.0, rtol=0.2)
    for bad in (10 * LARGEST, 1e30):
        X[7, 1] = -bad
        with pytest.raises(ValueError, match="in column 1, more than"):
            scaling.standardise(X)


class Reader(MinibatchReader):
    """Rows that remember what was taken; as if on a device of this kind."""

    def __init__(self, kind):
        self.kind = kind
        self.taken = []

    def take(self, indices):
        self.taken.append(indices)
        x = SimpleNamespace(device=SimpleNamespace(type=self.kind))
        return SimpleNamespace(x=x, rows=indices)


@pytest.mark.parametrize("kind", ["cpu", "cuda"])
def test_minibatches_in_turn(kind):
    reader = Reader(kind)
    minibatches = [np.arange(3 * i, 3 * i + 3) for i in range(5)]
    for i, minibatch in enumerate(reader.in_turn(minibatches)):
        assert_array_equal(minibatch.rows, minibatches[i])
        # A thread reads one ahead for a GPU, and nothing more.
        ahead = len(reader.taken) - (i + 1)
        assert ahead <= (2 if kind == "cuda" else 0)
    assert len(reader.taken) == 5
    assert list(reader.in_turn([])) == []


def test_an_error_of_the_thread_reaches_the_caller():
    reader = Reader("cuda")

    def broken(indices):
        if indices[0] == 3:
            raise OSError("the disk is gone")
        return Reader.take(reader, indices)

    reader.take = broken
    with pytest.raises(OSError, match="the disk is gone"):
        list(reader.in_turn([np.arange(3), np.arange(3, 6)]))


class Deciding(nn.Module):
    """A user's module, which may do another thing every time."""


def test_only_modules_of_torch_on_a_gpu_are_captured():
    def model(kind, *modules):
        encoder = nn.Sequential(*modules)
        one = torch.ones(2)
        return SimpleNamespace(
            device=SimpleNamespace(type=kind),
            encoder=encoder,
            decoder=nn.Sequential(),
            likelihood=GaussianLikelihood(one, one, one),
            prior=StandardNormalPrior(2),
        )

    objective = VAEObjective()
    assert not graphs.can_be_captured(model("cpu", nn.Linear(2, 2)), objective)
    assert graphs.can_be_captured(model("cuda", nn.Linear(2, 2), nn.ReLU()), objective)
    assert not graphs.can_be_captured(model("cuda", nn.Linear(2, 2), Deciding()), objective)
    # Nor objectives, likelihoods and priors of the user's.
    assert not graphs.can_be_captured(model("cuda", nn.Linear(2, 2)), Deciding())


def test_gradients_do_not_stay_in_the_fitted_model():
    X = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    model = HEBAETransformer(2, random_state=0).fit(X)
    assert all(p.grad is None for p in model.fitted_.model.parameters())


@pytest.mark.slow
# torch's compiler warns of itself, and uses what torch has deprecated.
@pytest.mark.filterwarnings("ignore")
def test_compiled_training_is_the_same_training():
    """Needs a C++ compiler; other sums of the same numbers."""
    pytest.importorskip("torch._inductor")
    X = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    losses = []
    for value in (False, True):
        with pytest.warns(ConvergenceWarning):
            model = HEBAETransformer(2, max_iter=4, compile=value, random_state=0).fit(X)
        losses.append(model.history_["loss"])
    assert_allclose(*losses, rtol=1e-4)


@pytest.mark.parametrize("likelihood", ["gaussian", "negative_binomial"])
def test_decoding_takes_little_more_memory_than_its_result(likelihood):
    rng = np.random.default_rng(0)
    X = rng.poisson(2.0, size=(60, 400)).astype(np.float32)
    with pytest.warns(ConvergenceWarning):
        model = HEBAETransformer(2, max_iter=2, likelihood=likelihood, random_state=0).fit(X)
    codes = rng.normal(size=(6000, 2)).astype(np.float32)
    model.inverse_transform(codes[:300])
    tracemalloc.start()
    decoded = model.inverse_transform(codes)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # A chunk has 256 rows, and some copies of it in double.
    assert peak < decoded.nbytes + 12 * 256 * 400 * 8
