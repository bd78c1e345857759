"""Find cells that do not belong to those of a fit: `novelty_detector` and `novelty`."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skhebae.conformal import conformal_p_values
from skhebae.data import Checked, Matrix
from skhebae.estimators import (
    BaseAutoencoder,
    HEBAETransformer,
    NoveltyDetector,
    VAETransformer,
    WAETransformer,
)
from skhebae.tl.defaults import AS_FITTED, IF_PRESENT, Default
from skhebae.tl.embedding import RECORDED, dtype_of
from skhebae.tl.matrices import (
    HIGHLY_VARIABLE,
    by_blocks,
    check_adata,
    choose_likelihood,
    chosen_columns,
    column_of,
    gene_mask,
    gene_names,
    matrix_of,
)
from skhebae.tl.model import (
    MAX_MISSING,
    complete_rows,
    match_genes,
    own_batches,
    own_size_factors,
    select_rows,
)
from skhebae.tl.target import check_key, check_target, target_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Key of obs and uns.
NOVELTY = "novelty"

#: Names by which `project` and others call what an autoencoder of a class writes.
NAMES: dict[type[BaseAutoencoder], str] = {
    HEBAETransformer: "hebae",
    VAETransformer: "vae",
    WAETransformer: "wae",
}


def novelty_detector(
    adata: AnnData,
    detector: NoveltyDetector | None = None,
    *,
    layer: str | None = None,
    mask_var: str | Sequence[bool] | Default | None = IF_PRESENT,
    batch_key: str | None = None,
    size_factor_key: str | None = None,
) -> NoveltyDetector:
    """Fit a detector of cells that do not belong to those of `adata`.

    Nothing is written to `adata`. Pass the detector and other cells to `novelty`.

    Parameters
    ----------
    adata : AnnData
        Cells that belong together, in memory, backed or lazy. A few strange ones do little harm.
    detector : NoveltyDetector, optional
        A clone of it is fitted. By default, and if its `autoencoder` is None, the autoencoder is
        that of `hebae`: ten components, seed 0, and "negative_binomial" if all values are
        integers >= 0, else "gaussian". An autoencoder of your own keeps its `likelihood`, so name
        one for counts.
    layer : str, optional
        Layer to use instead of X.
    mask_var : str, array-like of bool or None, optional
        Genes to use: a column of var, one value per gene, or None for all. By default
        var["highly_variable"] if present, else all.
    batch_key : str, optional
        Column of obs with the experimental batch of each cell, which the decoder sees. Cells of
        other batches then cannot be scored.
    size_factor_key : str, optional
        Column of obs with size factors in any unit. By default the totals of the genes
        used.

    Returns
    -------
    NoveltyDetector
        Fitted. Its `autoencoder_` can be used in `project`, `denoise`, `score` and `sample`.

    Raises
    ------
    ImportError
        If anndata is not installed.
    KeyError
        If `layer`, `mask_var`, `batch_key` or `size_factor_key` is not there.
    TypeError, ValueError
        As `NoveltyDetector.fit`, and if `detector` is something else.

    Warns
    -----
    FewRowsWarning
        If there are too few cells for p-values as small as `alpha` of the detector.
    """
    check_adata(adata)
    fitted = NoveltyDetector() if detector is None else clone_of(detector)
    if isinstance(mask_var, Default):
        mask_var = HIGHLY_VARIABLE if HIGHLY_VARIABLE in adata.var else None
    columns = gene_mask(adata, mask_var)
    names = gene_names(adata, columns)
    X = chosen_columns(matrix_of(adata, layer), columns)
    batch = None if batch_key is None else column_of(adata, batch_key, "batch_key")
    size_factor = (
        None if size_factor_key is None else column_of(adata, size_factor_key, "size_factor_key")
    )
    if fitted.autoencoder is None:
        likelihood, X = choose_likelihood(X)
        # The detector takes some of the rows, which a mark of checked values does not let it.
        X = X.X if isinstance(X, Checked) else X
        fitted.set_params(autoencoder=HEBAETransformer(likelihood=likelihood, random_state=0))
    fitted.fit(X, batch=batch, size_factor=size_factor)
    model = fitted.autoencoder_
    model.fitted_ = model.fitted_.annotate(
        {
            "var_names": names,
            "name": NAMES.get(type(model), "autoencoder"),
            "layer": layer,
            "batch_key": batch_key,
            "batch_dtype": dtype_of(adata, batch_key),
            "size_factor_key": size_factor_key,
        }
    )
    return fitted


def novelty(
    adata: AnnData,
    model: NoveltyDetector,
    *,
    layer: str | Default | None = AS_FITTED,
    missing: Literal["infer", "zero", "error"] = "infer",
    max_missing: float = MAX_MISSING,
    key_added: str | None = None,
    copy: bool = False,
) -> Any:
    """Write how strange each cell is, and a p-value, to obs.

    Both depend only on the cell and the detector.

    Parameters
    ----------
    adata : AnnData
        In memory, backed or lazy, with the batches and size factors of the fit. It is read in
        blocks of cells. Genes are matched by name, in any order, and others are ignored.
    model : NoveltyDetector
        From `novelty_detector`, or loaded.
    layer : str or None, optional
        Layer to use, None for X. By default that of the cells of the fit.
    missing : {"infer", "zero", "error"}, default="infer"
        What to do about genes of the model that `adata` lacks. "infer" treats them as missing
        entries, "zero" as not expressed, and "error" raises. The held-out cells had all genes, so
        p-values without some of them are approximate. They are rather too large with "infer",
        and much too small with "zero" if those genes are usually expressed.
    max_missing : float, default=0.2
        Share of the model's genes that may be missing.
    key_added : str, optional
        Key of obs and uns instead of "novelty".
    copy : bool, default=False
        Write to a copy of `adata` and return it.

    Returns
    -------
    None or AnnData
        Sets obs["novelty"], which is minus the `score_samples` of the detector, so higher is
        stranger. Sets obs["novelty_p_value"], the share of cells held out of the fit that are at
        least as strange. uns["novelty"] has "params", "n_held_out", "versions" and "threshold":
        `predict` calls a cell a novelty if its novelty is above it.

    Raises
    ------
    KeyError, TypeError, ValueError
        If `adata` does not match the model. It is then unchanged.

    Warns
    -----
    MissingGenesWarning
        If genes are missing.
    """
    fields = detector_fields(model)
    check_adata(adata)
    check_target(adata, copy=copy)
    key = check_key(key_added, NOVELTY)
    autoencoder = model.autoencoder_
    genes = match_genes(adata, fields["var_names"], missing, max_missing)
    labels, factors = own_batches(adata, autoencoder), own_size_factors(adata, autoencoder)

    def judge(block: Matrix, rows: slice) -> NDArray[np.float64]:
        table = block if genes.found.all() else complete_rows(block, genes, missing)
        return -model.score_samples(
            table, batch=select_rows(labels, rows), size_factor=select_rows(factors, rows)
        )

    X = matrix_of(adata, fields["layer"] if isinstance(layer, Default) else layer)
    target = target_of(adata, copy=copy)
    with autoencoder.fitted_.watched():
        values = by_blocks(X, genes.columns, judge)
    entry = record(model)
    target.obs[key] = values
    target.obs[f"{key}_p_value"] = conformal_p_values(model.calibration_scores_, values)
    target.uns[key] = entry
    return target if copy else None


def clone_of(detector: object) -> NoveltyDetector:
    """Return an unfitted copy of a detector.

    Raises
    ------
    TypeError
        If it is something else.
    """
    if isinstance(detector, NoveltyDetector):
        cloned: NoveltyDetector = clone(detector)
        return cloned
    name = type(detector).__name__
    cure = f"NoveltyDetector({name}(...))" if isinstance(detector, BaseAutoencoder) else "None"
    raise TypeError(f"detector must be a NoveltyDetector or None, got {name}. Pass {cure}.")


def detector_fields(model: object) -> dict[str, Any]:
    """Return the names of genes, layer and keys that a detector was fitted to.

    Raises
    ------
    NotFittedError, TypeError, ValueError
        If `model` is no fitted detector, or was fitted to a plain matrix.
    """
    cure = "skhebae.tl.novelty_detector(adata, NoveltyDetector(...))"
    if isinstance(model, BaseAutoencoder):
        raise TypeError(
            f"model is a {type(model).__name__}, which keeps no scores of cells held out of its "
            f"fit, so that there are no p-values. Fit a detector of it by {cure}; "
            "skhebae.tl.score needs none."
        )
    if not isinstance(model, NoveltyDetector):
        raise TypeError(f"model must be what {cure} returns, got {type(model).__name__}.")
    check_is_fitted(model)
    fields = model.autoencoder_.fitted_.annotations
    if fields is None:
        raise ValueError(
            f"The model was fitted to a plain matrix and knows no genes. Fit it by {cure}, or use "
            "its own methods."
        )
    return fields


def record(model: NoveltyDetector) -> dict[str, Any]:
    """Collect what `uns` keeps, which is only what a file can store."""
    fitted = model.autoencoder_.fitted_
    fields = fitted.annotations or {}
    params = {
        "autoencoder": type(model.autoencoder_).__name__,
        "likelihood": str(getattr(model.autoencoder_, "likelihood", "")),
        "score": model.novelty_score,
        "contamination": model.contamination,
        "alpha": model.alpha,
        "n_genes": len(fields["var_names"]),
        **{key: fields[key] for key in ("layer", "batch_key", "size_factor_key")},
    }
    return {
        "params": {key: value for key, value in params.items() if value is not None},
        "n_held_out": len(model.calibration_scores_),
        "threshold": -float(model.offset_),
        "versions": {package: version(package) for package in RECORDED},
    }
