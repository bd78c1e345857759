"""Tables that come one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from skhebae.data.table import Matrix

#: What only a table has, in memory or not.
OF_TABLES = ("shape", "__array__", "__array_interface__", "__dataframe__")


def is_stream(X: object) -> bool:
    """Whether `X` gives tables one after the other, rather than being one.

    Iterators, generators and loaders do. What has a shape, or is a sequence (a list of
    lists), a mapping or a set, is one table, good or bad.
    """
    of_one = isinstance(X, Sequence | Mapping | Set) or any(hasattr(X, name) for name in OF_TABLES)
    return isinstance(X, Iterable) and not of_one


def one_ahead(items: Iterable[Any]) -> Generator[Any, None, None]:
    """Items in order; while one is in use a thread reads the next."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, iterator, end)
            yield item


def table_of(item: Any) -> Matrix:
    """Return the table in what a loader gives: in an AnnData, under "X", first of several.

    Raises
    ------
    ValueError
        If a mapping has no "X".
    """
    if isinstance(item, Mapping):
        if "X" not in item:
            raise ValueError(f"the item has the keys {list(item)}; its table must be under 'X'.")
        return item["X"]
    if isinstance(item, list | tuple) and item and len(getattr(item[0], "shape", ())) == 2:
        return item[0]  # features before targets, as of a torch DataLoader
    if type(item).__module__.split(".")[0] == "anndata" and hasattr(item, "X"):
        return item.X
    return item
