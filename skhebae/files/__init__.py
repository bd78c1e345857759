"""Documents with arrays: their files, how those are written, and checks of what is read."""

from skhebae.files.checks import check_array, check_floats, check_integer, check_like
from skhebae.files.documents import read_document, write_document
from skhebae.files.writing import file_kind, remove_leftovers, write_file

__all__ = [
    "check_array",
    "check_floats",
    "check_integer",
    "check_like",
    "file_kind",
    "read_document",
    "remove_leftovers",
    "write_document",
    "write_file",
]
