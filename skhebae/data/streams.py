"""Streams of tables: iterables that yield one table after another."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from skhebae.data.table import Matrix

#: Attributes by which a table is recognised, in memory or not; a group of a file has keys, and what
#: dask has yet to compute can be computed.
TABLE_ATTRIBUTES = ("shape", "__array__", "__array_interface__", "__dataframe__", "keys", "compute")


def is_stream(X: object) -> bool:
    """Whether `X` yields tables one after another, rather than being a table itself.

    Iterators, generators and loaders are streams. Anything that has a shape, or is a
    sequence (such as a list of lists), a mapping, a set or a file, counts as one table, be it
    valid or not.
    """
    if not isinstance(X, Iterable) or isinstance(X, Sequence | Mapping | Set | io.IOBase):
        return False
    return not any(has(X, name) for name in TABLE_ATTRIBUTES)


def has(X: object, name: str) -> bool:
    """Whether an object has an attribute, be it one that fails, as those of a closed file do."""
    try:
        return hasattr(X, name)
    except Exception:
        return True


def one_ahead(items: Iterable[Any]) -> Generator[Any, None, None]:
    """Yield items in order, while a thread reads the next item ahead of its use."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield item


def table_of(item: Any) -> Matrix:
    """Extract the table from an item of a loader.

    The table is the ``X`` of an AnnData or of a mapping, or the first element of a list or
    tuple of arrays. Any other item is taken to be the table.

    Raises
    ------
    ValueError
        If a mapping has no key "X".
    """
    if isinstance(item, Mapping):
        if "X" not in item:
            raise ValueError(f"The item has the keys {list(item)}; its table must be under 'X'.")
        return item["X"]
    if isinstance(item, list | tuple) and item and len(getattr(item[0], "shape", ())) >= 2:
        return item[0]  # features before targets, as from a torch DataLoader
    if type(item).__module__.split(".")[0] == "anndata" and hasattr(item, "X"):
        return item.X
    return item
