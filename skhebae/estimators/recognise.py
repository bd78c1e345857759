"""What users pass in place of a table: used where its meaning is plain, else refused at once.

Types of optional libraries are known by the names of their modules: none is imported here.
"""

from __future__ import annotations

import io
import os
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from numbers import Number
from typing import Any

import numpy as np
import torch
from scipy import sparse

from skhebae.data import Checked, StoredTable, is_stored, is_stream, without_mask

#: Number of keys or columns that a message shows.
SHOWN = 5

#: Beginnings of the names of dtypes of time, in pandas, polars and pyarrow.
TIMES = ("date", "duration", "interval", "period", "time")

#: By these numpy reads an object as a whole. Any other it asks for one item after another, which
#: may have no end.
ARRAY_SIGNS = ("__array__", "__array_interface__", "__dataframe__")

#: What errors of numpy and scikit-learn mean, by what they say, and the cure.
MEANINGS = {
    "inhomogeneous": ("rows of different lengths", "Give each the same number of values."),
    "too large": ("numbers that are too large", "Use a larger unit."),
    **dict.fromkeys(
        ("could not convert", "argument must be", "DType", "array element"),
        (
            "columns that are not numbers",
            "Pass a frame with likelihood='auto', or encode them first, for example with "
            "OneHotEncoder in a ColumnTransformer.",
        ),
    ),
}


def as_table(X: Any, name: str = "X", image_shape: Sequence[int] | None = None) -> Any:
    """Return what scikit-learn's validation takes: an array, a sparse matrix, a frame or a list.

    Parameters
    ----------
    X : object
    name : str
        What messages call it.
    image_shape : sequence of int, optional
        Rows of this shape are flattened.

    Raises
    ------
    TypeError, ValueError
        If it is no table; says what to pass instead.
    """
    if type(X) is np.ndarray and X.ndim == 2 and X.dtype.kind in "fiub" and X.dtype.itemsize <= 8:
        return X
    refuse_no_table(X, name)
    if isinstance(X, Checked):
        return Checked(as_table(X.X, name), X.likelihoods)
    if isinstance(X, StoredTable) or is_stored(X):
        return X
    if isinstance(X, torch.Tensor):
        X = from_tensor(X, name)
    elif isinstance(X, list | tuple) and any(isinstance(row, np.ma.MaskedArray) for row in X):
        X = np.ma.array(X)
    if isinstance(X, np.ndarray):
        return from_array(X, name, image_shape)
    if sparse.issparse(X):
        return X.astype(np.float64) if X.dtype in (np.longdouble, object) else X
    refuse_bad_columns(X, name)
    return without_na(X)


def refuse_no_table(X: Any, name: str = "X") -> None:
    """Refuse what is neither a table nor a stream of tables.

    Raises
    ------
    TypeError
        With what to pass instead.
    """
    cure = what_to_pass(X, name)
    if cure is not None:
        raise TypeError(f"{name} is {named(X)}, which is no table. {cure}")


def what_to_pass(X: Any, name: str) -> str | None:
    """Return the cure for something that is no table; None for what may be one."""
    roots = {base.__module__.split(".")[0] for base in type(X).__mro__}
    if "dask" in roots:
        return None if is_stored(X) else f"Call {name}.compute() first."
    if "h5py" in roots and not X:
        return "Its file is closed. Open it again, and keep it open."
    is_array = isinstance(X, np.ndarray | torch.Tensor) or sparse.issparse(X)
    if is_array or isinstance(X, Checked | StoredTable):
        return None
    if {"anndata", "mudata"} & roots and hasattr(X, "var_names"):
        return (
            f"Pass its matrix, {name}.X or one of its layers, or embed the cells of an AnnData by "
            f"skhebae.tl.hebae."
        )
    if isinstance(X, Mapping) or (hasattr(X, "keys") and not hasattr(X, "shape")):
        return of_mapping(X, name)
    if isinstance(X, str | bytes | os.PathLike | io.IOBase):
        return "Read the file first, for example by numpy.load or pandas.read_csv."
    if "torch" in roots and hasattr(X, "__getitem__") and not isinstance(X, Iterable):
        return (
            f"Pass its rows as one tensor ({name}.tensors[0] of a TensorDataset), or give "
            "partial_fit a DataLoader of it."
        )
    if "polars" in roots and hasattr(X, "collect"):
        return f"Call {name}.collect() first."
    if isinstance(X, list | tuple):
        return of_items(X, name)
    if isinstance(X, Number | Sequence | memoryview) or is_stream(X):
        return None  # what they lack is said later
    if any(hasattr(X, sign) for sign in ARRAY_SIGNS) and not isinstance(X, type):
        return None
    return None if is_stored(X) else "Pass an array, a sparse matrix or a data frame."


def of_mapping(X: Any, name: str) -> str:
    """Return the cure for a mapping, or a group of an HDF5 or zarr file."""
    keys = [key for key in X.keys() if key is not None]  # noqa: SIM118, a group iterates otherwise
    if "csr_matrix" in str(getattr(X, "attrs", {}).get("encoding-type", "")):
        return f"Pass anndata.io.sparse_dataset({name})."
    likely = next((key for key in ("X", "data") if key in keys), keys[0] if keys else "...")
    shown = ", ".join(map(repr, keys[:SHOWN])) + (", ..." if len(keys) > SHOWN else "")
    return f"Pass one of its parts, {name}[{likely!r}] for example: it has {shown or 'none'}."


def of_items(X: Sequence[Any], name: str) -> str | None:
    """Return the cure for a list or tuple whose items are no rows."""
    for kind in set(map(type, X)):
        item = next(item for item in X if type(item) is kind)
        if isinstance(item, Mapping):
            return f"Its items are of type {kind.__name__}. Pass pandas.DataFrame({name})."
        if getattr(item, "ndim", 1) == 2:
            return (
                f"Its items are tables. Pass one of them, such as {name}[0], or "
                f"numpy.concatenate({name}); partial_fit takes iter({name})."
            )
        if item is not None and not isinstance(item, str | bytes | list | tuple):
            cure = what_to_pass(item, f"{name}[0]")
            if cure is not None:
                return f"Its items are of type {kind.__name__}. {cure}"
    return None


def from_tensor(X: torch.Tensor, name: str) -> Any:
    """Return a torch tensor as an array.

    Raises
    ------
    TypeError
        If its values are not stored one by one.
    """
    kind, cure = "", ""
    if X.is_nested:
        kind, cure = "that is nested", f"torch.stack(list({name})), if all rows are of one length"
    elif X.layout != torch.strided:
        kind, cure = f"of layout {X.layout}", f"{name}.to_dense(), or a scipy CSR matrix"
    elif X.is_quantized:
        kind, cure = f"of type {X.dtype}", f"{name}.dequantize()"
    elif X.is_meta:
        kind, cure = "on the device 'meta', which holds no values", "one that does"
    if kind:
        raise TypeError(f"{name} is a torch tensor {kind}. Pass {cure}.")
    try:
        return X.numpy(force=True)
    except TypeError:  # a short type that numpy does not have
        return X.float().numpy(force=True)


def from_array(X: Any, name: str, image_shape: Sequence[int] | None) -> Any:
    """Return an array with plain numbers, NaN where they are missing, in flat rows.

    Raises
    ------
    TypeError, ValueError
        If it has fields, or too many dimensions.
    """
    if X.dtype.names is not None:
        raise TypeError(
            f"{name} is an array with the fields {', '.join(X.dtype.names[:SHOWN])}. Pass "
            f"numpy.lib.recfunctions.structured_to_unstructured({name})."
        )
    if X.ndim > 2:
        if image_shape is None or X.shape[1:] != tuple(image_shape):
            raise ValueError(
                f"Found array with dim {X.ndim}, while dim <= 2 is required: {name} has the shape "
                f"{X.shape}. Pass {name}.reshape(len({name}), -1). An estimator whose encoder= or "
                f"decoder= sees images takes them with image_shape={X.shape[1:]}, too."
            )
        X = X.reshape(len(X), -1)
    X = without_mask(X)
    if X.dtype.kind == "O":
        return without_na(X)
    # More digits, and larger numbers, than torch has.
    with np.errstate(over="ignore"):
        return X.astype(np.float64) if X.dtype == np.longdouble else X


def refuse_bad_columns(X: Any, name: str) -> None:
    """Refuse a frame with columns of one name, or of time, which may become numbers in silence.

    Raises
    ------
    ValueError
        Naming some of them.
    """
    names, types = getattr(X, "columns", None), getattr(X, "dtypes", None)
    if types is None:  # pyarrow
        names, types = (
            getattr(X, "column_names", None),
            getattr(getattr(X, "schema", 0), "types", 0),
        )
    if names is None or not isinstance(types, Iterable):
        return
    twins = [n for n, times in Counter(names).items() if times > 1]
    if twins:
        raise ValueError(
            f"{name} has several columns of one name: {', '.join(map(repr, twins[:SHOWN]))}. "
            "Rename them, or pass the values without names."
        )
    types = list(types)
    times = {kind for kind in set(types) if str(kind).lower().startswith(TIMES)}
    if times:
        found = [f"{n!r} ({t})" for n, t in zip(names, types, strict=True) if t in times]
        raise ValueError(
            f"{name} has columns that are not numbers: {', '.join(found[:SHOWN])}. Convert them "
            "first, for example dates to days since the first one."
        )


def without_na(X: Any) -> Any:
    """Return an object array or a frame of pandas with NaN for pandas' NA and None."""
    pandas = sys.modules.get("pandas")
    if pandas is None:  # then there is no NA
        return X
    if isinstance(X, pandas.DataFrame):
        has_objects = any(str(kind) == "object" for kind in set(X.dtypes))
        return X.astype(object).mask(X.isna(), np.nan) if has_objects else X
    rows = X if isinstance(X, list | tuple) else ()
    if any(value is pandas.NA for row in rows if isinstance(row, list | tuple) for value in row):
        X = np.array(X, dtype=object)
    if isinstance(X, np.ndarray) and (missing := pandas.isna(X)).any():
        X = X.copy()
        X[missing] = np.nan
    return X


def explained(error: Exception, likelihood: str, estimator: str) -> str | None:
    """Return what an error of scikit-learn's validation means, with a cure; None if it says so."""
    text = str(error)
    if any(sign in text for sign in ("contains NaN", "NAType", "NA is ambiguous")):
        return (
            f"Input X contains NaN, and likelihood={likelihood!r} does not take missing values. "
            f"Fill them in first, for example make_pipeline(SimpleImputer(), {estimator}())."
        )
    for sign, (what, cure) in MEANINGS.items():
        if sign in text:
            return f"X has {what} ({error}). {cure}"
    return None


def named(X: Any) -> str:
    """Return the type of an object with its article."""
    kind = type(X).__name__
    return f"{'an' if kind[0] in 'AEIOaeio' else 'a'} {kind}"
