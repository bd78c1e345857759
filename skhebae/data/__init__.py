"""Minibatches of tables: reads rows, chooses none."""

from skhebae.data.rows import ResidentRows, Rows, StreamedRows, minibatch_indices, open_rows
from skhebae.data.scaling import FeatureScaling

__all__ = [
    "FeatureScaling",
    "ResidentRows",
    "Rows",
    "StreamedRows",
    "minibatch_indices",
    "open_rows",
]
