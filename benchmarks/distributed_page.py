"""The measured part of docs/scaling.md, from results/distributed.json."""

from __future__ import annotations

import re
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

Medians = dict[tuple[int, int, int, int], dict[str, float]]
KEYS = ("n_rows", "n_features", "n_components", "n_processes")


def medians(rows: list[dict[str, Any]]) -> Medians:
    """Median over rounds of every number, by what was measured."""
    numbers = ("seconds_a_step", "seconds_around", "gradient_bytes", "code_bytes")
    return {
        (cell[0], cell[1], cell[2], cell[3]): {
            name: median(row[name] for row in of) for name in numbers
        }
        for cell, of in group(rows, *KEYS).items()
    }


def base_of(found: Medians) -> tuple[int, int, int]:
    """Return the rows, features and components that most measurements have."""
    values = [[cell[i] for cell in found] for i in range(3)]
    rows, features, components = (max(set(of), key=of.count) for of in values)
    return rows, features, components


def steps(found: Medians) -> list[str]:
    """Table of a step against each of the three numbers, in one process and in two."""
    base = base_of(found)
    lines = [
        "| rows | features | components | ms a step, 1 process | 2 processes | rows a second, "
        "2 against 1 | gradients, MB | codes, kB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shown = set()
    for i in range(3):
        for cell in sorted(found):
            varied = all(cell[j] == base[j] for j in range(3) if j != i)
            one, two = found.get((*cell[:3], 1)), found.get((*cell[:3], 2))
            if not varied or cell[:3] in shown or one is None or two is None:
                continue
            shown.add(cell[:3])
            slow, both = one["seconds_a_step"], two["seconds_a_step"]
            lines.append(
                f"| {cell[0]:,} | {cell[1]:,} | {cell[2]} | {1e3 * slow:.1f} | {1e3 * both:.1f} "
                f"| {2.0 * slow / both:.2f} x | {two['gradient_bytes'] / 1e6:.2f} "
                f"| {two['code_bytes'] / 1e3:.1f} |"
            )
    return lines


def hours(found: Medians, n_processes: int, batch_size: int = 128) -> tuple[float, float, float]:
    """Milliseconds a step, and hours of an epoch and of the passes around training."""
    base = base_of(found)
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
    lines = [
        "| processes | rows in a minibatch | ms a step | hours an epoch | hours around | hours, "
        f"{N_EPOCHS} epochs |",
        "|---|---|---|---|---|---|",
    ]
    for n_processes in PROCESSES:
        step, epoch, around = hours(found, n_processes)
        lines.append(
            f"| {n_processes} | {128 * n_processes:,} | {step:.1f} | {epoch:.2f} | {around:.2f} "
            f"| {N_EPOCHS * epoch + around:.1f} |"
        )
    return lines


def block(environment: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """All lines between the marks."""
    found = medians(rows)
    base = base_of(found)
    return [
        BEGIN,
        f"Each number on its own around {base[0]:,} rows of {base[1]:,} features and {base[2]} "
        "components; medians of",
        f"{len({row['round'] for row in rows})} rounds:",
        "",
        *steps(found),
        "",
        f"{N_CELLS:,} cells of {base[1]:,} genes from these numbers, `T = N / (W b) t(W)` an epoch "
        "on W processes",
        "of b = 128 rows, with `t(W) = t(1) + 2 (W - 1) / W (t(2) - t(1))`:",
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
