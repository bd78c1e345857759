"""The commands on tables; those on cells are in `skhebae.cli.cells`."""

from __future__ import annotations

import ast
import os
import sys
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import numpy as np

from skhebae.cli import cells
from skhebae.cli.files import (
    STANDARD,
    check_input,
    check_output,
    format_of,
    require,
    suffix_of,
    write_frame,
    write_text,
)
from skhebae.cli.messages import CommandError, Notes, UsageError
from skhebae.cli.models import METHODS, autoencoder_of, is_of_cells, load_model, note
from skhebae.cli.tables import Table, read_for_fit, read_for_model, read_given
from skhebae.estimators import NoveltyDetector
from skhebae.likelihoods import BY_DTYPE, LIKELIHOODS

#: Suffix of model files that have no name.
MODEL_SUFFIX = ".skhebae"

#: Options of `fit` that only cells, and only tables, have.
OF_CELLS = ("layer", "batch_key", "size_factor_key", "mask_var", "backed")
OF_TABLES = ("index", "weight", "columns", "drop", "text", "missing", "separator", "decimal")


def fit(options: Namespace) -> None:
    """Fit a model and save it.

    Raises
    ------
    CommandError, UsageError
    """
    notes = Notes(options.quiet)
    kind = check_input(options.table)
    refuse_options(options, OF_TABLES if kind == "h5ad" else OF_CELLS, kind)
    path = options.output or default_model(options.table)
    if suffix_of(path) or path == STANDARD:
        raise UsageError(
            f"-o {path!r} must name a model file. Use the suffix {MODEL_SUFFIX}, or none."
        )
    check_output(path, force=options.force)
    params = parameters_of(options)
    if kind == "h5ad":
        model = cells.fit(options, params)
    else:
        table = read_for_fit(options, notes)
        # A fit in Python takes booleans beside numbers as numbers; 0.4 is no value of a CSV file.
        if "likelihood" not in params and any(
            str(d).startswith("bool") for d in table.frame.dtypes
        ):
            params["likelihood"] = "from_dtype"
        model = new_model(options, params)
        given: dict[str, Any] = {} if table.weight is None else {"sample_weight": table.weight}
        if options.checkpoint is not None:
            given["checkpoint"] = options.checkpoint
        model.fit(table.frame, **given)
        note(model, table.notes or {})
    autoencoder_of(model).set_params(verbose=0)  # that of this terminal
    model.save(path)
    notes.add(f"the model is in {path!r}.")


def default_model(table: str) -> str:
    """Return the name of a model file for a table.

    Raises
    ------
    UsageError
        If the table has no name.
    """
    if table == STANDARD:
        raise UsageError("-o FILE is required when the table comes from stdin.")
    name = os.path.basename(table)
    return name[: len(name) - len(suffix_of(table))] + MODEL_SUFFIX


def refuse_options(options: Namespace, names: tuple[str, ...], kind: str) -> None:
    """Refuse options that the kind of table does not have.

    Raises
    ------
    UsageError
    """
    for name in names:
        if getattr(options, name, None):
            option = f"--{name.replace('_', '-')}"
            what = "tables, not .h5ad files" if kind == "h5ad" else ".h5ad files, not tables"
            raise UsageError(f"{option} is for {what}.")


def parameters_of(options: Namespace) -> dict[str, Any]:
    """Return the parameters of an estimator that the options ask for.

    Raises
    ------
    UsageError
        If one is not of the form NAME=VALUE, or no parameter.
    """
    is_shown = options.progress or (sys.stderr.isatty() and not options.quiet)
    params: dict[str, Any] = {
        "n_components": options.components,
        "random_state": options.seed,
        "device": options.device,
        "verbose": int(is_shown),
    }
    if options.epochs is not None:
        params["max_iter"] = options.epochs
    likelihood = read_likelihood(options.likelihood)
    if likelihood is not None:
        params["likelihood"] = likelihood
    known = METHODS[options.method]().get_params(deep=False)
    for text in options.set:
        name, equals, value = text.partition("=")
        if not equals or name not in known:
            raise UsageError(f"--set {text!r}: {options.method} has no parameter {name!r}.")
        try:
            params[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            params[name] = value
    return params


def read_likelihood(given: list[str] | None) -> Any:
    """Return one family for all columns, or a family by column.

    Raises
    ------
    UsageError
    """
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    by_column = {name: family for name, equals, family in pairs if equals}
    families = [*LIKELIHOODS, *BY_DTYPE]
    if not by_column:
        if given[-1] not in families:
            raise UsageError(f"--likelihood {given[-1]!r} is not one of {', '.join(families)}.")
        return given[-1]
    if len(by_column) < len(given):
        raise UsageError("pass --likelihood as FAMILY or as COLUMN=FAMILY, not as both.")
    return by_column


def new_model(options: Namespace, params: dict[str, Any]) -> Any:
    """Return the estimator that the options ask for, not fitted yet.

    Raises
    ------
    UsageError
    """
    autoencoder = METHODS[options.method](**params)
    if not options.novelty:
        return autoencoder
    if options.checkpoint is not None:
        raise UsageError(
            "--checkpoint cannot be combined with --novelty, which fits several models."
        )
    return NoveltyDetector(autoencoder, random_state=options.seed)


def use(options: Namespace) -> tuple[Any, str, Table | None]:
    """Load a model, and read a table for it; None for cells.

    Raises
    ------
    CommandError
        If the model was fitted to the other kind of table.
    """
    path = options.output or STANDARD
    if suffix_of(options.model) and not suffix_of(options.table):
        raise UsageError(
            f"the model comes first, then the table: skhebae {options.command} {options.table} "
            f"{options.model}."
        )
    kind = check_input(options.table)
    out = format_of(path, "the output")
    refuse_options(options, ("index", "missing") if kind == "h5ad" else ("layer", "backed"), kind)
    check_output(path, force=options.force)
    model = load_model(options.model)
    if is_of_cells(model) != (kind == "h5ad"):
        of, other = ("an .h5ad file", "a table") if is_of_cells(model) else ("a table", ".h5ad")
        raise CommandError(
            f"{options.model!r} was fitted to {of}, and {options.table!r} is {other}."
        )
    if kind == "h5ad":
        return model, path, None
    if out == "h5ad":
        raise UsageError(f"the output {path!r} of a table must end in .csv, .tsv or .parquet.")
    return model, path, read_for_model(options, model, Notes(options.quiet))


def transform(options: Namespace) -> None:
    """Write codes."""
    model, path, table = use(options)
    if table is None:
        cells.transform(options, model, path)
        return
    autoencoder = autoencoder_of(model)
    codes = np.asarray(autoencoder.transform(table.frame))
    names = autoencoder.get_feature_names_out()
    frame = table.labelled(require("pandas").DataFrame(codes, columns=names))
    write_frame(frame, path, has_index=table.index is not None)


def impute(options: Namespace) -> None:
    """Fill in missing values; all other cells of the file stay as they are."""
    model, path, table = use(options)
    if table is None:
        raise CommandError(
            "counts of cells have no missing values to fill in: 0 is a count. skhebae denoise "
            "writes the means that the model decodes."
        )
    autoencoder = autoencoder_of(model)
    filled = autoencoder.impute(table.frame, n_draws=options.draws, random_state=options.seed)
    copies = [filled] if options.draws is None else filled
    frames = [table.labelled(fill(table.whole, as_frame(copy, autoencoder))) for copy in copies]
    if options.draws is None:
        write_frame(frames[0], path, has_index=table.index is not None)
        return
    pandas = require("pandas")
    for draw, frame in enumerate(frames, start=1):
        frame.insert(0, "draw", draw)
    write_frame(pandas.concat(frames), path, has_index=table.index is not None)


def fill(whole: Any, filled: Any) -> Any:
    """Return all columns of a file, the missing values of some filled in."""
    pandas = require("pandas")
    result = whole.copy()
    for name in filled.columns:
        column, values = whole[str(name)], filled[name].set_axis(whole.index)
        missing = column.isna()
        if not missing.any():
            continue
        if missing.all() or column.dtype == values.dtype:
            result[str(name)] = values
        elif pandas.api.types.is_float_dtype(values) and pandas.api.types.is_numeric_dtype(column):
            result[str(name)] = column.astype(np.float64).where(~missing, values)
        else:
            result[str(name)] = column.astype(object).where(~missing, values).infer_objects()
    return result


def sample(options: Namespace) -> None:
    """Write new rows."""
    path = options.output or STANDARD
    out = format_of(path, "the output")
    check_output(path, force=options.force)
    model = load_model(options.model)
    if is_of_cells(model):
        cells.sample(options, model, path)
        return
    if out == "h5ad" or options.batch is not None:
        raise UsageError(
            f"{options.model!r} was fitted to a table. It has no .h5ad output and no --batch."
        )
    given = read_given(model, options.given)
    autoencoder = autoencoder_of(model)
    rows = autoencoder.sample(
        options.n_rows, random_state=options.seed, given=given, noise=not options.mean
    )
    write_frame(as_frame(rows, autoencoder), path, has_index=False)


def as_frame(rows: Any, model: Any) -> Any:
    """Return rows as a frame of pandas."""
    if hasattr(rows, "to_pandas"):  # of polars
        return rows.to_pandas()
    if hasattr(rows, "columns"):
        return rows
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        names = [f"x{j}" for j in range(rows.shape[1])]
    return require("pandas").DataFrame(np.asarray(rows), columns=list(names))


def score(options: Namespace) -> None:
    """Write how typical rows are, and for detectors how strange."""
    model, path, table = use(options)
    if table is None:
        cells.score(options, model, path)
        return
    columns = {"score": model.score_samples(table.frame)}
    if isinstance(model, NoveltyDetector):
        columns["p_value"] = model.p_values(table.frame)
        columns["is_novel"] = model.predict(table.frame) == -1
    frame = table.labelled(require("pandas").DataFrame(columns))
    write_frame(frame, path, has_index=table.index is not None)


def denoise(options: Namespace) -> None:
    """Write decoded means of cells."""
    model, path, table = use(options)
    if table is not None:
        raise CommandError("denoise is for cells of an .h5ad file. For a table use impute.")
    cells.denoise(options, model, path)


def card(options: Namespace) -> None:
    """Write the card of a model, with the scores of a table if one is given."""
    path = options.output or STANDARD
    check_output(path, force=options.force)
    model, table = load_model(options.model), None
    if options.table is not None:
        if is_of_cells(model) or check_input(options.table) == "h5ad":
            raise CommandError("card scores the rows of tables. Leave the .h5ad file out.")
        table = read_for_model(options, model, Notes(options.quiet)).frame
    write_text(model.card(table), path)


COMMANDS: dict[str, Callable[[Namespace], None]] = {
    "fit": fit,
    "transform": transform,
    "impute": impute,
    "sample": sample,
    "score": score,
    "denoise": denoise,
    "card": card,
}
