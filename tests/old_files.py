"""What the files of earlier versions are asked, when they are written and ever after."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: Folders with files of earlier versions.
FOLDERS = sorted(Path(__file__).parent.glob("files_of_*"))


def pack_table(table: Any) -> Any:
    """Return a table as JSON can hold it: lists, or the values and the dtype of each column."""
    if not isinstance(table, pd.DataFrame):
        return [[None if np.isnan(x) else x for x in row] for row in np.asarray(table).tolist()]
    columns = {}
    for name, column in table.items():
        missing = column.isna()
        values = column.astype(object).where(~missing, None)
        dtype: Any = str(column.dtype)
        if isinstance(column.dtype, pd.CategoricalDtype):
            dtype = [column.cat.categories.tolist(), bool(column.cat.ordered)]
        elif dtype.startswith("datetime"):
            values = column.dt.strftime("%Y-%m-%dT%H:%M:%S.%f").astype(object).where(~missing, None)
        columns[name] = {"dtype": dtype, "values": values.tolist()}
    return columns


def unpack_table(packed: Any) -> Any:
    """Return the table that `pack_table` packed."""
    if isinstance(packed, list):
        return np.array(packed, dtype=float)  # None becomes NaN
    columns = {}
    for name, column in packed.items():
        dtype = column["dtype"]
        if isinstance(dtype, list):
            dtype = pd.CategoricalDtype(dtype[0], dtype[1])
        columns[name] = pd.Series(column["values"], dtype=dtype)
    return pd.DataFrame(columns)


def answers_of(model: Any, rows: Any, sides: dict[str, Any]) -> dict[str, Any]:
    """Ask a model everything that a file must go on answering.

    Parameters
    ----------
    model : fitted estimator
    rows : array or DataFrame
    sides : dict
        Labels of batches and size factors of the rows.

    Returns
    -------
    dict of arrays or DataFrames
        By name of the method.
    """
    if hasattr(model, "p_values"):  # a detector
        return {
            "score_samples": model.score_samples(rows, **sides),
            "decision_function": model.decision_function(rows, **sides),
            "p_values": model.p_values(rows, **sides),
            "predict": model.predict(rows, **sides),
            "transform": model.autoencoder_.transform(rows),
        }
    first = {name: values[0] for name, values in sides.items()}
    codes = model.transform(rows, batch=sides.get("batch") if model.encode_batch else None)
    answers = {
        "transform": codes,
        "inverse_transform": model.inverse_transform(codes, **sides),
        "score_samples": model.score_samples(rows, **sides),
        # Means, because a draw of a count or of a category jumps where its mean differs by
        # rounding. The codes are drawn by NumPy, whose RandomState never changes its numbers.
        "sample": model.sample(4, random_state=0, noise=False, **first),
        "components_": model.components_,
        "explained_variance_ratio_": model.explained_variance_ratio_,
    }
    if pd.isna(np.asarray(rows, dtype=object)).any():
        answers["impute"] = model.impute(rows, **sides)
    return answers
