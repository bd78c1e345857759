"""`partial_fit` on the tables of a stream, one after another."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

from numpy.typing import ArrayLike

from skhebae.data import Matrix, one_ahead, table_of


def fit_each(
    stream: Any,
    partial_fit: Callable[[Matrix], object],
    batch: ArrayLike | None,
    size_factor: ArrayLike | None,
) -> None:
    """Call `partial_fit` with the table of every item of a stream; errors say at which item.

    Raises
    ------
    ValueError
        If the stream is empty, or `batch` or `size_factor` is given.
    """
    for name, given in (("batch", batch), ("size_factor", size_factor)):
        if given is not None:
            raise ValueError(
                f"{name}= belongs to the rows of one table, but X is a {type(stream).__name__}, "
                f"which yields several. Call partial_fit(table, {name}=...) in a loop over them."
            )
    number, end = 0, object()
    with closing(one_ahead(stream)) as items:
        while True:
            try:
                item = next(items, end)
                if item is end:
                    break
                partial_fit(table_of(item))
            except Exception as error:
                error.add_note(
                    f"In item {number} (from 0) of X, a {type(stream).__name__}, which yields one "
                    "table after another. What was learned from those before it is kept."
                )
                raise
            del item  # do not hold it in memory with the next two
            number += 1
    if number == 0:
        raise ValueError(
            f"X, a {type(stream).__name__}, yielded no table. An iterator can be used once; make a "
            "new one for another pass."
        )
