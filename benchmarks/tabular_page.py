"""The tables of ``tabular``, and what is asked for on Adult."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import mean
from typing import NamedTuple

from benchmarks.pages import average, group, table
from benchmarks.runner import Row

#: The method that is held against the targets.
OURS = "HEBAE"


class Target(NamedTuple):
    """A number of a row, how it is printed, and what it should be.

    Attributes
    ----------
    heading, key, form : str
    low, high : float
        Bounds of the target on Adult.
    """

    heading: str
    key: str
    form: str = ".3f"
    low: float = float("-inf")
    high: float = float("inf")


COLUMNS = (
    Target("column shapes", "column_shapes", low=0.97),
    Target("pair trends", "pair_trends", low=0.92),
    Target("HGB AUC", "auc_hist_gradient_boosting", low=0.905),
    Target("GB AUC", "auc_gradient_boosting", low=0.905),
    Target("detection AUC", "auc_real_or_not", high=0.85),
    Target("lost levels", "levels_lost", ".1f", high=0.0),
    Target("invalid values", "invalid_values", ".1f", high=0.0),
    Target("near training", "nearer_to_training", low=0.48, high=0.52),
    Target("distance ratio", "distance_ratio", ".2f"),
    Target("fit s", "fit_seconds", ".1f", high=30.0),
    Target("sample s", "sample_seconds", ".1f"),
)


def summary(rows: list[Row]) -> list[str]:
    """Return a table per data set, with the targets where there are any, and the versions."""
    lines = [line for data, of in group(rows, "data").items() for line in section(data[0], of)]
    found = {(name, row[name]) for row in rows for name in ("sdmetrics", "arfpy") if name in row}
    if found:
        versions = ", ".join(f"{name} {of}" for name, of in sorted(found))
        lines.append(f"Measures and peers: {versions}.")
    return lines


def section(data: str, rows: list[Row]) -> Iterator[str]:
    """Yield the lines about one data set."""
    first = rows[0]
    seeds = len({row["seed"] for row in rows})
    size = f"{first['n_train']:,} rows, {first['n_columns']} columns"
    yield f"### {data}: {size}, {seeds} seed{'' if seeds == 1 else 's'}"
    yield ""
    shown = [column for column in COLUMNS if any(column.key in row for row in rows)]
    lines = [
        [method, *(number(of, column) for column in shown)]
        for (method,), of in group(rows, "method").items()
    ]
    if data == "adult":
        lines.append(["target", *map(bounds, shown)])
    yield from table(["rows from", *(column.heading for column in shown)], lines)
    yield ""


def number(rows: list[Row], column: Target) -> str:
    """Format the mean of a number over rows."""
    found = [row for row in rows if row.get(column.key) is not None]
    return f"{average(found, column.key):{column.form}}" if found else "-"


def bounds(column: Target) -> str:
    """Say what a number should be."""
    if column.low > float("-inf") and column.high < float("inf"):
        return f"{column.low:g} to {column.high:g}"
    if column.low > float("-inf"):
        return f">= {column.low:g}"
    return f"<= {column.high:g}" if column.high < float("inf") else ""


def verdicts(rows: list[Row]) -> list[str]:
    """Say which targets HEBAE misses on Adult."""
    ours = [row for row in rows if (row["data"], row["method"]) == ("adult", OURS)]
    missed = []
    for column in COLUMNS:
        found = [row[column.key] for row in ours if row.get(column.key) is not None]
        if found and not column.low <= mean(found) <= column.high:
            missed.append(f"{column.heading} {mean(found):{column.form}}, not {bounds(column)}")
    if not ours:
        return []
    return ["", "Misses on Adult: " + ("; ".join(missed) if missed else "none") + "."]
