"""zarr by annbatch's loader where it is installed, by ourselves where it is not."""

from __future__ import annotations

import sys
from types import ModuleType

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy import sparse

from skhebae import HEBAETransformer
from skhebae.data import StoredTable, windows
from skhebae.data.by_annbatch import is_zarr, loaded_by_annbatch

zarr = pytest.importorskip("zarr")
anndata = pytest.importorskip("anndata")

PARTS = [slice(8, 16), slice(40, 48), slice(96, 100)]


def rows(n_rows=100):
    return np.random.default_rng(0).poisson(1.0, (n_rows, 6)).astype(np.float32)


@pytest.fixture(params=["dense", "sparse"])
def source(request, tmp_path):
    file = zarr.open_group(tmp_path / "X.zarr", mode="w")
    X = rows() if request.param == "dense" else sparse.csr_matrix(rows())
    anndata.io.write_elem(file, "X", X, dataset_kwargs={"shards": None})
    stored = file["X"]
    return stored if request.param == "dense" else anndata.io.sparse_dataset(stored)


class Sampler:
    """What annbatch.abc.Sampler (0.3) does with what a subclass gives."""

    def sample(self, n_obs):
        self.validate(n_obs)
        for request in self._sample(n_obs):
            assert {"requests", "splits"} == set(request)
            assert all(0 <= part.start < part.stop <= n_obs for part in request["requests"])
            yield request


class Loader:
    """annbatch.Loader (0.3), as far as it is asked."""

    made = 0

    def __init__(
        self,
        *,
        batch_sampler=None,
        chunk_size=None,
        preload_nchunks=None,
        shuffle=None,
        return_index=False,
        batch_size=None,
        preload_to_gpu=True,
        drop_last=None,
        to=None,
        rng=None,
    ):
        assert isinstance(batch_sampler, Sampler)
        assert not preload_to_gpu
        assert to is None
        self._sampler = batch_sampler
        Loader.made += 1

    def add_dataset(self, dataset, obs=None, var=None):
        self._dataset = dataset
        return self

    def __iter__(self):
        for request in self._sampler.sample(self._dataset.shape[0]):
            parts = [self._dataset[part] for part in request["requests"]]
            is_sparse = sparse.issparse(parts[0])
            together = sparse.vstack(parts, "csr") if is_sparse else np.concatenate(parts)
            for split in request["splits"]:
                yield {"X": together[split], "obs": None, "var": None, "index": None}


@pytest.fixture
def fake(monkeypatch):
    package, abc = ModuleType("annbatch"), ModuleType("annbatch.abc")
    package.Loader, abc.Sampler, package.abc = Loader, Sampler, abc
    monkeypatch.setitem(sys.modules, "annbatch", package)
    monkeypatch.setitem(sys.modules, "annbatch.abc", abc)
    monkeypatch.setattr(Loader, "made", 0)


@pytest.fixture
def absent(monkeypatch):
    monkeypatch.setitem(sys.modules, "annbatch", None)  # as if it were not installed


def dense(X):
    return X.toarray() if sparse.issparse(X) else X


@pytest.mark.usefixtures("fake")
def test_annbatch_is_asked_for_all_parts_at_once(source):
    columns = np.array([5, 0])
    table = StoredTable(source, columns)
    expected = np.concatenate([rows()[part] for part in PARTS])[:, columns]
    assert_array_equal(dense(table.read_together(PARTS)), expected)
    assert Loader.made == 1


@pytest.mark.usefixtures("absent")
def test_without_annbatch_we_read_ourselves(source):
    assert is_zarr(source)
    assert loaded_by_annbatch(source, PARTS) is None
    expected = np.concatenate([rows()[part] for part in PARTS])
    assert_array_equal(dense(StoredTable(source).read_together(PARTS)), expected)


@pytest.mark.usefixtures("fake")
def test_other_files_are_none_of_its_business(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "X.h5", "w") as file:
        anndata.io.write_elem(file, "X", sparse.csr_matrix(rows()))
        file["dense"] = rows()
        for source in (anndata.io.sparse_dataset(file["X"]), file["dense"], rows()):
            assert loaded_by_annbatch(source, PARTS) is None
    assert Loader.made == 0


def test_the_real_one_reads_the_same(source):
    pytest.importorskip("annbatch", reason="annbatch needs Python >= 3.12")
    expected = np.concatenate([rows()[part] for part in PARTS])
    assert_array_equal(dense(loaded_by_annbatch(source, PARTS)), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_fit_is_the_same_with_and_without(source, request, monkeypatch):
    """The order is ours, and follows from the seed."""
    monkeypatch.setattr(windows, "BLOCK_ROWS", 8)
    params = {"max_iter": 3, "random_state": 0, "window_mb": 2e-3}
    codes = []
    for name in ("absent", "fake"):
        request.getfixturevalue(name)
        codes.append(HEBAETransformer(2, **params).fit_transform(source))
    assert Loader.made >= 9  # windows of several epochs
    assert_array_equal(*codes)
