"""Write what stands between ``<!-- name -->`` and ``<!-- /name -->`` in the pages of docs."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.results import RESULTS
from benchmarks.runner import Row

DOCS = Path(__file__).parents[1] / "docs"
Reader = Callable[[Row], float | None]
#: Heading, reader, format, and whether more is better.
Column = tuple[str, Reader, str, bool]


def load(name: str) -> tuple[dict[str, Any], list[Row]]:
    """Return the environment and the rows of one result file."""
    document = json.loads((RESULTS / f"{name}.json").read_text())
    return document["environment"], document["rows"]


def made_by(command: str, environment: dict[str, Any], rows: Sequence[Row] = ()) -> list[str]:
    """Say which command repeats a measurement, and on what machine, versions and seeds it ran."""
    said = ", ".join(f"{key} {value}" for key, value in environment.items())
    seeds = sorted({row["seed"] for row in rows if row.get("seed") is not None})
    if seeds:
        said += f", seeds {', '.join(map(str, seeds))}"
    return ["", f"Run `python -m benchmarks {command}` to repeat this. Measured with {said}."]


def section(name: str, lines: Callable[[list[Row]], list[str]]) -> list[str]:
    """Return a part about one result file; without the file, the command that makes it."""
    file = name.replace("-", "_")
    if not (RESULTS / f"{file}.json").exists():
        return [f"Not measured yet: `python -m benchmarks {name}`."]
    environment, rows = load(file)
    return [*lines(rows), *made_by(name, environment, rows)]


def fill(page: Path, **parts: list[str]) -> None:
    """Replace the generated parts of a page; a page that is not there has those parts only."""
    marks = {name: (f"<!-- {name} -->", f"<!-- /{name} -->") for name in parts}
    if page.exists():
        text = page.read_text()
    else:
        text = "\n".join(f"{begin}\n{end}\n" for begin, end in marks.values())
    for name, lines in parts.items():
        begin, end = marks[name]
        before, _, rest = text.partition(begin)
        _, found, after = rest.partition(end)
        if not found:
            raise ValueError(f"{page} has no part between {begin} and {end}")
        text = "\n".join([before + begin, *lines, end + after])
    page.write_text(text)
    print(f"wrote {page}")


def group(rows: Iterable[Row], *keys: str) -> dict[tuple[Any, ...], list[Row]]:
    """Group rows by the values of `keys`, in order of appearance."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return dict(groups)


def average(rows: Sequence[Row], key: str) -> float:
    """Return the mean of one number over rows."""
    return mean(float(row[key]) for row in rows)


def values(rows: Iterable[Row], read: Reader) -> list[float]:
    """Return the numbers of all rows that have one."""
    return [value for value in map(read, rows) if value is not None]


def number(name: str, factor: float = 1.0) -> Reader:
    """Return a reader of a number, times a factor; None where there is none."""
    return lambda row: None if row.get(name) is None else factor * row[name]


def valid(measured: Row | None) -> float | None:
    """Return a measured value, None where it is missing or its controls failed."""
    return measured["value"] if measured and measured["valid"] else None


def short(value: float) -> str:
    """Format three significant digits, without an exponent below a million."""
    return f"{float(f'{value:.3g}'):,g}"


def spread_out(numbers: Sequence[float], form: str) -> str:
    """Format the mean and the standard deviation over seeds."""
    middle = form.format(mean(numbers))
    if len(numbers) < 2 or stdev(numbers) == 0.0:
        return middle
    return f"{middle} ± {form.format(stdev(numbers))}"


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table."""
    lines = ["| " + " | ".join(headings) + " |", "|---" * len(headings) + "|"]
    return [*lines, *("| " + " | ".join(map(str, row)) + " |" for row in rows)]


def fold(title: str, lines: Iterable[str]) -> list[str]:
    """Return lines under a title that a reader opens by a click."""
    return [f":::{{dropdown}} {title}", "", *lines, "", ":::"]


def table_of_methods(
    rows: list[Row],
    columns: Sequence[Column],
    last: tuple[str, Callable[[list[Row]], str]] | None = None,
) -> list[str]:
    """Return means over seeds per method, the best in bold; `last` heads and fills a column."""
    methods = group(rows, "method")
    shown = [c for c in columns if any(values(of, c[1]) for of in methods.values())]
    best = []
    for _, read, _, more in shown:
        means = [mean(found) for of in methods.values() if (found := values(of, read))]
        best.append(max(means) if more else min(means))
    lines = []
    for (method,), of in methods.items():
        parts = [method, str(len({row["seed"] for row in of}))]
        for (_, read, form, _), top in zip(shown, best, strict=True):
            found = values(of, read)
            text = spread_out(found, form) if found else "-"
            parts.append(f"**{text}**" if found and mean(found) == top else text)
        lines.append(parts + ([last[1](of)] if last else []))
    headings = ["method", "seeds", *(heading for heading, *_ in shown)]
    return table(headings + ([last[0]] if last else []), lines)
