"""What the generated pages share: results, groups of rows, and numbers as text."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from statistics import mean, stdev
from typing import Any

from benchmarks.common import RESULTS


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Environment and rows of one result file."""
    document = json.loads((RESULTS / f"{name}.json").read_text())
    return document["environment"], document["rows"]


def described(environment: dict[str, Any]) -> str:
    """One line on where a result was made."""
    return ", ".join(f"{key} {value}" for key, value in environment.items())


def group(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by the values of `keys`, in order of appearance."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def average(rows: list[dict[str, Any]], key: str) -> float:
    """Mean of one number over rows."""
    return mean(float(row[key]) for row in rows)


#: Heading, reader, format, and whether more is better.
Column = tuple[str, Callable[[dict[str, Any]], float | None], str, bool | None]


def values(
    rows: list[dict[str, Any]], read: Callable[[dict[str, Any]], float | None]
) -> list[float]:
    """Return the numbers of all rows that have one."""
    return [value for value in map(read, rows) if value is not None]


def table_of_methods(
    rows: list[dict[str, Any]],
    columns: Sequence[Column],
    last: tuple[str, Callable[[list[dict[str, Any]]], str]] | None = None,
) -> list[str]:
    """One line a method, the best of each column in bold; means over seeds, and deviations.

    Columns without a number are left out. `last` heads and fills a column of text.
    """
    methods = group(rows, "method")
    shown = [column for column in columns if any(values(of, column[1]) for of in methods.values())]
    headings = ["method", "seeds", *(heading for heading, *_ in shown), *(last[:1] if last else ())]
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    best = []
    for _, read, _, more in shown:
        means = [mean(found) for of in methods.values() if (found := values(of, read))]
        best.append(max(means) if more else min(means))
    for (method,), of in methods.items():
        parts = [method, str(len({row["seed"] for row in of}))]
        for (_, read, form, _), top in zip(shown, best, strict=True):
            found = values(of, read)
            text = spread_out(found, form) if found else "-"
            parts.append(f"**{text}**" if found and mean(found) == top else text)
        if last is not None:
            parts.append(last[1](of))
        lines.append("| " + " | ".join(parts) + " |")
    return lines


def spread_out(values: list[float], form: str) -> str:
    """Mean and standard deviation over seeds."""
    middle = form.format(mean(values))
    if len(values) < 2 or stdev(values) == 0.0:
        return middle
    return f"{middle} ± {form.format(stdev(values))}"
