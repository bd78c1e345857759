from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from skhebae.data import (
    FeatureMoments,
    FeatureScaling,
    ResidentRows,
    StreamedRows,
    Table,
    is_mapped,
    minibatch_indices,
    moments,
    open_rows,
    rows,
    scaling,
)

CPU = torch.device("cpu")


def dense_table(n_rows=60, dtype=np.float64):
    """Features of unequal size: Gaussian, skewed, rarely positive, constant."""
    rng = np.random.default_rng(0)
    columns = [
        rng.normal(100.0, 5.0, n_rows),
        rng.exponential(0.01, n_rows),
        np.where(np.arange(n_rows) == 3, 7.0, 0.0),
        np.full(n_rows, 0.1),
        np.zeros(n_rows),
    ]
    return np.stack(columns, axis=1).astype(dtype)


def memory_map(X, folder):
    path = folder / "rows.dat"
    np.memmap(path, dtype=X.dtype, mode="w+", shape=X.shape)[:] = X
    return np.memmap(path, dtype=X.dtype, mode="r", shape=X.shape)


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_measure_is_numpys_moments(as_type, dtype):
    X = dense_table(dtype=dtype)
    measured = FeatureScaling.measure(Table(as_type(X)))
    wide = X.astype(np.float64)
    deviation = wide.std(axis=0)
    scale = np.maximum(deviation, scaling.RANGE_FRACTION * np.ptp(wide, axis=0))
    scale[3:] = 1.0
    assert_allclose(measured.location, wide.mean(axis=0), rtol=1e-6)
    assert_allclose(measured.scale, scale, rtol=1e-6)
    assert_allclose(measured.variance[:3], (deviation / scale)[:3] ** 2, rtol=1e-5)
    assert_allclose(measured.variance[3:], 1.0)
    assert measured.location.dtype == measured.scale.dtype == measured.variance.dtype == np.float64
    # The variance is that of the standardised rows.
    standardised = measured.standardise(as_type(X)).astype(np.float64)
    assert_allclose(standardised[:, :3].var(axis=0), measured.variance[:3], rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_measure_of_integers_is_that_of_their_floats(dtype):
    X = np.random.default_rng(0).integers(0, 2, (30, 4)).astype(dtype)
    expected = FeatureScaling.measure(Table(X.astype(np.float64)))
    for table in (X, sparse.csr_matrix(X)):
        measured = FeatureScaling.measure(Table(table))
        assert_allclose(measured.scale, expected.scale)
        assert_allclose(measured.location, expected.location)


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("chunk_rows", [1, 7, 59])
def test_measure_does_not_depend_on_chunks(as_type, chunk_rows, monkeypatch):
    X = as_type(dense_table())
    whole = FeatureScaling.measure(Table(X))
    monkeypatch.setattr(moments, "CHUNK_ROWS", chunk_rows)
    chunked = FeatureScaling.measure(Table(X))
    assert_allclose(chunked.location, whole.location, rtol=1e-12)
    assert_allclose(chunked.scale, whole.scale, rtol=1e-10)
    assert_allclose(chunked.variance, whole.variance, rtol=1e-10)


def with_holes(seed, n_rows=60):
    """A table with NaN, one of whose columns has a single value, and whole numbers as weights."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n_rows, 5)) * [1.0, 1e3, 1e-3, 0.0, 1.0] + [0.0, 5.0, 1.0, 0.1, -2.0]
    X[rng.random(X.shape) < 0.3] = np.nan
    X[rng.random(X.shape) < 0.3] = 0.0
    X[:, 4] = np.nan
    X[n_rows // 2, 4] = 3.0
    weight = rng.integers(0, 4, n_rows).astype(np.float64)
    weight[n_rows // 2] = 2.0
    return X, weight


def assert_same_moments(measured, expected):
    assert_allclose(measured.n_rows, expected.n_rows, rtol=1e-12)
    assert_allclose(measured.mean, expected.mean, rtol=1e-10, atol=1e-12)
    assert_allclose(measured.variance, expected.variance, rtol=1e-9, atol=1e-18)
    assert_array_equal(measured.low, expected.low)
    assert_array_equal(measured.high, expected.high)


def moments_by_numpy(X):
    """Return moments of whole columns, of which some have no value."""
    result = FeatureMoments(*(part.copy() for part in FeatureMoments.of_nothing(X.shape[1])))
    for j, column in enumerate(X.T):
        if len(values := column[~np.isnan(column)]):
            own = len(values), values.mean(), values.var(), values.min(), values.max()
            for part, value in zip(result, own, strict=True):
                part[j] = value
    return result


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix, sparse.csr_array])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("chunk_rows", [1, 7, 4096])
def test_moments_of_observed_entries_are_numpys(as_type, weighted, chunk_rows, monkeypatch):
    monkeypatch.setattr(moments, "CHUNK_ROWS", chunk_rows)
    for seed in range(5):
        X, weight = with_holes(seed)
        X[:, 2] = np.nan
        X[40:] = X[40]  # the last chunks lack the same entries
        repeated = np.repeat(X, weight.astype(int) if weighted else 1, axis=0)
        expected = moments_by_numpy(repeated)
        measured = FeatureMoments.measure(as_type(X), weight=weight if weighted else None)
        assert_same_moments(measured, expected)
        assert measured.n_rows[2] == measured.mean[2] == measured.variance[2] == 0.0
        assert (measured.low[2], measured.high[2]) == (np.inf, -np.inf)
        some = FeatureMoments.measure(as_type(X), None, np.array([1, 4]), weight)
        whole = FeatureMoments.measure(X, weight=weight)
        assert_same_moments(some, FeatureMoments(*(part[[1, 4]] for part in whole)))


@given(st.lists(st.integers(0, 60), max_size=4).map(sorted), st.integers(0, 2**31 - 1))
def test_moments_of_parts_merge_per_feature(cuts, seed):
    X, weight = with_holes(seed)
    whole = FeatureMoments.measure(X, weight=weight)
    for make in (np.asarray, sparse.csr_matrix):
        merged = FeatureMoments.of_nothing(5)
        for part, own in zip(np.split(X, cuts), np.split(weight, cuts), strict=True):
            merged = merged.merge(FeatureMoments.measure(make(part), weight=own))
        assert_same_moments(merged, whole)
        assert_array_equal(merged.is_constant(), whole.is_constant())
        assert whole.is_constant()[4]
        nothing = FeatureMoments.of_nothing(5)
        for same in (merged.merge(nothing), nothing.merge(merged)):
            for part, expected in zip(same, merged, strict=True):
                assert_array_equal(part, expected)


@given(st.integers(0, 2**31 - 1))
def test_moments_of_rows_of_weight_1_are_those_of_rows_without_weights(seed):
    X, _ = with_holes(seed)
    assert_same_moments(FeatureMoments.measure(X, weight=np.ones(60)), FeatureMoments.measure(X))


def test_a_feature_without_a_value_is_refused_by_its_column():
    X = np.random.default_rng(0).normal(size=(20, 4))
    X[:, 2] = np.nan
    empty = FeatureMoments.measure(X[:0])
    for part in (X, sparse.csr_matrix(X)):
        measured = FeatureMoments.measure(part).merge(empty)
        with pytest.raises(ValueError, match=r"no value in column 2, only NaN\. Remove it"):
            FeatureScaling.from_moments(measured)
    # Another process has values of it.
    X[:, 2], X[:, 3] = 1.5, np.nan
    scaling = FeatureScaling.from_moments(
        FeatureMoments.measure(X).merge(FeatureMoments.measure(np.array([[0.0, 1.5, 1.5, 2.0]])))
    )
    assert_array_equal(scaling.constant, [2, 3])
    assert_array_equal(scaling.location[2:], [1.5, 2.0])


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("value", [0.0, 0.1, -3.0, 1e9, 1e9 + 0.1, 1e-30])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_features_have_unit_scale(as_type, value, dtype):
    X = as_type(np.full((1000, 1), value, dtype=dtype))
    measured = FeatureScaling.measure(Table(X))
    assert measured.scale == measured.variance == 1.0
    assert_allclose(measured.location, float(dtype(value)), rtol=1e-12)
    # Rounding in the mean of a large constant, not more.
    assert_allclose(measured.standardise(X), 0.0, atol=1e-13 * max(1.0, abs(value)))


def test_features_constant_up_to_rounding_have_unit_scale():
    X = np.full((100, 1), 0.3)
    X[::2] = 0.1 + 0.2
    assert np.unique(X).size == 2
    measured = FeatureScaling.measure(Table(X))
    assert measured.scale == measured.variance == 1.0


def test_scale_of_a_feature_does_not_jump_where_its_deviation_is_one():
    # Tables that somebody standardised before have variances 1 +- 1 ulp.
    X = np.random.default_rng(0).normal(3.0, 2.0, (200, 300))
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    X[:, -1] *= 5.0  # otherwise ranges do not count
    measured = FeatureScaling.measure(Table(X))
    expected = np.maximum(1.0, scaling.RANGE_FRACTION * np.ptp(X, axis=0))
    assert_allclose(measured.scale, expected, rtol=1e-10)
    assert_allclose(measured.variance[:-1], expected[:-1] ** -2, rtol=1e-10)
    assert_allclose(measured.variance[-1], (5.0 / expected[-1]) ** 2, rtol=1e-10)


@pytest.mark.parametrize("offset", [0.0, 1e5, 1.7e9])
def test_standardise_keeps_the_digits_beside_a_large_offset(offset):
    wave = np.random.default_rng(0).normal(0.0, 10.0, (500, 1)).round(3)
    wave = np.c_[wave, 2.0 * wave]  # of different deviations, so that ranges count
    measured = FeatureScaling.measure(Table(wave + offset))
    expected = (wave - wave.mean(axis=0)) / (scaling.RANGE_FRACTION * np.ptp(wave, axis=0))
    assert_allclose(measured.standardise(wave + offset), expected, atol=1e-6)


def test_what_seems_constant_beside_a_large_offset_has_a_small_variance():
    """As it does to the rounding of moments; its errors must not outweigh those of the others."""
    rng = np.random.default_rng(0)
    X = 1e15 + np.c_[1000.0 * rng.normal(size=200), 40.0 * rng.normal(size=200), np.zeros(200)]
    measured = FeatureScaling.measure(Table(X))
    assert measured.constant.tolist() == [1, 2]
    assert measured.scale[2] == 1.0
    assert measured.standardise(X).std(axis=0).max() < 1.1


def test_ranges_count_where_the_caller_cannot_have_standardised():
    """A feature that varies for the first time in a stream, and logarithms of counts."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    X[:, 3] = 0.0
    rare = X.copy()
    rare[:3, 3] = 1.0
    first = FeatureScaling.measure(Table(X))
    assert_allclose(first.scale[:3], X[:, :3].std(axis=0))
    later, features = first.take_in(Table(rare), len(X))
    assert features.tolist() == [3]
    assert later.scale[3] == pytest.approx(scaling.RANGE_FRACTION)
    assert later.variance[3] == pytest.approx(3 / 400 * (1 - 3 / 400) / scaling.RANGE_FRACTION**2)
    counts = rng.poisson(2.0, (200, 1)) * [1, 1]
    logs = FeatureScaling.measure(Table(counts), np.log1p)
    expected = scaling.RANGE_FRACTION * np.ptp(np.log1p(counts), axis=0)
    assert_allclose(logs.scale, np.maximum(np.log1p(counts).std(axis=0), expected))


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("unit", [1e-150, 1e-45, 1e-42, 1e-39, 1e-37, 1e-31, 1e29, 1e37, 1e150])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_any_unit_of_either_precision(as_type, unit, offset):
    """Also where the unit, or its inverse, has no place in single precision."""
    rng = np.random.default_rng(0)
    plain = np.where(rng.random((200, 3)) < 0.2, 0.0, rng.normal(offset, 1.0, (200, 3)))
    for dtype in (np.float32, np.float64):
        X = plain * [1.0, unit, 1.0]
        if unit == 1e-45:  # the last bit of single precision
            X[:, 1] = np.rint(100.0 * plain[:, 1]) * 1.4012984643e-45
        if dtype == np.float32 and not 1e-46 < unit < 1e38:
            continue
        X = X.astype(dtype)
        measured = FeatureScaling.measure(Table(as_type(X)))
        wide = X.astype(np.float64)
        scale = np.maximum(wide.std(axis=0), scaling.RANGE_FRACTION * np.ptp(wide, axis=0))
        assert_allclose(measured.scale, scale, rtol=1e-6)
        expected = (wide - wide.mean(axis=0)) / scale
        assert_allclose(measured.standardise(as_type(X)), expected, atol=1e-5)
        # One row as all rows.
        assert_array_equal(
            measured.standardise(as_type(X)[:1]), measured.standardise(as_type(X))[:1]
        )


@pytest.mark.parametrize("as_type", [np.asarray, sparse.csr_matrix])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_restore_inverts_standardise(as_type, dtype):
    X = dense_table(dtype=dtype)
    before = X.copy()
    measured = FeatureScaling.measure(Table(X))
    standardised = measured.standardise(as_type(X))
    assert standardised.dtype == measured.restore(standardised).dtype == np.float32
    assert_allclose(measured.restore(standardised), X, rtol=1e-6, atol=1e-6)
    assert not np.shares_memory(standardised, X)
    assert np.array_equal(X, before)


@pytest.mark.parametrize(
    "kind", ["array", "fortran", "read-only", "csr", "memmap", "asarray(memmap)"]
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_resident_and_streamed_rows_are_the_same_tensors(kind, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "CHUNK_ROWS", 7)
    X = dense_table(dtype=dtype)
    measured = FeatureScaling.measure(Table(X))
    expected = measured.standardise(X)
    table = {
        "array": lambda: X,
        "fortran": lambda: np.asfortranarray(X),
        "read-only": lambda: np.frombuffer(X.tobytes(), dtype=dtype).reshape(X.shape),
        "csr": lambda: sparse.csr_matrix(X),
        "memmap": lambda: memory_map(X, tmp_path),
        "asarray(memmap)": lambda: np.asarray(memory_map(X, tmp_path)),
    }[kind]()
    assert_allclose(FeatureScaling.measure(Table(table)).scale, measured.scale, rtol=1e-6)
    indices = np.array([59, 0, 3, 3, 17])
    readers = [StreamedRows(table, measured, CPU)]
    if kind != "csr":
        readers.append(ResidentRows(table, measured, CPU))
    for reader in readers:
        assert len(reader) == 60
        taken = reader.take(indices).x
        assert taken.dtype == torch.float32
        assert np.array_equal(taken.numpy(), expected[indices])


def test_resident_rows_are_a_copy():
    X = dense_table()
    measured = FeatureScaling.measure(Table(X))
    reader = ResidentRows(X, measured, CPU)
    before = reader.take(np.arange(60)).x.clone()
    reader.take(np.arange(60)).x.zero_()
    X[:] = -1.0
    assert torch.equal(reader.take(np.arange(60)).x, before)


def test_open_rows_keeps_small_dense_tables_and_streams_the_rest(tmp_path, monkeypatch):
    X = dense_table()
    measured = FeatureScaling.measure(Table(X))
    assert isinstance(open_rows(X, measured, CPU), ResidentRows)
    mapped = memory_map(X, tmp_path)
    assert isinstance(open_rows(sparse.csr_matrix(X), measured, CPU), StreamedRows)
    for table in (mapped, np.asarray(mapped), mapped[5:]):
        assert is_mapped(table)
        assert isinstance(open_rows(table, measured, CPU), ResidentRows)
    n_bytes = 4 * X.size  # as float32
    monkeypatch.setattr(rows, "RESIDENT_BYTES", n_bytes)
    assert isinstance(open_rows(X, measured, CPU), ResidentRows)
    monkeypatch.setattr(rows, "RESIDENT_BYTES", n_bytes - 1)
    assert isinstance(open_rows(X, measured, CPU), StreamedRows)


def test_a_gpu_takes_rows_up_to_its_share_of_free_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 10_000))
    cuda = torch.device("cuda")
    assert rows.fits_on(cuda, int(rows.GPU_SHARE * 1000))
    assert not rows.fits_on(cuda, int(rows.GPU_SHARE * 1000) + 1)


@settings(max_examples=50, deadline=None)
@given(
    n_rows=st.integers(1, 500),
    batch_size=st.integers(1, 600),
    seed=st.integers(0, 2**32 - 1),
)
def test_minibatches_partition_the_rows_evenly(n_rows, batch_size, seed):
    order = np.random.default_rng(seed).permutation(n_rows) + 10
    minibatches = minibatch_indices(order, batch_size)
    sizes = [len(indices) for indices in minibatches]
    assert np.array_equal(np.concatenate(minibatches), order)
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= min(batch_size, n_rows)
    assert max(sizes) < 2 * batch_size or len(sizes) == 1


@pytest.mark.parametrize("kinds", [(np.int64, np.int32), (np.int32, np.int64), (np.int32,) * 2])
def test_indices_of_two_types_are_not_converted_for_every_minibatch(kinds):
    X = sparse.random(50, 8, 0.3, format="csr", dtype=np.float32, random_state=0)
    mixed = X.copy()
    mixed.indptr, mixed.indices = X.indptr.astype(kinds[0]), X.indices.astype(kinds[1])
    scaling = FeatureScaling.measure(Table(mixed))
    rows = StreamedRows(mixed, scaling, torch.device("cpu"))
    assert rows._X.indptr.dtype == rows._X.indices.dtype
    assert rows._X.data is mixed.data  # nothing large is copied
    order = np.random.default_rng(0).permutation(50)
    expected = StreamedRows(X, scaling, torch.device("cpu")).take(order).x
    assert_array_equal(rows.take(order).x, expected)
