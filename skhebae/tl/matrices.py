"""Matrices of an AnnData that are in memory, backed by a file, or made by dask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from skhebae.data import Checked, Matrix, StoredTable, is_stored
from skhebae.likelihoods import LARGEST_COUNT, LIKELIHOODS, are_counts

if TYPE_CHECKING:
    from anndata import AnnData

Scalar = TypeVar("Scalar", bound=np.generic)

#: Column of var that `mask_var` takes by default, if it is there.
HIGHLY_VARIABLE = "highly_variable"

#: Number of names that an error message or a warning shows.
SHOWN = 5


def import_anndata() -> Any:
    """Import anndata, or say what to install.

    Raises
    ------
    ImportError
        Naming the extra.
    """
    try:
        import anndata
    except ImportError as error:
        raise ImportError(
            "skhebae.tl needs anndata: python -m pip install 'skhebae[anndata]'."
        ) from error
    return anndata


def check_adata(adata: object, name: str = "adata") -> None:
    """Raise unless `adata` is an AnnData.

    Raises
    ------
    TypeError
    """
    if not isinstance(adata, import_anndata().AnnData):
        raise TypeError(
            f"{name} must be an AnnData, got {type(adata).__name__}. For a plain matrix use "
            "HEBAETransformer().fit_transform(X)."
        )


def matrix_of(adata: AnnData, layer: str | None) -> Matrix:
    """Return `layers[layer]`, or X.

    Raises
    ------
    KeyError, ValueError
        If it is not there.
    """
    if layer is None:
        if adata.X is None:
            raise ValueError("adata.X is None. Name the layer to use, for example layer='counts'.")
        return adata.X
    if layer not in adata.layers:
        # From version 0.13 on, anndata counts X as the layer None.
        names = [name for name in adata.layers if name is not None]
        raise KeyError(f"layer={layer!r} is not in adata.layers: {names}. None stands for X.")
    return adata.layers[layer]


def gene_names(adata: AnnData, columns: NDArray[np.intp] | None = None) -> NDArray[Any]:
    """Return the names of all genes, or of some, as text.

    Raises
    ------
    ValueError
        If several of them have one name, by which they could not be found again.
    """
    names = adata.var_names.astype(str)
    names = names if columns is None else names[columns]
    refuse_twins(names[names.duplicated()].unique())
    return np.asarray(names, dtype=object)


def refuse_twins(twins: Sequence[str]) -> None:
    """Raise if there are names of several genes.

    Raises
    ------
    ValueError
        Naming some, and the cure.
    """
    if len(twins):
        raise ValueError(
            f"{len(twins)} names of genes have several columns in var_names: "
            f"{first_names(list(twins))}. Call adata.var_names_make_unique() first."
        )


def gene_mask(adata: AnnData, mask_var: str | Sequence[bool] | None) -> NDArray[np.intp] | None:
    """Return the indices of the genes to use; None stands for all.

    Parameters
    ----------
    adata : AnnData
    mask_var : str, array-like of bool or None
        A column of var, or one value per gene.

    Raises
    ------
    KeyError, ValueError
        If the column is missing, is not boolean, or selects no gene.
    """
    if mask_var is None:
        return None
    if isinstance(mask_var, str):
        if mask_var not in adata.var:
            raise KeyError(f"mask_var={mask_var!r} is not a column of adata.var.")
        mask = np.asarray(adata.var[mask_var])
    else:
        refuse_other_order(adata, mask_var)
        mask = np.asarray(mask_var)
    if mask.dtype == object and all(isinstance(used, bool | np.bool_) for used in mask.flat):
        mask = mask.astype(bool)  # pandas' type of truth that may lack
    if mask.dtype != bool or mask.shape != (adata.n_vars,):
        raise ValueError(
            f"mask_var gives {mask.dtype} values of shape {mask.shape}. It must hold one boolean "
            f"for each of the {adata.n_vars} genes."
        )
    if not mask.any():
        raise ValueError("mask_var selects no gene.")
    return np.flatnonzero(mask)


def refuse_other_order(adata: AnnData, mask_var: Sequence[bool]) -> None:
    """Refuse a series of pandas whose index has the genes in another order.

    Raises
    ------
    ValueError
    """
    index = getattr(mask_var, "index", None)
    names = getattr(index, "tolist", None)
    if names is None or len(mask_var) != adata.n_vars:
        return
    if names() not in (adata.var_names.tolist(), list(range(adata.n_vars))):
        raise ValueError(
            "mask_var is a series whose index is not adata.var_names. Pass "
            "mask_var.reindex(adata.var_names)."
        )


def row_blocks(X: Matrix, columns: NDArray[np.intp] | None) -> Iterator[Matrix]:
    """Yield blocks of rows, in order, of any matrix that AnnData may hold, as ndarray or CSR."""
    X = X.tocsr() if sparse.issparse(X) else X
    yield from StoredTable(X, columns).blocks()


def chosen_columns(X: Matrix, columns: NDArray[np.intp] | None) -> Matrix:
    """Select columns of any matrix that AnnData may hold: ndarray, CSR or `StoredTable`."""
    if is_stored(X):
        return StoredTable(X, columns)
    X = X.tocsr() if sparse.issparse(X) else X
    return X if columns is None else X[:, columns]


def by_blocks(
    X: Matrix,
    columns: NDArray[np.intp] | None,
    function: Callable[[Matrix, slice], NDArray[Scalar]],
) -> NDArray[Scalar]:
    """Apply a row-wise function to a matrix, block by block."""
    parts: list[NDArray[Scalar]] = []
    start = 0
    for block in row_blocks(X, columns):
        parts.append(function(block, slice(start, start + block.shape[0])))
        start += block.shape[0]
    return np.concatenate(parts)


def choose_likelihood(X: Matrix) -> tuple[str, Any]:
    """Choose the likelihood of counts if all entries are integers >= 0, else the Gaussian.

    Returns
    -------
    likelihood : str
    X : ndarray, CSR, Checked or StoredTable
        The matrix, marked so that `fit` need not check its values again.
    """
    name = "negative_binomial"
    if isinstance(X, StoredTable):
        largest = 0.0
        for block in X.blocks(summed=LIKELIHOODS[name].needs_totals):
            if not are_counts(block):
                return "gaussian", X
            largest = max(largest, block.max() if block.shape[0] > 0 else 0.0)
        if largest <= LARGEST_COUNT:
            X.checked.add(name)
        return name, X
    if not are_counts(X):
        return "gaussian", X
    values = X.data if sparse.issparse(X) else np.asarray(X)
    suits = values.size == 0 or values.max() <= LARGEST_COUNT
    return name, Checked(X, frozenset({name})) if suits else X


def column_of(adata: AnnData, key: str, name: str) -> NDArray[Any]:
    """Return the values of a column of obs.

    Raises
    ------
    KeyError
        If it is not there.
    """
    if key not in adata.obs:
        raise KeyError(f"{name}={key!r} is not a column of obs: {list(adata.obs.columns)}.")
    return np.asarray(adata.obs[key])


def first_names(names: Sequence[str]) -> str:
    """Join a few names for a message."""
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
