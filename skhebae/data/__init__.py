"""Tables of any kind: standardisation, reading, and minibatches in random order."""

from skhebae.data.chunks import map_rows, rows_per_chunk
from skhebae.data.columns import Column, Columns
from skhebae.data.frames import (
    decode_frame,
    encode_frame,
    find_code,
    find_kinds,
    find_library,
    measure_columns,
)
from skhebae.data.minibatch import Minibatch
from skhebae.data.moments import FeatureMoments
from skhebae.data.outside import Outside, watched
from skhebae.data.rows import (
    ResidentRows,
    Rows,
    StreamedRows,
    counted_rows,
    minibatch_indices,
    open_rows,
    take_chunks,
    weight_of,
)
from skhebae.data.scaling import FeatureScaling, Scaling, first_variation
from skhebae.data.side import NO_SIDE_INFORMATION, SideInformation
from skhebae.data.stored import StoredTable, is_mapped, is_stored, without_mask
from skhebae.data.streams import is_stream, one_ahead, table_of
from skhebae.data.table import Checked, Matrix, Table, observed_part, row_totals
from skhebae.data.values import has_missing, value_range

__all__ = [
    "NO_SIDE_INFORMATION",
    "Checked",
    "Column",
    "Columns",
    "FeatureMoments",
    "FeatureScaling",
    "Matrix",
    "Minibatch",
    "Outside",
    "ResidentRows",
    "Rows",
    "Scaling",
    "SideInformation",
    "StoredTable",
    "StreamedRows",
    "Table",
    "counted_rows",
    "decode_frame",
    "encode_frame",
    "find_code",
    "find_kinds",
    "find_library",
    "first_variation",
    "has_missing",
    "is_mapped",
    "is_stored",
    "is_stream",
    "map_rows",
    "measure_columns",
    "minibatch_indices",
    "observed_part",
    "one_ahead",
    "open_rows",
    "row_totals",
    "rows_per_chunk",
    "table_of",
    "take_chunks",
    "value_range",
    "watched",
    "weight_of",
    "without_mask",
]
