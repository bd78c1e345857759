"""Use a fitted model on an AnnData: `project`, `denoise`, `sample`, `score`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse
from sklearn.utils.validation import check_is_fitted

from skhebae.data import Matrix
from skhebae.estimators import BaseAutoencoder
from skhebae.exceptions import MissingGenesWarning, warn_caller
from skhebae.fitted.labels import AVERAGE, check_size_factor
from skhebae.tl.defaults import AS_FITTED, Default
from skhebae.tl.matrices import (
    by_blocks,
    check_adata,
    column_of,
    first_names,
    import_anndata,
    matrix_of,
    refuse_twins,
)
from skhebae.tl.target import check_key, check_target, target_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Share of the model's genes that may be missing, by default.
MAX_MISSING = 0.2


class Genes(NamedTuple):
    """Where the genes of a model stand in an AnnData.

    Attributes
    ----------
    columns : ndarray of int of shape (n_found,)
        Columns of the AnnData, in the order of the model's genes.
    found : ndarray of bool of shape (n_features,)
        Which genes of the model are there.
    """

    columns: NDArray[np.intp]
    found: NDArray[np.bool_]


def project(
    query: AnnData,
    model: BaseAutoencoder,
    *,
    layer: str | Default | None = AS_FITTED,
    missing: Literal["infer", "zero", "error"] = "infer",
    max_missing: float = MAX_MISSING,
    key_added: str | None = None,
    copy: bool = False,
) -> Any:
    """Map new cells into the embedding of a fitted model.

    The place of a cell depends only on the cell. Genes are matched by name, in any order, and
    other genes are ignored. Batch labels are only needed if the model has
    ``encode_batch=True``.

    Parameters
    ----------
    query : AnnData
        In memory, backed or lazy. It is read in blocks of cells.
    model : HEBAETransformer, VAETransformer or WAETransformer
        From `hebae`, `vae` or `wae` with ``return_model=True``, or loaded.
    layer : str or None, optional
        Layer to use, None for X. By default that of the cells of the fit.
    missing : {"infer", "zero", "error"}, default="infer"
        What to do about genes of the model that `query` lacks. "infer" treats them as missing
        entries, which the encoder sees as expected given the other genes. "zero" treats them as
        not expressed, and "error" raises.
    max_missing : float, default=0.2
        Share of the model's genes that may be missing.
    key_added : str, optional
        Key of obsm instead of that of the fit, "X_hebae" for example.
    copy : bool, default=False
        Write to a copy of `query` and return it.

    Returns
    -------
    None or AnnData
        Sets obsm["X_hebae"] (n_obs, n_comps).

    Raises
    ------
    KeyError, TypeError, ValueError
        If `query` does not match the model. It is then unchanged.

    Warns
    -----
    MissingGenesWarning
        If genes are missing.
    """
    fields = fitted_fields(model)
    check_adata(query, "query")
    check_target(query, copy=copy, name="query")
    key = check_key(key_added, f"X_{fields['name']}")
    genes = match_genes(query, fields["var_names"], missing, max_missing)
    batch = own_batches(query, model) if model.fitted_.encodes_batch else None
    X = matrix_of(query, fields["layer"] if isinstance(layer, Default) else layer)

    def encode(block: Matrix, rows: slice) -> NDArray[np.float32]:
        labels = None if batch is None else batch[rows]
        if genes.found.all():
            return np.asarray(model.transform(block, batch=labels))
        return transform_partial(model, block, genes, missing, labels)

    target = target_of(query, copy=copy)
    with model.fitted_.watched():
        codes = by_blocks(X, genes.columns, encode)
    target.obsm[key] = codes
    return target if copy else None


def denoise(
    adata: AnnData,
    model: BaseAutoencoder,
    *,
    layer: str | Default | None = AS_FITTED,
    batch: str | ArrayLike | Default = AS_FITTED,
    size_factor: float | None = None,
    key_added: str | None = None,
    copy: bool = False,
) -> Any:
    """Write decoded means of cells to a layer.

    Parameters
    ----------
    adata : AnnData
        With all genes of the model.
    model : HEBAETransformer, VAETransformer or WAETransformer
        As for `project`.
    layer : str or None, optional
        Layer to encode, None for X. By default that of the fit.
    batch : label or array-like of shape (n_obs,), optional
        Batch to decode for. By default the batch of each cell. One label for all cells, or
        "average", removes differences between batches.
    size_factor : float, optional
        Total counts of every decoded cell, for example 1e4. By default the total, or size
        factor, of each cell. For counts only.
    key_added : str, optional
        Name of the layer, by default "hebae_denoised" and the like.
    copy : bool, default=False
        Write to a copy of `adata` and return it.

    Returns
    -------
    None or AnnData
        Sets layers["hebae_denoised"] (n_obs, n_vars), float32, with NaN for genes that the
        model was not fitted to.

    Raises
    ------
    KeyError, TypeError, ValueError
        If `adata` does not match the model. It is then unchanged.
    """
    fields = fitted_fields(model)
    check_adata(adata)
    check_target(adata, copy=copy)
    key = check_key(key_added, f"{fields['name']}_denoised")
    genes = match_genes(adata, fields["var_names"], "error", 0.0)
    labels = own_batches(adata, model) if isinstance(batch, Default) else batch
    if labels is not None and not (isinstance(labels, str) and labels == AVERAGE):
        labels = model.fitted_.batch_labels(labels, adata.n_obs)
    factors = own_size_factors(adata, model) if size_factor is None else size_factor
    if factors is not None:
        factors = check_size_factor(factors, adata.n_obs)
    encoder_labels = own_batches(adata, model) if model.fitted_.encodes_batch else None

    def decode(block: Matrix, rows: slice) -> NDArray[np.float32]:
        own = None if encoder_labels is None else encoder_labels[rows]
        codes = np.asarray(model.transform(block, batch=own))
        exposure = select_rows(factors, rows)
        if exposure is None:
            exposure = model.fitted_.size_factors(block)
        own_labels = select_rows(labels, rows)
        decoded: NDArray[np.float32] = model.inverse_transform(
            codes, batch=own_labels, size_factor=exposure
        )
        return decoded

    X = matrix_of(adata, fields["layer"] if isinstance(layer, Default) else layer)
    target = target_of(adata, copy=copy)
    with model.fitted_.watched():
        values = by_blocks(X, genes.columns, decode)
    decoded = np.full(adata.shape, np.nan, dtype=values.dtype)
    decoded[:, genes.columns] = values
    target.layers[key] = decoded
    return target if copy else None


def sample(
    model: BaseAutoencoder,
    n_obs: int = 1,
    *,
    latent: Literal["mixture", "gaussian", "prior"] = "mixture",
    noise: bool = True,
    batch: str | ArrayLike | None = None,
    size_factor: float | None = None,
    random_state: int | np.random.RandomState | None = 0,
) -> AnnData:
    """Generate cells as an AnnData.

    Parameters
    ----------
    model : HEBAETransformer, VAETransformer or WAETransformer
        As for `project`.
    n_obs : int, default=1
        Cells to generate.
    latent : {"mixture", "gaussian", "prior"}, default="mixture"
        Where codes come from, as in `HEBAETransformer.sample`.
    noise : bool, default=True
        Whether to draw expression, such as counts, from p(x | z) instead of taking its mean.
    batch : label or array-like of shape (n_obs,), optional
        Batch of the cells, or "average". Needed if the model has batches.
    size_factor : float, optional
        Total counts of every cell. By default drawn from those of the cells of the fit.
    random_state : int, RandomState instance or None, default=0
        Seed of the draw.

    Returns
    -------
    AnnData
        X (n_obs, n_genes), sparse for counts. obs has the batch under the model's `batch_key`,
        with the type of that column in the fit, and the size factors, so the cells can be
        scored and projected.

    Raises
    ------
    TypeError, ValueError
        As `HEBAETransformer.sample`.
    """
    fields = fitted_fields(model)
    anndata = import_anndata()
    rows = model.sample(
        n_obs, latent, random_state, noise=noise, batch=batch, size_factor=size_factor
    )
    is_sparse = noise and model.fitted_.likelihood.sparse_draws
    generated = anndata.AnnData(sparse.csr_matrix(rows) if is_sparse else rows)
    generated.var_names = fields["var_names"].astype(str)
    if batch is not None:
        generated.obs[fields["batch_key"] or "batch"] = batch_column(model, batch, n_obs)
    if fields["size_factor_key"] is not None:
        own = model.fitted_.size_factors(rows) if size_factor is None else size_factor
        generated.obs[fields["size_factor_key"]] = own
    return generated


def score(
    adata: AnnData,
    model: BaseAutoencoder,
    *,
    layer: str | Default | None = AS_FITTED,
    key_added: str | None = None,
    copy: bool = False,
) -> Any:
    """Write how typical each cell is, a likelihood bound in nats, to obs.

    Parameters
    ----------
    adata : AnnData
        With all genes of the model, and the batches and size factors of the fit.
    model : HEBAETransformer, VAETransformer or WAETransformer
        As for `project`.
    layer : str or None, optional
        Layer to use, None for X. By default that of the fit.
    key_added : str, optional
        Name of the column, by default "hebae_score" and the like.
    copy : bool, default=False
        Write to a copy of `adata` and return it.

    Returns
    -------
    None or AnnData
        Sets obs["hebae_score"], as `HEBAETransformer.score_samples` defines it. Cells with many
        counts have lower values than cells with few, so compare cells of similar depth.

    Raises
    ------
    KeyError, TypeError, ValueError
        If `adata` does not match the model. It is then unchanged.
    """
    fields = fitted_fields(model)
    check_adata(adata)
    check_target(adata, copy=copy)
    key = check_key(key_added, f"{fields['name']}_score")
    genes = match_genes(adata, fields["var_names"], "error", 0.0)
    labels, factors = own_batches(adata, model), own_size_factors(adata, model)

    def scored(block: Matrix, rows: slice) -> NDArray[np.float32]:
        return model.score_samples(
            block, batch=select_rows(labels, rows), size_factor=select_rows(factors, rows)
        )

    X = matrix_of(adata, fields["layer"] if isinstance(layer, Default) else layer)
    target = target_of(adata, copy=copy)
    with model.fitted_.watched():
        values = by_blocks(X, genes.columns, scored)
    target.obs[key] = values
    return target if copy else None


def fitted_fields(model: BaseAutoencoder) -> dict[str, Any]:
    """Return the names of genes, layer and keys that a model was fitted to.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        If `model` is not one of ours, or was fitted to a plain matrix.
    """
    if not isinstance(model, BaseAutoencoder):
        raise TypeError(
            f"model must be what skhebae.tl.hebae(adata, return_model=True) returns, got "
            f"{type(model).__name__}."
        )
    check_is_fitted(model)
    fields = model.fitted_.annotations
    if fields is None:
        raise ValueError(
            "The model was fitted to a plain matrix and knows no genes. Fit it by "
            "skhebae.tl.hebae(adata, return_model=True), or use its own methods."
        )
    return fields


def match_genes(adata: AnnData, names: NDArray[Any], missing: str, max_missing: float) -> Genes:
    """Find the model's genes by name.

    Raises
    ------
    ValueError
        If a name is not unique, or too many are missing.

    Warns
    -----
    MissingGenesWarning
    """
    if missing not in ("infer", "zero", "error"):
        raise ValueError(f"missing={missing!r} must be 'infer', 'zero' or 'error'.")
    present = adata.var_names.astype(str)
    refuse_twins(present[present.duplicated()].intersection(names).unique())
    # Other genes may have several columns: take the first of each name.
    first = np.flatnonzero(~present.duplicated())
    index = present[first].get_indexer(names)
    columns = np.where(index < 0, -1, first[index])
    found = columns >= 0
    absent = [str(name) for name in names[~found]]
    if absent:
        what = (
            f"{len(absent)} of the model's {len(names)} genes are not in var_names: "
            f"{first_names(absent)}"
        )
        if missing == "error":
            raise ValueError(f"{what}. All are needed here.")
        if len(absent) > max_missing * len(names):
            raise ValueError(
                f"{what}. At most max_missing={max_missing:.0%} may be missing. Are the names of "
                "the same kind (symbols or Ensembl identifiers)?"
            )
        warn_caller(
            f"{what}. They count as {'unknown' if missing == 'infer' else 'zero'} "
            f"(missing={missing!r}).",
            MissingGenesWarning,
        )
    return Genes(columns[found], found)


def transform_partial(
    model: BaseAutoencoder,
    block: Matrix,
    genes: Genes,
    missing: str,
    labels: NDArray[Any] | None,
) -> NDArray[np.float32]:
    """Return the codes of rows that lack some of the model's genes."""
    rows = complete_rows(block, genes, missing)
    return model.fitted_.encode(model.validate_rows(rows), labels)


def complete_rows(block: Matrix, genes: Genes, missing: str) -> NDArray[Any]:
    """Return rows with a column per gene of the model, where some have no values."""
    dense = block.toarray() if sparse.issparse(block) else np.asarray(block)
    # In its own precision: values may be small next to their offset.
    dtype = np.result_type(dense.dtype, np.float32)
    lacking = np.nan if missing == "infer" else 0.0
    rows = np.full((block.shape[0], len(genes.found)), lacking, dtype=dtype)
    rows[:, genes.found] = dense
    return rows


def own_batches(adata: AnnData, model: BaseAutoencoder) -> NDArray[Any] | None:
    """Return the labels of the cells' own batches; None if the model has none.

    Raises
    ------
    KeyError, ValueError
        If they are not there, or not those of the fit.
    """
    key = fitted_fields(model)["batch_key"]
    if key is None:
        return None
    return model.fitted_.batch_labels(column_of(adata, key, "batch_key"), adata.n_obs)


def own_size_factors(adata: AnnData, model: BaseAutoencoder) -> NDArray[Any] | None:
    """Return the size factors of the cells; None if the model was not given any."""
    key = fitted_fields(model)["size_factor_key"]
    if key is None:
        return None
    return check_size_factor(column_of(adata, key, "size_factor_key"), adata.n_obs)


def batch_column(model: BaseAutoencoder, batch: str | ArrayLike, n_obs: int) -> Any:
    """Return the batches of generated cells, of the type of the column of the fit."""
    if isinstance(batch, str) and batch == AVERAGE:
        return np.full(n_obs, AVERAGE, dtype=object)
    labels = model.fitted_.batch_labels(batch, n_obs)
    if fitted_fields(model).get("batch_dtype") != "category":  # version 0.1 did not say
        return labels
    import pandas

    # As lists, of which any pandas makes the type that it has for text.
    return pandas.Categorical(labels.tolist(), categories=model.batches_.tolist())


def select_rows(values: Any, rows: slice) -> Any:
    """Select the values of `rows`; return a single value, or None, as it is."""
    return values if values is None or np.ndim(values) == 0 else np.asarray(values)[rows]
