"""`partial_fit` on the tables of a stream, one after another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any

from numpy.typing import ArrayLike

from skhebae.data import Matrix, one_ahead, table_of


def fit_each(
    stream: Any,
    partial_fit: Callable[[Matrix], object],
    of_rows: Mapping[str, ArrayLike | None],
    *,
    alone: bool = True,
) -> None:
    """Call `partial_fit` with the table of every item of a stream; errors say at which item.

    Tables without rows are left out, unless this process is not `alone`: then others wait for it.

    Raises
    ------
    ValueError
        If the stream is empty, or any of `of_rows`, which belong to rows, is given.
    """
    for name, given in of_rows.items():
        if given is not None:
            raise ValueError(
                f"{name}= belongs to the rows of one table, but X is a {type(stream).__name__}, "
                f"which yields several. Call partial_fit(table, {name}=...) in a loop over them."
            )
    number, n_used, end = 0, 0, object()
    with closing(one_ahead(stream)) as items:
        while True:
            try:
                item = next(items, end)
                if item is end:
                    break
                table = table_of(item)
                if not (alone and is_empty(table)):
                    partial_fit(table)
                    n_used += 1
            except Exception as error:
                error.add_note(
                    f"In item {number} (from 0) of X, a {type(stream).__name__}, which yields one "
                    "table after another. What was learned from those before it is kept."
                )
                raise
            del item, table  # do not hold them in memory with the next two
            number += 1
    if n_used == 0:
        raise ValueError(
            f"X, a {type(stream).__name__}, yielded no table{' with rows' if number else ''}. An "
            "iterator can be used once; make a new one for another pass."
        )


def is_empty(table: Any) -> bool:
    """Whether a table of a stream has columns and no rows."""
    shape: tuple[int, ...] = getattr(table, "shape", ())
    return len(shape) >= 2 and shape[0] == 0
