"""Tables and figure of docs/regularisation.md, from the results of ``regularisation``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks.pages import DOCS, fill, fold, load, made_by, short, table
from benchmarks.regularisation import ALL_SQUARED, GRAPHS, SIZE, SQUARED, claims, gap, models
from benchmarks.runner import Row
from skhebae.diagnostics.gaussian import Curves

FIGURE = DOCS / "images" / "regularisation.png"


def model_table(rows: list[Row]) -> list[str]:
    """Return the table of Gaussian models, one line per kind under L2."""
    lines = []
    for row in models(rows):
        crossing = "-" if row["crossing"] is None else short(row["crossing"])
        kind = [row["scheme"], row["graph"], row["size"], f"{row['per_site']:g}", row["squared"]]
        # The prior of the L2 fit has the number of sites in it; pseudo-rows do not.
        unit = {"L2": 1.0, "pseudo-rows": row["size"]}.get(row["scheme"])
        scaled = "" if unit is None else f"{row['best'] * row['squared'] / unit:.2f}"
        lines.append([*kind, short(row["best"]), scaled, crossing, f"{gap(row):.3f}"])
    headings = ["scheme", "graph", "sites", "rows/site", "coupling", "best", "ratio", "crossing"]
    return fold(f"All {len(lines)} kinds of models", table([*headings, "gap"], lines))


def real_table(rows: list[Row]) -> list[str]:
    """Return the table of real tables."""
    lines = []
    real = [row for row in rows if row["part"] == "real"]
    for row in sorted(real, key=lambda row: (row["data"], row["model"], row["parameter"])):
        line = [row["data"], row["model"], row["parameter"], f"{row['best']:.3g}"]
        line[-1] += " (an end)" if row["at_an_end"] else ""
        line += [f"{row['one_standard_error']:.3g}"]
        line += [f"{row[name]:.2f}" for name in Curves._fields]
        crosses = row["crossing"] is not None
        line += [f"{row['crossing']:.3g}" if crosses else "none"]
        line += [f"{row['lost']:.2f} ± {row['lost_error']:.2f}" if crosses else "-"]
        lines.append(line)
    headings = ["data", "model", "strength", "best", "one-SE", "training", "held out"]
    return table([*headings, "generated", "crossing", "loss at crossing"], lines)


def parts(rows: list[Row]) -> dict[str, list[str]]:
    """Return the generated parts of the page."""
    verdicts = table(["claim", "measured", "verdict"], claims(rows))
    return {"claims": verdicts, "models": model_table(rows), "real": real_table(rows)}


def draw(rows: list[Row], path: Path = FIGURE) -> None:
    """Draw the curves of one kind of model under L2, all best strengths, and a real table's."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    base = next(row for row in models(rows) if row["scheme"] == "L2" and "curves" in row)
    chosen = {"part": "real", "data": "breast-cancer", "parameter": "beta"}
    real = next(row for row in rows if chosen.items() <= row.items())
    for axis, row in ((left, base), (right, real)):
        lines, colours = row["curves"], ("C0", "C3", "C1")
        for name, colour in zip(Curves._fields, colours, strict=True):
            axis.plot(lines["values"], lines[name], color=colour, label=name.replace("_", "-"))
        axis.axvline(row["best"], color="0.25", label="best")
        if row["crossing"] is not None:
            axis.axvline(row["crossing"], color="0.25", linestyle=":", label="curves cross")
        reach, all_ = 2.5 * (row["train"] - row["held_out"]), [lines[n] for n in Curves._fields]
        low = max(row["held_out"] - reach, np.min(all_) - 0.1 * reach)
        high = min(row["train"] + reach, np.max(all_) + 0.1 * reach)
        axis.set(xscale="log", ylabel="nats per row", ylim=(low, high))
    left.axvline(1.0 / SQUARED, color="C2", linestyle="--", label="1 / squared couplings")
    left.set(xlabel="L2 strength", title=f"random graph, {SIZE} sites and rows")
    right.set(xlabel="beta", title="VAE on breast-cancer")
    left.legend(fontsize="small")
    for i, (graph, marker) in enumerate(zip(GRAPHS, "os^D", strict=True)):
        of = [r for r in models(rows) if r["scheme"] == "L2" and r["graph"] == graph]
        shown = [(0.94 + 0.04 * i) / row["squared"] for row in of], [row["best"] for row in of]
        middle.scatter(*shown, s=[20 * row["per_site"] ** 0.5 for row in of], marker=marker,
                       alpha=0.6, label=graph)  # fmt: skip
    ends = [1.0 / max(ALL_SQUARED), 1.0 / min(ALL_SQUARED)]
    middle.plot(ends, ends, color="0.25")
    middle.set(xlabel="1 / squared couplings", ylabel="best L2 strength")
    middle.set(title="larger marks: more rows")
    middle.legend(fontsize="small")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def main() -> None:
    """Fill the page, and draw its figure."""
    environment, rows = load("regularisation")
    made = made_by("regularisation", environment)[1:]
    fill(DOCS / "regularisation.md", **parts(rows), made=made)
    draw(rows)
