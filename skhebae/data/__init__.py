"""Minibatches of tables: reads rows, chooses none."""

from skhebae.data.covariates import NO_COVARIATES, Covariates
from skhebae.data.rows import ResidentRows, Rows, StreamedRows, minibatch_indices, open_rows
from skhebae.data.scaling import CountScaling, FeatureScaling, Scaling, row_totals
from skhebae.data.stored import StoredTable, is_mapped, is_stored
from skhebae.data.streams import is_stream, one_ahead, table_of

__all__ = [
    "NO_COVARIATES",
    "CountScaling",
    "Covariates",
    "FeatureScaling",
    "ResidentRows",
    "Rows",
    "Scaling",
    "StoredTable",
    "StreamedRows",
    "is_mapped",
    "is_stored",
    "is_stream",
    "minibatch_indices",
    "one_ahead",
    "open_rows",
    "row_totals",
    "table_of",
]
