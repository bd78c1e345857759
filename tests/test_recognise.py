"""What users pass in place of a table."""

from __future__ import annotations

import array
import io
from collections import OrderedDict, UserDict, deque
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse
from sklearn.datasets import load_iris
from torch import nn
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

from skhebae import HEBAETransformer
from skhebae.data import StoredTable
from skhebae.likelihoods import GaussianLikelihood

RNG = np.random.default_rng(0)
# Multiples of 1/8: the same in every type of number.
X = np.rint(8 * RNG.normal(size=(60, 2)) @ RNG.normal(size=(2, 5))) / 8
COUNTS = RNG.poisson(3.0, (60, 5))


def need(name):
    return pytest.importorskip(name)


def with_value(value, dtype=object):
    table = X.astype(dtype)
    table[3, 2] = value
    return table


def frame_with(column):
    return pd.DataFrame({"when": column, **{f"x{j}": X[:, j] for j in range(1, 5)}})


def masked(table, *, some):
    mask = np.zeros(table.shape, dtype=bool)
    mask[3, 2] = some
    return np.ma.masked_array(table, mask)


def sparse_objects():
    table = sparse.csr_matrix(X)
    table.data = table.data.astype(object)
    return table


USED = {
    "list": lambda _: X.tolist(),
    "tuple of tuples": lambda _: tuple(map(tuple, X)),
    "list of arrays": lambda _: list(X),
    "list of tensors": lambda _: list(torch.from_numpy(X)),
    "list of masked arrays": lambda _: list(masked(X, some=False)),
    "deque": lambda _: deque(X.tolist()),
    "memoryview": lambda _: memoryview(X),
    "objects": lambda _: X.astype(object),
    "Fractions": lambda _: np.vectorize(Fraction, otypes=[object])(X),
    "Decimals": lambda _: np.vectorize(Decimal, otypes=[object])(X),
    "big-endian": lambda _: X.astype(">f8"),
    "half": lambda _: X.astype(np.float16),
    "long double": lambda _: X.astype(np.longdouble),
    "masked, none of it": lambda _: masked(X, some=False),
    "tensor": lambda _: torch.from_numpy(X),
    "tensor with gradients": lambda _: torch.from_numpy(X).requires_grad_(),
    "parameter": lambda _: nn.Parameter(torch.from_numpy(X)),
    "half tensor": lambda _: torch.from_numpy(X).half(),
    "bfloat16": lambda _: torch.from_numpy(X).bfloat16(),
    "frame of floats that may lack": lambda _: pd.DataFrame(X).astype("Float64"),
    "frame of objects": lambda _: pd.DataFrame(X).astype(object),
    "frame of arrow": lambda _: need("pyarrow") and pd.DataFrame(X).astype("float64[pyarrow]"),
    "sparse frame": lambda _: pd.DataFrame.sparse.from_spmatrix(sparse.csr_matrix(X)),
    "polars": lambda _: need("polars").DataFrame(X),
    "arrow": lambda _: need("pyarrow").table({str(j): X[:, j] for j in range(5)}),
    "xarray": lambda _: need("xarray").DataArray(X),
    "sparse objects": lambda _: sparse_objects(),
    "sparse long double": lambda _: sparse.csr_matrix(X.astype(np.longdouble)),
    **{
        f"{kind}{of}": lambda _, kind=kind, of=of: getattr(sparse, f"{kind}_{of}")(X)
        for kind in ("coo", "csc", "csr", "bsr", "dia", "lil", "dok")
        for of in ("matrix", "array")
    },
    "dask": lambda _: need("dask.array").from_array(X, chunks=(20, 2)),
    "dask of long doubles": lambda _: need("dask.array").from_array(X.astype(np.longdouble)),
    "dask of objects": lambda _: need("dask.array").from_array(X.astype(object), chunks=20),
    "dask, masked": lambda _: need("dask.array").from_array(masked(X, some=False), asarray=False),
    "HDF5": lambda folder: hdf5(folder)["X"],
    "zarr": lambda folder: zarr_group(folder)["X"],
}


def X_of(table):  # noqa: N802
    return torch.from_numpy(table)


def hdf5(folder):
    file = need("h5py").File(folder / "file.h5", "w")
    file["X"] = X
    file["text"] = np.full((60, 5), b"a")
    file["cube"] = X.reshape(60, 5, 1)
    return file


def closed_hdf5(folder):
    with hdf5(folder) as file:
        return file["X"]


def zarr_group(folder):
    group = need("zarr").open_group(folder / "group.zarr", mode="w")
    group["X"] = X
    return group


@pytest.fixture(scope="module")
def model(quick):
    return HEBAETransformer(**{**quick, "n_components": 2}).fit(X)


@pytest.mark.parametrize("kind", USED)
# polars' and pyarrow's own columns have names; those of the model's table have none.
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_what_is_used_is_used_correctly(model, quick, tmp_path, kind):
    table = USED[kind](tmp_path)
    tolerance = 0.05 if kind in ("bfloat16",) else 1e-5
    assert_allclose(model.transform(table), model.transform(X), atol=tolerance)
    fresh = HEBAETransformer(**quick).partial_fit(table)
    assert_allclose(fresh.fitted_.scaling.location, X.mean(axis=0), atol=tolerance)
    assert fresh.fitted_.scaling.location.dtype == np.float64


class Endless:
    """What asks for its items one after another never ends."""

    def __len__(self):
        return 60

    def __getitem__(self, i):
        raise AssertionError("somebody asked for an item")


class EndlessDataset(Endless, Dataset):
    pass


def anndata_of(table):
    return need("anndata").AnnData(table)


def sampled_anndata(folder):
    anndata = need("anndata")
    anndata_of(sparse.csr_matrix(X)).write_h5ad(folder / "cells.h5ad")
    return anndata, folder / "cells.h5ad"


def group_of_sparse(folder):
    _, path = sampled_anndata(folder)
    return need("h5py").File(path)["X"]


def backed(folder):
    anndata, path = sampled_anndata(folder)
    return anndata.read_h5ad(path, backed="r")


ANNDATA = r"Pass its matrix, X\.X or .*skhebae\.tl\.hebae"
#: All ways in which users write that an entry is missing.
MISSING = {
    "NA": lambda: with_value(pd.NA),
    "NA in lists": lambda: with_value(pd.NA).tolist(),
    "NaT": lambda: with_value(pd.NaT),
    "Nothing": lambda: with_value(None),
    "NaN as a decimal": lambda: with_value(Decimal("nan")),
    "frame of objects with NA": lambda: pd.DataFrame(with_value(pd.NA)),
    "frame of objects with None": lambda: pd.DataFrame(with_value(None)),
    "floats that lack one": lambda: pd.DataFrame(with_value(pd.NA)).astype("Float64"),
    "integers that lack one": lambda: pd.DataFrame(np.rint(X)).astype("Int64").mask(X > 1.0),
    "arrow that lacks one": lambda: arrow_with_null(),
    "polars with null": lambda: need("polars").DataFrame(
        {"a": [1.0, None, 3.0], "b": [1.0, 2.0, 4.0]}
    ),
    "masked": lambda: masked(X, some=True),
    "masked integers": lambda: masked(COUNTS, some=True),
    "masked rows": lambda: list(masked(X, some=True)),
    "masked objects": lambda: masked(X.astype(object), some=True),
    "masked dask": lambda: need("dask.array").from_array(masked(X, some=True), asarray=False),
    "sparse NaN": lambda: sparse.csr_matrix(with_value(np.nan, float)),
}
REFUSED = {
    "AnnData": (lambda _: anndata_of(X), rf"X is an AnnData.*{ANNDATA}"),
    "backed AnnData": (backed, ANNDATA),
    "view of an AnnData": (lambda _: anndata_of(X)[:20], ANNDATA),
    "raw": (lambda _: with_raw().raw, ANNDATA),
    "AnnData in a list": (lambda _: [anndata_of(X)], r"items are of type AnnData.*X\[0\]\.X"),
    "layers": (lambda _: with_raw().layers, r"Pass one of its parts, X\['counts'\]"),
    "dict": (lambda _: {"X": X}, r"X is a dict.*Pass one of its parts, X\['X'\]"),
    "OrderedDict": (lambda _: OrderedDict(y=0, data=X), r"X\['data'\] for example: it has 'y', 'd"),
    "UserDict": (lambda _: UserDict(table=X), r"X\['table'\]"),
    "empty dict": (lambda _: {}, "it has none"),
    "Bunch": (lambda _: load_iris(), r"X\['data'\]"),
    "xarray's Dataset": (lambda _: need("xarray").Dataset({"X": (("a", "b"), X)}), r"X\['X'\]"),
    "HDF5 file": (hdf5, r"X is a File.*X\['X'\] for example: it has 'X', 'cube', 'text'"),
    "closed HDF5": (closed_hdf5, "Its file is closed. Open it again"),
    "HDF5 of text": (lambda folder: hdf5(folder)["text"], "bytes/strings"),
    "HDF5 of cubes": (lambda folder: hdf5(folder)["cube"], r"shape \(60, 5, 1\).*Reshape"),
    "zarr group": (zarr_group, r"X is a Group.*X\['X'\]"),
    "sparse group": (group_of_sparse, r"anndata\.io\.sparse_dataset\(X\)"),
    "TensorDataset": (
        lambda _: TensorDataset(X_of(X)),
        r"X\.tensors\[0\] of a TensorDataset.*Data",
    ),
    "Dataset": (lambda _: EndlessDataset(), "is an EndlessDataset.*as one tensor.*DataLoader"),
    "Subset": (lambda _: Subset(EndlessDataset(), [0]), "DataLoader"),
    "ConcatDataset": (lambda _: ConcatDataset([EndlessDataset()]), "DataLoader"),
    "items without end": (lambda _: Endless(), "is an Endless.*Pass an array"),
    "a list of such": (lambda _: [Endless()], "items are of type Endless.*Pass an array"),
    "module": (lambda _: nn.Linear(2, 2), "is a Linear.*Pass an array"),
    "function": (lambda _: len, "Pass an array"),
    "class": (lambda _: np.ndarray, "Pass an array"),
    "set": (lambda _: {1, 2}, "is a set.*Pass an array"),
    "None": (lambda _: None, "Pass an array"),
    "path": (lambda _: Path("table.csv"), "Read the file first"),
    "name of a file": (lambda _: "table.csv", "is a str.*Read the file first"),
    "bytes": (lambda _: b"table", "Read the file first"),
    "open file": (lambda _: io.BytesIO(b"1,2\n3,4"), "is a BytesIO.*Read the file first"),
    "dask frame": (lambda _: dask_frame(), r"Call X\.compute\(\)"),
    "dask delayed": (lambda _: need("dask").delayed(np.ones)((3, 2)), r"Call X\.compute\(\)"),
    "dask bag": (lambda _: need("dask.bag").from_sequence(X.tolist()), r"Call X\.compute\(\)"),
    "dask of unknown rows": (lambda _: unknown_rows(), r"Call X\.compute_chunk_sizes\(\)"),
    "lazy polars": (lambda _: need("polars").DataFrame(X).lazy(), r"Call X\.collect\(\)"),
    "records": (
        lambda _: pd.DataFrame(X).to_records(),
        r"fields index.*structured_to_unstructured",
    ),
    "table and labels": (
        lambda _: (X, X[:, 0]),
        r"items are tables. Pass one of them, such as X\[0\]",
    ),
    "list of tables": (lambda _: [X, X], r"numpy\.concatenate\(X\); partial_fit takes iter\(X\)"),
    "list of frames": (lambda _: [pd.DataFrame(X)] * 2, "items are tables"),
    "list of sparse": (lambda _: [sparse.csr_matrix(X)] * 2, "items are tables"),
    "list of dicts": (
        lambda _: [{"a": 1.0}] * 3,
        r"items are of type dict.*pandas\.DataFrame\(X\)",
    ),
    "rows of two lengths": (
        lambda _: [[1.0, 2.0], [3.0]],
        "rows of different lengths.*the same number",
    ),
    "images": (
        lambda _: np.zeros((8, 1, 4, 4)),
        r"dim 4.*reshape\(len\(X\), -1\).*image_shape=\(1, 4, 4\)",
    ),
    "images as tensors": (lambda _: torch.zeros(8, 1, 4, 4), r"dim 4.*image_shape=\(1, 4, 4\)"),
    "column": (lambda _: pd.Series(X[:, 0]), "Pass a DataFrame"),
    "array of the standard library": (lambda _: array.array("d", [1.0, 2.0]), "Reshape your data"),
    "matrix": (lambda _: np.matrix(X), "np.asarray"),
    "sparse tensor": (lambda _: X_of(X).to_sparse(), r"layout torch\.sparse_coo.*to_dense"),
    "quantised": (
        lambda _: torch.quantize_per_tensor(X_of(X).float(), 0.1, 0, torch.qint8),
        "dequantize",
    ),
    "nested": (
        lambda _: torch.nested.nested_tensor([torch.zeros(5)] * 2),
        r"nested\. Pass torch\.stack",
    ),
    "meta": (lambda _: torch.zeros(9, 5, device="meta"), "holds no values"),
    "complex": (lambda _: X.astype(complex), "Complex data not supported"),
    "complex objects": (lambda _: X.astype(complex).astype(object), "not numbers.*complex"),
    "long complex": (lambda _: X.astype(np.clongdouble), "Complex data not supported"),
    "sparse complex": (
        lambda _: sparse.csr_matrix(X.astype(complex)),
        "Complex data not supported",
    ),
    "complex tensor": (lambda _: X_of(X).to(torch.complex64), "Complex data not supported"),
    "dates": (lambda _: COUNTS.astype("datetime64[D]"), "datetime64.*dates to days"),
    "durations": (lambda _: COUNTS.astype("timedelta64[s]"), "timedelta64.*not a number"),
    "column of dates": (
        lambda _: frame_with(pd.date_range("2020", periods=60)),
        r"'when' \(datetime64\[ns\]\).*days",
    ),
    "dates with a zone": (
        lambda _: frame_with(pd.date_range("2020", periods=60, tz="UTC")),
        "'when'.*days",
    ),
    "column of durations": (
        lambda _: frame_with(pd.to_timedelta(np.arange(60), "D")),
        "'when'.*timedelta",
    ),
    "periods": (lambda _: frame_with(pd.period_range("2020", periods=60)), "'when'.*period"),
    "intervals": (lambda _: frame_with(pd.interval_range(0, 60)), "'when'.*interval"),
    "dates in polars": (
        lambda _: need("polars").from_pandas(frame_with(pd.date_range("2020", periods=60))),
        "'when'",
    ),
    "dates in arrow": (
        lambda _: need("pyarrow").table(frame_with(pd.date_range("2020", periods=60))),
        "'when'",
    ),
    "dates as objects": (
        lambda _: frame_with(pd.Series([pd.Timestamp("2020")] * 60, dtype=object)),
        "not numbers.*Encode",
    ),
    "categories": (
        lambda _: frame_with(pd.Categorical(["a", "b"] * 30)),
        "not numbers.*OneHotEncoder",
    ),
    "columns of one name": (
        lambda _: pd.DataFrame(X, columns=list("aabcd")),
        "one name: 'a'. Rename",
    ),
    "text": (lambda _: frame_with(["x"] * 60), "not numbers.*OneHotEncoder"),
    "text of pandas": (
        lambda _: frame_with(pd.array(["x"] * 60, dtype="string")),
        "not numbers.*OneHot",
    ),
    "array of text": (lambda _: X.astype(str), "bytes/strings"),
    "array of bytes": (lambda _: X.astype("S"), "bytes/strings"),
    "arrays in an array": (lambda _: with_value(np.zeros(3)), "not numbers.*array element"),
    "huge integers": (lambda _: with_value(10**400), "too large.*larger unit"),
    "beyond double": (lambda _: X.astype(np.longdouble) * np.longdouble("1e400"), "infinity"),
}
if np.finfo(np.longdouble).max == np.finfo(np.float64).max:  # as on Windows
    del REFUSED["beyond double"]


def with_raw():
    adata = anndata_of(X)
    adata.layers["counts"] = X
    adata.raw = adata
    return adata


def dask_frame():
    need("dask.dataframe")
    from dask.dataframe import from_pandas

    return from_pandas(pd.DataFrame(X, columns=list("abcde")), npartitions=2)


def unknown_rows():
    table = need("dask.array").from_array(X, chunks=(20, 5))
    return table[table[:, 0] > -100.0]


def arrow_with_null():
    need("pyarrow")
    return pd.DataFrame(with_value(pd.NA)).astype("float64[pyarrow]")


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*(nested tensors|quantize_per_tensor):UserWarning")
@pytest.mark.filterwarnings("ignore:X has feature names:UserWarning")
def test_what_is_refused_is_refused_with_the_cure(quick, model, tmp_path, kind):
    make, message = REFUSED[kind]
    table = make(tmp_path)
    estimator = HEBAETransformer(**{**quick, "likelihood": "gaussian"})
    for method in (estimator.fit, estimator.partial_fit, model.transform, model.score_samples):
        with pytest.raises((TypeError, ValueError), match=rf"(?s){message}"):
            method(table)
    assert "fitted_" not in vars(estimator)


@pytest.mark.parametrize("kind", sorted(MISSING))
def test_all_that_stands_for_a_missing_entry_is_taken(quick, kind):
    table = MISSING[kind]()
    assert np.isfinite(HEBAETransformer(**quick).fit(table).transform(table)).all()


def test_families_that_need_complete_rows_say_so(quick):
    class Complete(GaussianLikelihood):
        accepts_missing = False

    estimator = HEBAETransformer(**quick, likelihood=Complete)
    for table in (with_value(np.nan, float), pd.DataFrame(with_value(pd.NA))):
        with pytest.raises(ValueError, match=r"contains NaN.*SimpleImputer"):
            estimator.fit(table)


@pytest.mark.parametrize("kind", ["dict", "TensorDataset", "AnnData", "images"])
def test_codes_are_tables_too(model, tmp_path, kind):
    make, message = REFUSED[kind]
    with pytest.raises((TypeError, ValueError), match=message.replace("X", "Z").split(".*")[0]):
        model.inverse_transform(make(tmp_path))


def test_masked_entries_in_a_stored_table_are_missing():
    array = pytest.importorskip("dask.array")
    table = StoredTable(array.from_array(masked(COUNTS, some=True), asarray=False, chunks=20))
    expected = COUNTS.astype(float)
    expected[3, 2] = np.nan
    assert_array_equal(table[:60], expected)


def flat_encoder(shape, n_outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(int(np.prod(shape)), n_outputs))


@pytest.mark.parametrize("form", [np.asarray, torch.from_numpy])
def test_images_of_the_estimators_shape_are_flattened(brief, form):
    images = np.random.default_rng(0).normal(size=(40, 1, 4, 4)).astype(np.float32)
    params = {**brief, "encoder": flat_encoder, "image_shape": (1, 4, 4)}
    expected = HEBAETransformer(**params).fit(images.reshape(40, -1))
    model = HEBAETransformer(**params).fit(form(images))
    codes = expected.transform(images.reshape(40, -1))
    assert_array_equal(model.transform(form(images)), codes)
    assert_array_equal(model.inverse_transform(codes), expected.inverse_transform(codes))
    with pytest.raises(ValueError, match=r"dim 4.*image_shape=\(4, 4, 1\)"):
        model.transform(form(images.reshape(40, 4, 4, 1)))


def test_a_loader_of_images_with_targets(brief):
    images = torch.randn(64, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(images, torch.zeros(64)), 32)
    params = {**brief, "encoder": flat_encoder, "image_shape": (1, 4, 4)}
    model = HEBAETransformer(**params).partial_fit(loader)
    assert model.fitted_.moments.n_rows == 64
    with pytest.raises(ValueError, match=r"dim 4(?s:.*)In item 0"):
        HEBAETransformer(**brief).partial_fit(loader)
