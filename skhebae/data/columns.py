"""The columns of a mixed table: what is needed to turn them into numbers, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

#: Kinds of columns, as they follow from dtypes.
KINDS = ("float", "integer", "boolean", "text", "category", "ordered", "datetime", "timedelta")

#: Names and categories that a message shows.
SHOWN = 5


@dataclass(frozen=True)
class Column:
    """One column of a frame. All fields but the family are JSON values.

    Attributes
    ----------
    name : str or int
        Of the column.
    kind : str
        One of `KINDS`.
    dtype : str
        As the library writes it, from which the library makes it again.
    family : str or type
        Name of a likelihood family, or a class of the user's.
    options : dict
        What the family has to know, such as the period of a circle.
    levels : list or None
        Values that codes 0, 1, ... stand for, those seen in `fit`; None where numbers are values.
    categories : list or None
        All categories of the dtype, perhaps with some that no row had.
    low, high : float or None
        Range of the values, or of the codes.
    """

    name: Any
    kind: str
    dtype: str
    family: Any = "quantile"
    options: dict[str, Any] = field(default_factory=dict)
    levels: list[Any] | None = None
    categories: list[Any] | None = None
    low: float | None = None
    high: float | None = None

    def pack(self) -> dict[str, Any]:
        """Return the fields."""
        return {f.name: getattr(self, f.name) for f in fields(self)}


@dataclass(frozen=True)
class Columns:
    """The columns of a frame in their order.

    Attributes
    ----------
    library : str
        "pandas" or "polars".
    items : tuple of Column
    """

    library: str
    items: tuple[Column, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def names(self) -> list[Any]:
        """Names of the columns."""
        return [column.name for column in self.items]

    def index(self, name: Any) -> int:
        """Return the place of a column.

        Raises
        ------
        ValueError
            With similar names, if there is none of this name.
        """
        if name in self.names:
            return self.names.index(name)
        raise ValueError(
            f"{name!r} is none of the columns of fit: {shown(self.names)}. Names must match."
        )

    def merge(self, others: Sequence[Columns]) -> Columns:
        """Combine with the columns of other processes, which have other rows of the same frame.

        Raises
        ------
        ValueError
            If names or kinds differ.
        """
        items = list(self.items)
        for other in others:
            if other.names != self.names or [c.kind for c in other.items] != [
                c.kind for c in self.items
            ]:
                raise ValueError("Processes of one fit have frames with different columns.")
            items = [merge_columns(a, b) for a, b in zip(items, other.items, strict=True)]
        return replace(self, items=tuple(items))

    def pack(self) -> dict[str, Any]:
        """Return JSON values."""
        return {"library": self.library, "items": [column.pack() for column in self.items]}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Columns:
        """Invert `pack`."""
        return cls(packed["library"], tuple(Column(**item) for item in packed["items"]))

    def check(self) -> None:
        """Check columns that come from a file.

        Raises
        ------
        ValueError
            Naming what is wrong.
        """
        if self.library not in ("pandas", "polars"):
            raise ValueError(f"{self.library!r:.80} is no library of frames")
        for column in self.items:
            if column.kind not in KINDS or not isinstance(column.dtype, str):
                raise ValueError(f"the column {column.name!r:.80} has no kind or dtype")
            for values in (column.levels, column.categories):
                if values is not None and not isinstance(values, list):
                    raise ValueError(f"the levels of {column.name!r:.80} are no list")


def merge_columns(one: Column, other: Column) -> Column:
    """Combine what two processes have seen of a column."""
    low, high = (
        [v for v in (getattr(one, of), getattr(other, of)) if v is not None]
        for of in ("low", "high")
    )
    levels, categories = one.levels, one.categories
    if levels is not None and other.levels is not None:
        if categories is None:
            levels = sort_levels({*levels, *other.levels})
        else:
            categories = [*categories, *(c for c in other.categories or [] if c not in categories)]
            levels = [c for c in categories if c in levels or c in other.levels]
    return replace(
        one,
        low=min(low, default=None),
        high=max(high, default=None) if levels is None else float(len(levels) - 1),
        levels=levels,
        categories=categories,
    )


def sort_levels(values: Any) -> list[Any]:
    """Sort values, those of different types by type first."""
    values = list(values)
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=lambda value: (type(value).__name__, str(value)))


def shown(values: Sequence[Any]) -> str:
    """Write the first few of some values."""
    more = ", ..." if len(values) > SHOWN else ""
    return ", ".join(map(repr, values[:SHOWN])) + more
