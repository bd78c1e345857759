"""The measured part of docs/scaling.md, from results/distributed.json."""

from __future__ import annotations

import re
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.pages import described, group, load

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
BEGIN, END = "<!-- measured -->", "<!-- /measured -->"

#: What is computed: so many cells, in so many processes.
N_CELLS = 10**8
PROCESSES = (1, 2, 8, 32, 128)

#: Epochs that `max_iter="auto"` spends on so many rows.
N_EPOCHS = 5

KEYS = ("n_rows", "n_features", "n_components", "batch_size", "n_processes")
Medians = dict[tuple[int, ...], dict[str, float]]


def medians(rows: list[dict[str, Any]]) -> Medians:
    """Median over rounds of every number, by what was measured."""
    numbers = ("seconds_a_step", "seconds_around", "gradient_bytes", "code_bytes")
    return {
        cell: {name: median(row[name] for row in of) for name in numbers}
        for cell, of in group(rows, *KEYS).items()
    }


def base_of(found: Medians) -> tuple[int, ...]:
    """Return the numbers that most measurements have, in the order of `KEYS`."""
    values = [[cell[i] for cell in found] for i in range(len(KEYS) - 1)]
    return tuple(max(set(of), key=of.count) for of in values)


def steps(found: Medians) -> list[str]:
    """Table of a step against each number, in one process and in two."""
    base = base_of(found)
    lines = [
        "| rows | features | components | rows a step and process | ms a step, 1 process "
        "| 2 processes | rows a second, 2 against 1 | gradients, MB | codes, kB |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    shown = set()
    for i in range(len(base)):
        for *numbers, n_processes in sorted(found):
            cell = tuple(numbers)
            varied = all(cell[j] == base[j] for j in range(len(base)) if j != i)
            if not varied or cell in shown or n_processes > 1:
                continue
            shown.add(cell)
            one, two = found[(*cell, 1)], found[(*cell, 2)]
            slow, both = one["seconds_a_step"], two["seconds_a_step"]
            lines.append(
                f"| {cell[0]:,} | {cell[1]:,} | {cell[2]} | {cell[3]:,} "
                f"| {1e3 * slow:.1f} | {1e3 * both:.1f} "
                f"| {2.0 * slow / both:.2f} x | {two['gradient_bytes'] / 1e6:.2f} "
                f"| {two['code_bytes'] / 1e3:.1f} |"
            )
    return lines


def hours(found: Medians, n_processes: int, batch_size: int) -> tuple[float, float, float]:
    """Milliseconds a step, and hours of an epoch and of the passes around training."""
    base = (*base_of(found)[:-1], batch_size)
    one, two = found[(*base, 1)], found[(*base, 2)]
    talk = max(0.0, two["seconds_a_step"] - one["seconds_a_step"])
    # A ring sends 2 (W - 1) / W of the bytes through each process: 1 for two processes.
    step = one["seconds_a_step"] + talk * 2.0 * (n_processes - 1) / n_processes
    n_steps = N_CELLS / (n_processes * batch_size)
    around = around_a_row(found) * N_CELLS / n_processes
    return 1e3 * step, step * n_steps / 3600.0, around / 3600.0


def around_a_row(found: Medians) -> float:
    """Seconds of the passes around training that a row adds, by the least and the most rows."""
    _, *others = base_of(found)
    seconds = {
        cell[0]: of["seconds_around"] for cell, of in found.items() if cell[1:] == (*others, 1)
    }
    least, most = min(seconds), max(seconds)
    return max(0.0, seconds[most] - seconds[least]) / max(1, most - least)


def computed(found: Medians) -> list[str]:
    """Table of what `N_CELLS` take."""
    sizes = sorted({cell[3] for cell in found})
    lines = [
        "| processes | rows in a minibatch | ms a step | hours an epoch | hours around | hours, "
        f"{N_EPOCHS} epochs |",
        "|---|---|---|---|---|---|",
    ]
    for n_processes, size in product(PROCESSES, sizes):
        step, epoch, around = hours(found, n_processes, size)
        lines.append(
            f"| {n_processes} | {size * n_processes:,} | {step:.1f} | {epoch:.2f} | {around:.2f} "
            f"| {N_EPOCHS * epoch + around:.1f} |"
        )
    return lines


def block(environment: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """All lines between the marks."""
    found = medians(rows)
    base = base_of(found)
    return [
        BEGIN,
        f"Each number on its own around {base[0]:,} rows of {base[1]:,} features, {base[2]} "
        f"components and {base[3]} rows a step; medians of",
        f"{len({row['round'] for row in rows})} rounds:",
        "",
        *steps(found),
        "",
        f"{N_CELLS:,} cells of {base[1]:,} genes from these numbers, `T = N / (W b) t(W)` an epoch "
        "on W processes",
        "of b rows each in a step, with `t(W) = t(1) + 2 (W - 1) / W (t(2) - t(1))`:",
        "",
        *computed(found),
        "",
        f"Made by `python -m benchmarks distributed`: {described(environment)}.",
        END,
    ]


def main() -> None:
    """Put the numbers into the page."""
    text = PAGE.read_text()
    lines = "\n".join(block(*load("distributed")))
    pattern = f"{re.escape(BEGIN)}.*?{re.escape(END)}"
    PAGE.write_text(re.sub(pattern, lambda _: lines, text, flags=re.DOTALL))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
