"""Embed the cells of an AnnData: `hebae`, `vae` and `wae`."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skhebae.estimators import (
    BaseAutoencoder,
    HEBAETransformer,
    VAETransformer,
    WAETransformer,
)
from skhebae.tl.defaults import IF_PRESENT, Default
from skhebae.tl.matrices import (
    HIGHLY_VARIABLE,
    check_adata,
    choose_likelihood,
    chosen_columns,
    column_of,
    gene_mask,
    gene_names,
    matrix_of,
)
from skhebae.tl.target import check_key, check_target, target_of

if TYPE_CHECKING:
    from anndata import AnnData

#: Libraries whose versions `uns` records.
RECORDED = ("skhebae", "torch", "scikit-learn", "anndata")

ARGUMENTS = """\
Parameters
    ----------
    adata : AnnData
        In memory, backed or lazy. A view becomes an actual object, as in scanpy. A file is read
        repeatedly, in blocks of cells.
    n_comps : int, default=10
        Dimensions of the embedding.
    layer : str, optional
        Layer to use instead of X.
    mask_var : str, array-like of bool or None, optional
        Genes to use: a column of var, one value per gene, or None for all. By default
        var["highly_variable"] if present, else all.
    batch_key : str, optional
        Column of obs with the experimental batch of each cell. The decoder sees it, so the
        embedding need not contain it.
    size_factor_key : str, optional
        Column of obs with size factors in any unit. By default the totals of the genes
        used.
    key_added : str, optional
        Key of obsm, varm and uns instead of "X_{name}", "{varm}" and "{name}".
    random_state : int, RandomState instance or None, default=0
        An int gives identical results.
    checkpoint : path-like, optional
        File to resume from after an interruption, as in `{cls}.fit`.
    copy : bool, default=False
        Write to a copy of `adata` and return it.
    return_model : bool, default=False
        Return the fitted estimator, for `project`, `denoise`, `sample` and `score`.
    **params
        Further parameters of `{cls}`. `likelihood` is "negative_binomial" by
        default if all values are integers >= 0, else "gaussian".

    Returns
    -------
    None, AnnData or {cls}
        None, or what `copy` and `return_model` ask for, as a tuple if both do. Sets the embedding
        obsm["X_{name}"] (n_obs, n_comps), and the loadings of genes varm["{varm}"] (n_vars,
        n_comps), which are `components_` transposed and 0 for genes that were not used.
        uns["{name}"] has "params", "history", "versions" and "variance_ratio" (n_comps,), the
        `explained_variance_ratio_`.

    Raises
    ------
    ImportError
        If anndata is not installed.
    KeyError
        If `layer`, `mask_var`, `batch_key` or `size_factor_key` is not there.
    ValueError
        If values are not usable. `adata` is then unchanged."""


@dataclass(frozen=True)
class Request:
    """A request for an embedding.

    Attributes
    ----------
    layer, mask_var, batch_key, size_factor_key : optional
        What to embed, and by which columns.
    key_added : str, optional
    checkpoint : path-like, optional
    copy, return_model : bool
    """

    layer: str | None
    mask_var: str | Sequence[bool] | Default | None
    batch_key: str | None
    size_factor_key: str | None
    key_added: str | None
    checkpoint: str | os.PathLike[str] | None
    copy: bool
    return_model: bool


def make_tool(name: str, cls: type[BaseAutoencoder], summary: str) -> Callable[..., Any]:
    """Make the function that embeds cells by one estimator, documented under its own name."""

    def tool(
        adata: AnnData,
        n_comps: int = 10,
        *,
        layer: str | None = None,
        mask_var: str | Sequence[bool] | Default | None = IF_PRESENT,
        batch_key: str | None = None,
        size_factor_key: str | None = None,
        key_added: str | None = None,
        random_state: int | np.random.RandomState | None = 0,
        checkpoint: str | os.PathLike[str] | None = None,
        copy: bool = False,
        return_model: bool = False,
        **params: Any,
    ) -> Any:
        model = cls(n_comps, random_state=random_state, **params)
        request = Request(
            layer, mask_var, batch_key, size_factor_key, key_added, checkpoint, copy, return_model
        )
        return embed(adata, name, model, request, chooses="likelihood" not in params)

    tool.__name__ = tool.__qualname__ = name
    arguments = ARGUMENTS.replace("{name}", name).replace("{cls}", cls.__name__)
    arguments = arguments.replace("{varm}", loadings_key(name))
    tool.__doc__ = f"{summary}\n\n    {arguments}\n    "
    return tool


def embed(
    adata: AnnData, name: str, model: BaseAutoencoder, request: Request, *, chooses: bool
) -> Any:
    """Fit, and only then write.

    `chooses` says whether the likelihood follows from the values.
    """
    check_adata(adata)
    check_target(adata, copy=request.copy)
    obsm_key = check_key(request.key_added, f"X_{name}")
    uns_key = check_key(request.key_added, name)
    varm_key = check_key(request.key_added, loadings_key(name))
    mask_var = request.mask_var
    if isinstance(mask_var, Default):
        mask_var = HIGHLY_VARIABLE if HIGHLY_VARIABLE in adata.var else None
    columns = gene_mask(adata, mask_var)
    names = gene_names(adata, columns)
    X = chosen_columns(matrix_of(adata, request.layer), columns)
    batch, size_factor = (
        None if key is None else column_of(adata, key, argument)
        for key, argument in (
            (request.batch_key, "batch_key"),
            (request.size_factor_key, "size_factor_key"),
        )
    )
    if chooses:
        likelihood, X = choose_likelihood(X)
        model.set_params(likelihood=likelihood)
    versions = {package: version(package) for package in RECORDED}
    target = target_of(adata, copy=request.copy)
    codes = model.fit_transform(
        X, batch=batch, size_factor=size_factor, checkpoint=request.checkpoint
    )
    annotations = {
        "var_names": names,
        "name": name,
        "layer": request.layer,
        "batch_key": request.batch_key,
        "batch_dtype": dtype_of(adata, request.batch_key),
        "size_factor_key": request.size_factor_key,
    }
    model.fitted_ = model.fitted_.annotate(annotations)
    target.obsm[obsm_key] = np.asarray(codes)
    target.varm[varm_key] = loadings(model, columns, adata.n_vars)
    target.uns[uns_key] = {**record(model, mask_var), "versions": versions}
    if request.copy and request.return_model:
        return target, model
    if request.copy:
        return target
    return model if request.return_model else None


def loadings_key(name: str) -> str:
    """Return the key of the loadings of genes, as "PCs" are those of scanpy's PCA."""
    return f"{name.upper()}s"


def loadings(
    model: BaseAutoencoder, columns: NDArray[np.intp] | None, n_vars: int
) -> NDArray[np.float64]:
    """Return the loadings of all genes, (n_vars, n_comps), 0 for those that were not used."""
    values = np.zeros((n_vars, len(model.components_)))
    values[slice(None) if columns is None else columns] = model.components_.T
    return values


def dtype_of(adata: AnnData, key: str | None) -> str | None:
    """Return the name of the type of a column of obs."""
    return None if key is None else str(adata.obs[key].dtype)


def record(model: BaseAutoencoder, mask_var: str | Sequence[bool] | None) -> dict[str, Any]:
    """Collect what `uns` keeps, which is only what a file can store."""
    described = {**model.get_params(deep=False), **model.anndata_}
    described["mask_var"] = mask_var if isinstance(mask_var, str) else None
    described["n_genes"] = len(described.pop("var_names"))
    kept: dict[str, Any] = {}
    for key, value in described.items():
        if callable(value) or isinstance(value, np.random.RandomState):
            value = getattr(value, "__qualname__", type(value).__name__)
        if value is not None:
            kept[key] = np.asarray(value) if isinstance(value, tuple | list) else value
    return {
        "params": kept,
        "history": {key: np.asarray(values) for key, values in model.history_.items()},
        "variance_ratio": model.explained_variance_ratio_,
    }


hebae = make_tool(
    "hebae",
    HEBAETransformer,
    "Embed cells by a hierarchical empirical Bayes autoencoder (arXiv:2007.10389).",
)
vae = make_tool(
    "vae", VAETransformer, "Embed cells by a variational autoencoder (arXiv:1312.6114)."
)
wae = make_tool(
    "wae", WAETransformer, "Embed cells by a Wasserstein autoencoder (arXiv:1711.01558)."
)
