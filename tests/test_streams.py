"""`partial_fit` on tables that come one after the other."""

from __future__ import annotations

import pickle
import threading
import weakref
from collections import UserList, deque

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from skhebae import HEBAETransformer
from skhebae.data import is_stream, one_ahead, table_of
from skhebae.estimators.streaming import fit_each
from skhebae.exceptions import NonFiniteLossError
from skhebae.fitted.codes import CodeMixture


@pytest.fixture(name="chunks")
def tables():
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(3, 6))
    return [(rng.normal(size=(n, 3)) @ weights).astype(np.float32) for n in (120, 64, 64, 90, 33)]


def by_loop(cls, quick, chunks):
    estimator = cls(**quick)
    for chunk in chunks:
        estimator.partial_fit(chunk)
    return estimator


def assert_same(one, other, X):
    assert_array_equal(one.transform(X), other.transform(X))
    assert_array_equal(one.latent_covariance_, other.latent_covariance_)
    assert_array_equal(one.sample(5, random_state=0), other.sample(5, random_state=0))
    assert one.n_iter_ == other.n_iter_
    assert_array_equal(one.history_["loss"], other.history_["loss"])


class Loader(IterableDataset):
    """As annbatch's: it has a length, and its __getitem__ is there but refuses."""

    def __init__(self, tables):
        self._tables = tables

    def __len__(self):
        return len(self._tables)

    def __iter__(self):
        for X in self._tables:
            yield {"X": X, "obs": None, "var": None, "index": None}


def anndatas(chunks):
    anndata = pytest.importorskip("anndata")
    return (anndata.AnnData(X) for X in chunks)


STREAMS = {
    "generator": lambda chunks: (X for X in chunks),
    "iterator": iter,
    "map": lambda chunks: map(sparse.csr_matrix, chunks),
    "tensors": lambda chunks: map(torch.from_numpy, chunks),
    "with targets": lambda chunks: ((X, X[:, 0]) for X in chunks),
    "lists": lambda chunks: (X.astype(float).tolist() for X in chunks),
    "mappings": Loader,
    "anndata": anndatas,
}


@pytest.mark.parametrize("kind", STREAMS)
def test_a_stream_is_as_a_call_for_each_table(cls, quick, chunks, kind):
    # Principal components rebuild these rows exactly. From there steps follow rounding, which
    # differs between lists and arrays of single precision.
    quick = {**quick, "linear_path": False}
    expected = by_loop(cls, quick, map(table_of, STREAMS[kind](chunks)))
    assert_allclose(
        expected.transform(chunks[0]), by_loop(cls, quick, chunks).transform(chunks[0]), atol=1e-4
    )
    stream = STREAMS[kind](chunks)
    assert is_stream(stream)
    assert_same(cls(**quick).partial_fit(stream), expected, chunks[0])


def test_a_torch_loader(quick, chunks):
    """Each minibatch of the loader is a step, and its order is the loader's."""
    X = torch.from_numpy(np.concatenate(chunks))
    params = {**quick, "batch_size": 32}
    loader = DataLoader(
        TensorDataset(X), 32, shuffle=True, generator=torch.Generator().manual_seed(0)
    )
    assert is_stream(loader)
    model = HEBAETransformer(**params).partial_fit(loader)
    loader.generator.manual_seed(0)
    assert_same(model, by_loop(HEBAETransformer, params, [x.numpy() for (x,) in loader]), X)
    assert model.n_iter_ == 12
    assert next(iter(model.fitted_.optimizer_state.values()))["step"] == 12
    assert model.fitted_.moments.n_rows == len(X)


class Rows(Dataset):
    """What torch calls a map: rows by number, and no iteration."""

    def __getitem__(self, i):
        return torch.zeros(3)

    def __len__(self):
        return 5


@pytest.mark.parametrize(
    "X",
    [
        [[1.0, 2.0]],
        ((1.0, 2.0), (3.0, 4.0)),
        deque([[1.0]]),
        UserList([[1.0]]),
        np.ones((2, 2)),
        sparse.eye(3),
        torch.eye(3),
        pd.DataFrame({"a": [1.0]}),
        {"X": np.ones((2, 2))},
        "text",
        b"bytes",
        None,
        3.0,
        Rows(),
    ],
    ids=lambda X: type(X).__name__,
)
def test_tables_are_no_streams(X):
    assert not is_stream(X)


def test_other_methods_want_one_table(fitted, quick, chunks):
    for method in ("transform", "score_samples", "fit"):
        model = type(fitted)(**quick) if method == "fit" else fitted
        with pytest.raises(TypeError, match=r"X is a generator.*partial_fit takes such a stream"):
            getattr(model, method)(X for X in chunks)


def test_an_error_names_the_item_and_keeps_what_was_learned(quick, chunks):
    bad = [*chunks[:3], np.full((4, 6), np.inf), chunks[4]]
    model = HEBAETransformer(**quick)
    with pytest.raises(ValueError, match="contains infinity") as caught:
        model.partial_fit(iter(bad))
    assert "In item 3 (from 0) of X, a list_iterator" in caught.value.__notes__[0]
    assert_same(model, by_loop(HEBAETransformer, quick, chunks[:3]), chunks[0])
    # And goes on from there.
    model.partial_fit(iter(chunks[3:]))
    assert_same(model, by_loop(HEBAETransformer, quick, chunks), chunks[0])


def failing(chunks):
    yield from chunks
    raise OSError("disk gone")


@pytest.mark.parametrize(
    ("stream", "error", "message"),
    [
        (lambda c: failing(c[:2]), OSError, r"disk gone[\s\S]*In item 2"),
        (lambda c: iter([c[0], c[0][:, :4]]), ValueError, r"4 features[\s\S]*In item 1"),
        (lambda c: iter([c[0][:1], c[0]]), ValueError, r"1 sample[\s\S]*In item 0"),
        (lambda c: iter([c[0][:0]] * 3), ValueError, "yielded no table with rows"),
        (lambda c: iter(c[0]), ValueError, r"1D array[\s\S]*In item 0"),
        (lambda c: iter([{"x": c[0]}]), ValueError, r"keys \['x'\]; its table must be under 'X'"),
        (lambda c: iter([]), ValueError, "yielded no table. An iterator can be used once"),
    ],
)
def test_bad_streams(quick, chunks, stream, error, message):
    with pytest.raises(error, match=message):
        HEBAETransformer(**quick).partial_fit(stream(chunks))


COUNTS = "zero_inflated_negative_binomial"


@pytest.mark.slow
@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, torch.from_numpy, list])
@pytest.mark.parametrize("likelihood", ["gaussian", "bernoulli", COUNTS])
def test_a_table_of_one_row(cls, quick, chunks, likelihood, form):
    """As the last of a loader's often is: one more row, which changes little."""
    tables = chunks[:3]
    if likelihood == "bernoulli":
        tables = [1 / (1 + np.exp(-X)) for X in tables]
    elif likelihood == COUNTS:
        tables = [np.rint(np.exp(X.clip(-2, 2))) for X in tables]
    # (Principal components rebuild these rows exactly; then any step changes much.)
    params = {**quick, "likelihood": likelihood, "linear_path": False}
    model = cls(**params).partial_fit(iter([form(X) for X in (*tables, tables[0][:1])]))
    before = by_loop(cls, params, tables)
    assert model.n_iter_ == 4
    assert model.fitted_.moments.n_rows == before.fitted_.moments.n_rows + 1
    X = tables[0]
    for method in ("transform", "score_samples"):
        one, other = getattr(model, method)(X), getattr(before, method)(X)
        assert_allclose(one, other, atol=0.15 * max(1.0, np.abs(other).max()))
    assert (model.transform(X) != before.transform(X)).any()  # it did learn
    assert_allclose(model.latent_covariance_, before.latent_covariance_, atol=0.1)
    for latent in ("mixture", "gaussian", "prior"):
        assert np.isfinite(model.sample(20, latent, random_state=0)).all()
    for name in ("loss", "reconstruction", "penalty"):
        assert np.isfinite(model.history_[name]).all()
    # And training goes on.
    model.partial_fit(iter([form(X[:1]), form(X[1:2]), form(X)]))
    assert np.isfinite(model.score_samples(X)).all()


@pytest.mark.parametrize(
    "more",
    [
        {"row_share": 0.5},
        {"covariance": "diag", "posterior_scale": "scalar"},
        {"batch_share": 1.0},
        {"batch_share": 0.5, "row_share": 0.5, "encode_batch": True},
    ],
)
def test_one_row_of_any_objective(quick, chunks, more):
    X = chunks[0]
    labels = np.array(["a", "b"])[np.arange(len(X)) % 2]
    model = HEBAETransformer(**quick, **more).partial_fit(X, batch=labels)
    noise = model.fitted_.noise_covariance
    for i in range(3):
        model.partial_fit(X[i : i + 1], batch=labels[i : i + 1])
    assert np.isfinite(model.history_["loss"]).all()
    assert np.isfinite(model.elbo(X, batch=labels)).all()
    # A minibatch of one row does not make the codes' covariance the hyperprior's.
    assert_allclose(model.fitted_.noise_covariance, noise, atol=0.1)


def normalised(shape, n_outputs):
    return nn.Sequential(
        nn.Linear(*shape, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, n_outputs)
    )


def test_layers_that_normalise_by_a_minibatch_rest_for_one_row(cls, quick, chunks):
    model = cls(**quick, encoder=normalised).partial_fit(iter(chunks[:2]))
    known = model.fitted_.model.encoder.module[1].running_mean.clone()
    model.partial_fit(chunks[0][:1])
    assert torch.equal(model.fitted_.model.encoder.module[1].running_mean, known)
    model.partial_fit(chunks[0])
    assert not torch.equal(model.fitted_.model.encoder.module[1].running_mean, known)


def test_a_loader_whose_last_minibatch_has_one_row(cls, quick, chunks):
    X = torch.from_numpy(np.concatenate(chunks)[:321])
    model = cls(**quick).partial_fit(DataLoader(TensorDataset(X), 32))
    assert model.n_iter_ == 11
    assert model.fitted_.moments.n_rows == 321


@pytest.mark.parametrize("form", [np.asarray, sparse.csr_matrix, torch.from_numpy, pd.DataFrame])
def test_empty_tables_are_left_out(quick, chunks, form):
    empty = chunks[0][:0]
    tables = [empty, chunks[0], empty, chunks[1], empty]
    model = HEBAETransformer(**quick).partial_fit(form(X) for X in tables)
    assert_same(model, by_loop(HEBAETransformer, quick, map(form, chunks[:2])), form(chunks[0]))
    with pytest.raises(ValueError, match="0 sample"):
        model.partial_fit(form(empty))


@pytest.mark.slow
def test_the_first_call_needs_two_rows(cls, quick, chunks):
    with pytest.raises(ValueError, match="1 sample"):
        cls(**quick).partial_fit(chunks[0][:1])
    with pytest.raises(ValueError, match="1 sample"):
        cls(**quick, warm_start=True).fit(chunks[0]).fit(chunks[0][:1])


def test_a_loss_that_is_not_finite_names_the_item(quick, chunks, monkeypatch):
    model = HEBAETransformer(**quick).partial_fit(chunks[0])
    monkeypatch.setattr("skhebae.training.loop.train_epoch", lambda *_: {"loss": np.nan})
    with pytest.raises(NonFiniteLossError, match="In item 0"):
        model.partial_fit(iter(chunks))


@pytest.mark.parametrize("name", ["batch", "size_factor"])
def test_covariates_are_of_one_table(quick, chunks, name):
    with pytest.raises(ValueError, match=f"{name}= belongs to the rows of one table.*in a loop"):
        HEBAETransformer(**quick).partial_fit(iter(chunks), **{name: np.ones(120)})


class Table:
    """What can be counted while it is in memory."""


def test_one_table_is_read_ahead_by_a_thread():
    """In memory are the one in use and the next, whoever is quicker."""
    alive, most, threads = weakref.WeakSet(), [], set()

    def tables():
        for _ in range(6):
            X = Table()
            alive.add(X)
            most.append(len(alive))
            threads.add(threading.current_thread())
            yield X
            del X

    seen = []
    fit_each(tables(), lambda X: seen.append(len(alive)), {})
    assert len(seen) == 6
    assert max(most + seen) <= 2
    assert threads.isdisjoint({threading.main_thread()})


def test_the_next_table_is_read_while_one_is_in_use():
    being_read = threading.Event()

    def tables():
        yield 0
        being_read.set()
        yield 1

    read = one_ahead(tables())
    assert next(read) == 0
    assert being_read.wait(10.0)
    assert list(read) == [1]


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        ([np.ones((2, 3)), np.zeros(2)], np.ones((2, 3))),
        ([np.ones(3), np.zeros(3)], [np.ones(3), np.zeros(3)]),
        (pd.DataFrame({"X": [1.0], "y": [2.0]}), [[1.0, 2.0]]),
        ([], []),
    ],
)
def test_the_table_of_an_item(item, expected):
    assert_array_equal(table_of(item), expected)


def test_the_mixture_of_a_stream_is_fitted_when_it_is_used(quick, chunks, monkeypatch):
    fits = []
    fit = CodeMixture.fit
    monkeypatch.setattr(CodeMixture, "fit", lambda *a, **k: (fits.append(1), fit(*a, **k))[1])
    model = HEBAETransformer(**quick).partial_fit(iter(chunks))
    model.transform(chunks[0])
    assert not fits
    rows = model.sample(4, random_state=0)
    assert_array_equal(model.sample(4, random_state=0), rows)
    assert len(fits) == 1
    copy = pickle.loads(pickle.dumps(model))
    assert_array_equal(copy.sample(4, random_state=0), rows)
