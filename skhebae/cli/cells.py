"""The commands on .h5ad files, by `skhebae.tl`."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import TYPE_CHECKING, Any

import numpy as np

from skhebae import tl
from skhebae.cli.files import FORMATS, STANDARD, complete_file, require, suffix_of, write_frame
from skhebae.cli.messages import CommandError, UsageError
from skhebae.cli.models import autoencoder_of
from skhebae.estimators import NoveltyDetector

if TYPE_CHECKING:
    from anndata import AnnData

#: Name of cells in tables.
CELL = "cell"


def read_cells(options: Namespace) -> AnnData:
    """Read an .h5ad file, or open it and leave its matrix on disk.

    Raises
    ------
    CommandError
        If it is no such file.
    """
    anndata = require("anndata")
    try:
        adata: AnnData = anndata.read_h5ad(options.table, backed="r" if options.backed else None)
    except Exception as error:  # whatever h5py and anndata make of a damaged file
        raise CommandError(f"{options.table!r} is not a readable .h5ad file ({error}).") from error
    return adata


def fit(options: Namespace, params: dict[str, Any]) -> Any:
    """Fit an autoencoder, or a detector, to cells."""
    adata = read_cells(options)
    keys: dict[str, Any] = {
        "layer": named_layer(options),
        "batch_key": options.batch_key,
        "size_factor_key": options.size_factor_key,
    }
    if options.mask_var is not None:
        keys["mask_var"] = options.mask_var
    if options.novelty:
        raise UsageError("--novelty is for tables. For cells use skhebae.tl.novelty in Python.")
    params = dict(params)
    n_comps, seed = params.pop("n_components"), params.pop("random_state")
    tool = getattr(tl, options.method)
    return tool(
        adata,
        n_comps,
        random_state=seed,
        checkpoint=options.checkpoint,
        return_model=True,
        **keys,
        **params,
    )


def layer_of(options: Namespace) -> dict[str, Any]:
    """Return the layer to use, where the user names one; else that of the fit."""
    return {} if options.layer is None else {"layer": named_layer(options)}


def named_layer(options: Namespace) -> str | None:
    """Return the layer that the user names, None for X."""
    return None if options.layer == "X" else options.layer


def is_h5ad(path: str) -> bool:
    """Whether results go to an .h5ad file."""
    return path != STANDARD and FORMATS[suffix_of(path)] == "h5ad"


def write_cells(adata: AnnData, path: str, source: str | None = None) -> None:
    """Write an .h5ad file.

    Raises
    ------
    UsageError
        If it is the file that is being read.
    """
    if source is not None and adata.isbacked and os.path.realpath(path) == os.path.realpath(source):
        raise UsageError(f"-o {path!r} is the file that --backed reads. Name another.")
    with complete_file(path) as beside:
        adata.write_h5ad(beside)


def transform(options: Namespace, model: Any, path: str) -> None:
    """Write codes to obsm of a new file, or as a table."""
    adata, autoencoder = read_cells(options), autoencoder_of(model)
    tl.project(adata, autoencoder, **layer_of(options))
    if is_h5ad(path):
        write_cells(adata, path, options.table)
        return
    key = f"X_{autoencoder.anndata_['name']}"
    names = autoencoder.get_feature_names_out()
    write_named(adata, np.asarray(adata.obsm[key]), names, path)


def score(options: Namespace, model: Any, path: str) -> None:
    """Write scores to obs of a new file, or as a table."""
    adata, autoencoder = read_cells(options), autoencoder_of(model)
    if isinstance(model, NoveltyDetector):
        tl.novelty(adata, model, **layer_of(options))
        columns = ["novelty", "novelty_p_value"]
    else:
        tl.score(adata, autoencoder, **layer_of(options))
        columns = [f"{autoencoder.anndata_['name']}_score"]
    if is_h5ad(path):
        write_cells(adata, path, options.table)
        return
    names = columns if len(columns) > 1 else ["score"]
    write_named(adata, adata.obs[columns].to_numpy(), names, path)


def denoise(options: Namespace, model: Any, path: str) -> None:
    """Write decoded means to a layer of a new file, or as a table of genes.

    Raises
    ------
    UsageError
        If no file is named: the table has a number per cell and gene.
    """
    if path == STANDARD and options.output is None:
        raise UsageError("-o FILE is required. Decoded means of all genes are a large table.")
    adata, autoencoder = read_cells(options), autoencoder_of(model)
    given = layer_of(options)
    if options.batch is not None:
        given["batch"] = options.batch
    tl.denoise(adata, autoencoder, **given)
    if is_h5ad(path):
        write_cells(adata, path, options.table)
        return
    means = adata.layers[f"{autoencoder.anndata_['name']}_denoised"]
    write_named(adata, np.asarray(means), list(adata.var_names), path)


def sample(options: Namespace, model: Any, path: str) -> None:
    """Write new cells.

    Raises
    ------
    UsageError
        If the model has batches and none is named, or `--given` is.
    """
    autoencoder = autoencoder_of(model)
    if options.given:
        raise UsageError("--given is for models of tables.")
    batches = [str(label) for label in autoencoder.fitted_.batches]
    if batches and options.batch is None:
        raise UsageError(f"--batch is required. Pass one of {', '.join(batches)}, or average.")
    adata = tl.sample(
        autoencoder,
        options.n_rows,
        noise=not options.mean,
        batch=options.batch,
        random_state=options.seed,
    )
    if is_h5ad(path):
        write_cells(adata, path)
        return
    rows = adata.X.toarray() if hasattr(adata.X, "toarray") else np.asarray(adata.X)
    write_named(adata, rows, list(adata.var_names), path)


def write_named(adata: AnnData, values: Any, names: Any, path: str) -> None:
    """Write values of cells as a table with the names of cells."""
    index = adata.obs_names.rename(adata.obs_names.name or CELL)
    frame = require("pandas").DataFrame(values, index=index, columns=list(names))
    write_frame(frame, path, has_index=True)
