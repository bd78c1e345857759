"""Tables outside memory: read in blocks, trained on in windows."""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning

from skhebae import HEBAETransformer
from skhebae.data import (
    FeatureScaling,
    StoredTable,
    Table,
    is_mapped,
    is_stored,
    open_rows,
    stored,
    windows,
)
from skhebae.data.windows import WindowedRows

CPU = torch.device("cpu")


class Source:
    """What files look like: slices of rows alone, and every read is remembered."""

    def __init__(self, rows):
        self._rows = rows
        self.shape, self.dtype = rows.shape, rows.dtype
        self.reads = []

    def __getitem__(self, rows):
        assert isinstance(rows, slice)
        self.reads.append((rows.start or 0, rows.stop, threading.current_thread()))
        return self._rows[rows]


def table(n_rows=97, n_features=5, seed=0, as_sparse=False):
    X = np.random.default_rng(seed).poisson(1.0, (n_rows, n_features)).astype(np.float32)
    return sparse.csr_matrix(X) if as_sparse else X


def dense(rows):
    return rows.toarray() if sparse.issparse(rows) else rows


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(windows, "BLOCK_ROWS", 8)
    monkeypatch.setattr(stored, "CHUNK_ROWS", 16)


@pytest.fixture
def h5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "rows.h5", "w") as file:
        yield lambda X: file.create_dataset("rows", data=X)


@pytest.mark.parametrize("as_sparse", [False, True])
def test_slices_and_sums_are_those_of_the_rows(as_sparse, small_blocks):
    X = table(as_sparse=as_sparse)
    columns = np.array([4, 0, 2])
    outside = StoredTable(Source(X), columns)
    expected = dense(X)[:, columns]
    assert outside.shape == (97, 3)
    assert sparse.issparse(outside[:1]) == as_sparse
    for rows in (slice(0, 7), slice(5, 30), slice(90, 200), slice(3, 4)):
        assert_array_equal(dense(outside[rows]), expected[rows])
    assert_allclose(outside.sum(axis=0), expected.sum(axis=0))
    assert_allclose(outside.sum(axis=1), expected.sum(axis=1))
    with pytest.raises(ValueError, match="not contiguous"):
        outside[::2]


def test_a_pass_in_small_slices_reads_each_block_once(small_blocks):
    source = Source(table())
    outside = StoredTable(source)
    for start in range(0, 97, 4):
        outside[start : start + 4]
    assert [read[:2] for read in source.reads] == [(s, s + 16) for s in range(0, 97, 16)]


def test_scaling_is_that_of_the_rows():
    X = table(5000)
    inside, outside = (FeatureScaling.measure(Table(of)) for of in (X, StoredTable(Source(X))))
    for name in ("location", "scale", "variance"):
        assert_allclose(getattr(outside, name), getattr(inside, name), rtol=1e-12)


def windowed(X, n_windows, **more):
    """Rows of blocks of 8, in so many windows."""
    n_bytes = windows.n_bytes(StoredTable(Source(X))[:8])
    blocks = -(-X.shape[0] // 8)
    each = -(-blocks // n_windows)
    source = Source(X)
    rows = WindowedRows(
        StoredTable(source),
        FeatureScaling.measure(Table(X)),
        CPU,
        window_bytes=3 * each * n_bytes,
        **more,
    )
    source.reads.clear()
    return rows, source


@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 2**31), st.booleans())
def test_any_rows_in_any_order(n_rows, n_windows, seed, as_sparse):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "BLOCK_ROWS", 8)
        X = table(n_rows, as_sparse=as_sparse)
        rows, _ = windowed(X, n_windows)
        expected = open_rows(X, FeatureScaling.measure(Table(X)), CPU)
        order = rows.shuffled(np.arange(n_rows), torch.Generator().manual_seed(seed))
        assert sorted(order) == list(range(n_rows))
        for part in np.array_split(order, 3):
            if len(part):
                assert_array_equal(rows.take(part).x, expected.take(part).x)


def test_an_epoch_reads_every_block_once_ahead_of_time(small_blocks):
    X = table(200)
    rows, source = windowed(X, 5)
    generator = torch.Generator().manual_seed(0)
    orders = []
    for _ in range(2):
        source.reads.clear()
        order = rows.shuffled(np.arange(200), generator)
        for part in np.array_split(order, 20):
            rows.take(part)
        starts = [read[0] for read in source.reads]
        assert sorted(starts) == list(range(0, 200, 8))
        assert all(thread is not threading.main_thread() for *_, thread in source.reads)
        orders.append(order)
    assert (orders[0] != orders[1]).any()
    again = windowed(X, 5)[0].shuffled(np.arange(200), torch.Generator().manual_seed(0))
    assert_array_equal(again, orders[0])
    # Within a window of 40 rows the order is random, not that of the blocks.
    assert (np.diff(orders[0][:40]) < 0).sum() > 10


def test_no_more_than_three_windows_are_kept(small_blocks):
    rows, _ = windowed(table(200), 8)
    order = rows.shuffled(np.arange(200), torch.Generator().manual_seed(0))
    for part in np.array_split(order, 40):
        rows.take(part)
        assert len(rows._read) <= windows.WINDOWS_IN_MEMORY


@pytest.mark.slow
@pytest.mark.parametrize("likelihood", ["gaussian", "negative_binomial"])
def test_fit_from_a_file(h5, small_blocks, likelihood):
    """The same scaling, other minibatches: the same kind of fit, and reproducible."""
    rng = np.random.default_rng(0)
    code = rng.normal(size=(400, 2))
    X = rng.poisson(np.exp(code @ rng.normal(size=(2, 12)) * 0.7 + 1.0)).astype(np.float32)
    file = h5(X)
    assert is_stored(file)
    short = {"n_components": 2, "likelihood": likelihood, "max_iter": "auto", "random_state": 0}
    first, again = (HEBAETransformer(**short).fit(file) for _ in range(2))
    inside = HEBAETransformer(**short).fit(X)
    codes = first.transform(file)
    assert_array_equal(codes, again.transform(X))
    assert_array_equal(codes[:1], first.transform(X[:1]))
    assert_array_equal(first.score_samples(file), first.score_samples(X))
    assert first.score(X) == pytest.approx(inside.score(X), rel=0.02)


def test_files_are_checked_to_the_last_row(h5, small_blocks):
    X = table(100)
    X[99, 3] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        HEBAETransformer(2).fit(h5(X))
    X[99, 3] = 0.5
    with pytest.raises(ValueError, match="needs counts"):
        HEBAETransformer(2, likelihood="poisson").fit(StoredTable(Source(X)))
    with pytest.raises(ValueError, match="minimum of 2"):
        HEBAETransformer(2).fit(StoredTable(Source(X[:1])))
    with pytest.raises(ValueError, match="0 sample"):
        HEBAETransformer(2).fit(StoredTable(Source(X[:0])))
    with pytest.raises(ValueError, match="rows and columns"):
        StoredTable(Source(X[0]))


def test_a_file_that_fails_while_training_says_so(small_blocks):
    class Broken(Source):
        def __getitem__(self, rows):
            if threading.current_thread() is not threading.main_thread():
                raise OSError("disk gone")
            return super().__getitem__(rows)

    model = HEBAETransformer(2, max_iter=2)
    with pytest.raises(OSError, match="disk gone"):
        model.fit(StoredTable(Broken(table(100))))
    assert not hasattr(model, "n_iter_")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_window_mb_bounds_the_rows_in_memory(h5, small_blocks, monkeypatch):
    """Blocks of 8 rows of 5 numbers: a window takes what three windows leave it."""
    seen = []
    load = WindowedRows._load

    def watched(self, blocks):
        seen.append(len(blocks))
        return load(self, blocks)

    monkeypatch.setattr(WindowedRows, "_load", watched)
    file = h5(table(200))
    for window_mb, largest in ((1.0, 25), (3 * 4 * 160e-6, 4), (1e-9, 1)):
        seen.clear()
        HEBAETransformer(2, max_iter=5, window_mb=window_mb).fit(file)
        assert max(seen) <= largest
        assert sum(seen) >= 25


@pytest.mark.parametrize("as_sparse", [False, True])
def test_views_are_in_memory(as_sparse):
    anndata = pytest.importorskip("anndata")
    view = anndata.AnnData(table(as_sparse=as_sparse))[:50]
    assert view.is_view
    assert not is_stored(view.X)
    for other in ([[1.0]], sparse.eye(3), torch.eye(3), None):
        assert not is_stored(other)


def test_a_pass_in_order_after_an_epoch_reads_every_block_once(small_blocks):
    """As to measure codes: the windows of the epoch have blocks from everywhere."""
    X = table(400)
    rows, source = windowed(X, 10)
    order = rows.shuffled(np.arange(400), torch.Generator().manual_seed(0))
    rows.take(order[:40])
    for window in rows._read.values():
        window.result()  # the thread that reads ahead is done
    source.reads.clear()
    expected = open_rows(X, FeatureScaling.measure(Table(X)), CPU)
    for start in range(0, 400, 8):
        indices = np.arange(start, start + 8)
        assert_array_equal(rows.take(indices).x, expected.take(indices).x)
    assert sum(stop - start for start, stop, _ in source.reads) <= 400 + 8


def test_an_ordered_pass_over_some_rows_reads_every_block_once(small_blocks):
    """As to measure axes: the windows of the epoch have blocks from everywhere."""
    X = table(400)
    rows, source = windowed(X, 10)
    expected = open_rows(X, FeatureScaling.measure(Table(X)), CPU)
    rows.take(rows.shuffled(np.arange(400), torch.Generator().manual_seed(0))[:40])
    for window in rows._read.values():
        window.result()
    source.reads.clear()
    order = rows.ordered(np.random.default_rng(0).permutation(400)[:200])
    assert_array_equal(order, np.sort(order))
    for part in np.array_split(order, 20):
        assert_array_equal(rows.take(part).x, expected.take(part).x)
        assert len(rows._read) <= windows.WINDOWS_IN_MEMORY
    assert sum(stop - start for start, stop, _ in source.reads) <= 400


@pytest.mark.slow
def test_the_trial_and_the_axes_read_a_file_window_by_window(small_blocks, monkeypatch):
    monkeypatch.setattr("skhebae.fitted.linear_start.START_NUMBERS", 400 * 5 // 3)
    monkeypatch.setattr("skhebae.fitted.geometry.REGRESSED_NUMBERS", 400 * 5 // 3)
    monkeypatch.setattr("skhebae.fitted.geometry.FEWEST_REGRESSED", 1)
    for chunk in ("geometry.CHUNK_ROWS", "linear_start.CHUNK_ROWS", "gate.CHUNK_ROWS"):
        monkeypatch.setattr(f"skhebae.fitted.{chunk}", 20)
    most = []
    loaded = WindowedRows._loaded

    def counting(self, number):
        window = loaded(self, number)
        most.append(len(self._read))
        return window

    monkeypatch.setattr(WindowedRows, "_loaded", counting)
    model = HEBAETransformer(2, random_state=0, max_iter=2, window_mb=0.0005)
    with pytest.warns(ConvergenceWarning):
        model.fit(StoredTable(Source(table(400))))
    assert 1 < max(most) <= windows.WINDOWS_IN_MEMORY


def test_blocks_have_indices_of_one_type():
    X = table(as_sparse=True)
    X.indptr = X.indptr.astype(np.int64)
    block = StoredTable(Source(X))[:10]
    assert block.indices.dtype == block.indptr.dtype == np.int32


def memory_map(X, folder, order="C", mode="r"):
    shape = {"dtype": X.dtype, "shape": X.shape, "order": order}
    np.memmap(folder / "rows.dat", mode="w+", **shape)[:] = X
    return np.memmap(folder / "rows.dat", mode=mode, **shape)


@pytest.fixture
def window_reads(monkeypatch):
    """Rows of every window that was read, and by which thread."""
    reads = []
    load = WindowedRows._load

    def watched(self, blocks):
        window = load(self, blocks)
        reads.append((window.rows.shape[0], threading.current_thread()))
        assert not is_mapped(window.rows)  # read here, not later
        return window

    monkeypatch.setattr(WindowedRows, "_load", watched)
    return reads


MAPS = {
    "read-only": lambda X, folder: memory_map(X, folder),
    "copy-on-write": lambda X, folder: memory_map(X, folder, mode="c"),
    "fortran": lambda X, folder: memory_map(X, folder, order="F"),
    "float64": lambda X, folder: memory_map(X.astype(np.float64), folder),
    "other-endian": lambda X, folder: memory_map(X.astype(X.dtype.newbyteorder()), folder),
    "int16": lambda X, folder: memory_map(X.astype(np.int16), folder),
    "bool": lambda X, folder: memory_map(X > 0, folder),
    "asarray": lambda X, folder: np.asarray(memory_map(X, folder)),
    "view": lambda X, folder: memory_map(np.repeat(X, 2, axis=0), folder)[::2, ::-1],
}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("likelihood", ["gaussian", "negative_binomial"])
@pytest.mark.parametrize("kind", MAPS)
def test_memory_maps_go_through_windows(kind, likelihood, tmp_path, small_blocks, window_reads):
    """As if the same rows were read from any other file; codes are those of rows in memory."""
    mapped = MAPS[kind](table(100), tmp_path)
    assert is_mapped(mapped)
    assert not is_mapped(np.array(mapped))
    params = {"likelihood": likelihood, "max_iter": 2, "random_state": 0, "window_mb": 1e-3}
    model = HEBAETransformer(2, **params).fit(mapped)
    assert max(n for n, _ in window_reads) < 100
    assert sum(n for n, _ in window_reads) >= 200
    assert all(thread is not threading.main_thread() for _, thread in window_reads)
    other = HEBAETransformer(2, **params).fit(StoredTable(Source(np.array(mapped))))
    inside = np.array(mapped)
    assert_array_equal(model.transform(mapped), other.transform(inside))
    assert_array_equal(model.transform(mapped), model.transform(inside))
    assert_array_equal(model.score_samples(mapped), model.score_samples(inside))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_memory_map_that_fits_the_window_is_read_once(tmp_path, window_reads):
    X = table(100)
    fitted = [
        HEBAETransformer(2, max_iter=2, random_state=0).fit(rows).transform(X)
        for rows in (memory_map(X, tmp_path), X)
    ]
    assert_array_equal(*fitted)
    assert not window_reads


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.slow
def test_memory_does_not_grow_with_a_memory_map(tmp_path):
    X = np.random.default_rng(0).poisson(1.0, (60_000, 100)).astype(np.float32)
    mapped = memory_map(X, tmp_path)
    model = HEBAETransformer(2, max_iter=1, window_mb=2, batch_size=512, hidden_layer_sizes=(8,))
    model.fit(X[:600])  # what is imported at the first call
    for method in ("fit", "transform", "score_samples"):
        peaks = []
        for n_rows in (20_000, 60_000):
            tracemalloc.start()
            getattr(model, method)(mapped[:n_rows])
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] - peaks[0] < X[20_000:].nbytes / 5, method


def test_memory_maps_are_checked_to_the_last_row(tmp_path, small_blocks):
    X = table(100)
    X[99, 3] = np.inf
    with pytest.raises(ValueError, match="contains infinity"):
        HEBAETransformer(2, window_mb=1e-3).fit(memory_map(X, tmp_path))
    with pytest.raises(ValueError, match="rows and columns"):
        HEBAETransformer(2, window_mb=1e-3).fit(memory_map(X.ravel(), tmp_path))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize(("likelihood", "n_passes"), [("gaussian", 5), ("poisson", 5)])
def test_a_file_is_checked_once(h5, monkeypatch, likelihood, n_passes):
    """One pass each to check, to scale, to encode and to finish feature-wise parameters.

    And one to find the axes of codes and how codes go with what the encoder sees, over so small a
    table; a large one is looked at in parts.
    """
    n_read = []
    read = StoredTable.read

    def watched(self, rows):
        if threading.current_thread() is threading.main_thread():  # not for minibatches
            n_read.append(len(range(*rows.indices(len(self)))))
        return read(self, rows)

    monkeypatch.setattr(StoredTable, "read", watched)
    X = table(10_000)
    # (A linear path is tried on some of the rows first.)
    model = HEBAETransformer(
        2, likelihood=likelihood, max_iter=1, random_state=0, batch_size=512, linear_path=False
    )
    codes = model.fit_transform(h5(X))
    # And the beginning again, for the size of a block, the identity of the fit and the like.
    assert n_passes <= sum(n_read) / len(X) < n_passes + 1
    assert_array_equal(codes, model.transform(X))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_a_checked_file_is_still_of_the_right_width(small_blocks):
    wide, narrow = StoredTable(Source(table(50))), StoredTable(Source(table(50, 4)))
    models = [HEBAETransformer(2, max_iter=1, random_state=0).fit(X) for X in (wide, narrow)]
    assert wide.checked == narrow.checked == {"gaussian"}
    with pytest.raises(ValueError, match="expecting 4 features"):
        models[1].transform(wide)
    with pytest.raises(ValueError, match="bernoulli"):
        HEBAETransformer(2, likelihood="bernoulli").fit(wide)
    assert "bernoulli" not in wide.checked


def test_sums_of_a_pass_are_kept_only_if_it_ends(small_blocks):
    source = Source(table())
    outside = StoredTable(source)
    next(outside.blocks(summed=True))
    assert_allclose(outside.sum(axis=0), table().sum(axis=0))
    source.reads.clear()
    assert_allclose(outside.sum(axis=1), table().sum(axis=1))
    assert not source.reads
