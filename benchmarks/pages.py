"""What the generated pages share: results, groups of rows, and numbers as text."""

from __future__ import annotations

import json
from collections import defaultdict
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


def spread_out(values: list[float], form: str) -> str:
    """Mean and standard deviation over seeds."""
    middle = form.format(mean(values))
    if len(values) < 2 or stdev(values) == 0.0:
        return middle
    return f"{middle} ± {form.format(stdev(values))}"
