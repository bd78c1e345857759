"""Fill the pages in docs that show results of other benchmarks than ``paper``."""

from __future__ import annotations

from statistics import mean, median

from benchmarks import (
    compare_page,
    disentangle,
    gap,
    novelty,
    pages,
    regularisation_page,
    tilted,
    time_to_quality,
)
from benchmarks.distributed import Cell
from benchmarks.gpu import ratios as gpu_ratios
from benchmarks.pages import DOCS, Column, fill, group, number, section, table, valid
from benchmarks.profile import KINDS, OTHER
from benchmarks.runner import Row
from benchmarks.speed import RATIOS, ratios
from benchmarks.work import CONTENDERS

PEER, OURS = "scVI", "HEBAE"


def scib(name: str) -> pages.Reader:
    """Return a reader of a number of scib-metrics."""
    return lambda row: row["scib"][name]


TYPES: tuple[Column, ...] = (
    ("k-NN", number("knn_accuracy"), "{:.3f}", True),
    ("NMI", lambda row: valid(row["nmi"]), "{:.3f}", True),
    ("ARI", lambda row: valid(row["ari"]), "{:.3f}", True),
    ("silhouette", lambda row: valid(row["silhouette"]), "{:.3f}", True),
)
SECONDS: tuple[Column, ...] = (
    ("fit s", number("fit_seconds"), "{:.1f}", False),
    ("CPU s", number("processor_seconds"), "{:.1f}", False),
)
SCIB: tuple[Column, ...] = (
    ("total", scib("Total"), "{:.3f}", True),
    ("biology", scib("Bio conservation"), "{:.3f}", True),
    ("mixing", scib("Batch correction"), "{:.3f}", True),
    ("k-NN", number("knn_accuracy"), "{:.3f}", True),
    ("purity", number("purity"), "{:.3f}", True),
)
PROJECTED: tuple[Column, ...] = (
    ("accuracy", number("accuracy"), "{:.3f}", True),
    ("fit s", number("fit_seconds"), "{:.1f}", False),
    ("project s", number("project_seconds"), "{:.2f}", False),
)


def cells(rows: list[Row], columns: tuple[Column, ...], *keys: str) -> list[str]:
    """Return a table per data set, and per value of other keys."""
    lines: list[str] = []
    for key, of in group(rows, "data", *keys).items():
        first = of[0]
        genes = f", {first['n_genes']:,} genes" if "n_genes" in first else ""
        named = ", ".join([key[0], *(f"`{value}`" for value in key[1:])])
        lines += [f"### {named}: {first['n_cells']:,} cells{genes}", "", *compared(of)]
        lines += [*pages.table_of_methods(of, columns), ""]
    return lines[:-1]


def compared(rows: list[Row]) -> list[str]:
    """Hold HEBAE's total and time against scVI's, where both are there."""
    methods = group(rows, "method")
    if "scib" not in rows[0] or not {(PEER,), (OURS,)} <= methods.keys():
        return []
    ours, peers = methods[(OURS,)], methods[(PEER,)]
    totals = [mean(row["scib"]["Total"] for row in of) for of in (ours, peers)]
    ratio = mean(r["fit_seconds"] for r in ours) / mean(r["fit_seconds"] for r in peers)
    said = f"Total: HEBAE {totals[0]:.3f}, scVI {totals[1]:.3f}. HEBAE takes {ratio:.2f} of "
    said += "scVI's time"
    return [f"{said} (threads: {ours[0]['threads']}).", ""]


def speed(rows: list[Row]) -> list[str]:
    """Return tables of rates and memory, and of ratios."""
    lines = []
    for (name,), of in group((r for r in rows if r["name"] in CONTENDERS), "name").items():
        rates = [row["rows_per_second"] for row in of]
        peak = median(row["peak_mib"] for row in of)
        spread = f"{median(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})"
        lines.append([*name.split(": "), spread, f"{peak:,.0f}"])
    compared = [[f"`{key}`", " / ".join(RATIOS[key]), text] for key, text in ratios(rows).items()]
    return [
        *table(["task", "method", "rows/s, median (range)", "peak MiB"], lines),
        "",
        "**Ratios of these rates**, above 1 where the first method is faster. The range is over "
        "rounds, in which the methods take turns.",
        "",
        *table(["name", "first over second", "ratio (range)"], compared),
    ]


def profile(rows: list[Row]) -> list[str]:
    """Return the tables of the kinds of operations in a step, and of the rate of products."""
    first, kinds = rows[0], (*KINDS, OTHER, "none")
    keys = ("step", "arithmetic_ms", *(kind for kind in kinds if kind in first))
    lines = [[row["name"], *(f"{row[key]:.2f}" for key in keys)] for row in rows]
    rates = {first["precision"]: first["product_gflops"]}
    rates |= {"float32": first["product_gflops_float32"]}
    products = [[name, f"{rate:.0f}"] for name, rate in rates.items()]
    return [
        *table(["task", "step ms", "arithmetic", *keys[2:-1], "outside torch"], lines),
        "",
        "**Rate of a single matrix product** of 128 x 784 and 784 x 784, in GFLOP/s.",
        "",
        *table(["precision", "GFLOP/s"], products),
    ]


def gpu(rows: list[Row]) -> list[str]:
    """Return the table of rates on a GPU, and ratios."""
    lines = []
    for (name, size, how), of in group(rows, "name", "batch_size", "how").items():
        first, rate = of[0], median(row["rows_per_second"] for row in of)
        until = f"{first['seconds_until_then']:,.2f}" if "seconds_until_then" in first else ""
        memory = f"{first['gpu_mib']:,.0f}" if "gpu_mib" in first else ""
        lines.append([name, f"{size:,}", how, f"{rate:,.0f}", until, memory])
    headings = ["task", "rows per step", "method", "rows/s", "warm-up s", "GPU MiB"]
    return [
        f"Card: {rows[0]['gpu']}.",
        "",
        *table(headings, lines),
        "",
        "**Ratios to the peer** at 128 rows per step, with CUDA graphs and, in brackets, compiled.",
        "",
        *(f"- `{label}: {text}`" for label, text in gpu_ratios(rows).items()),
    ]


def scale(rows: list[Row]) -> list[str]:
    """Return the table of epochs from a file against those in memory."""
    inside = {row["n_cells"]: row["rows_per_second"] for row in rows if row["how"] == "in memory"}
    lines = []
    for row in sorted(rows, key=lambda row: row["n_cells"]):
        rate, reference = row["rows_per_second"], inside.get(row["n_cells"])
        share = f"{rate / reference:.0%}" if reference else "-"
        lines.append([f"{row['n_cells']:,}", f"{row['file_mb']:,.0f}", row["how"], f"{rate:,.0f}"])
        lines[-1] += [share, f"{row['peak_mib']:,.0f}", f"{row['total_seconds']:,.0f}"]
    headings = ["cells", "file MB", "source", "cells/s", "share of in-memory rate"]
    headings += ["peak MiB", "fit s"]
    return table(headings, lines)


def steps(rows: list[Row]) -> list[list[str]]:
    """Return a line of medians per cell; the base around which it varies has the usual numbers."""
    names = ("seconds_a_step", "gradient_bytes", "code_bytes")
    found = {
        Cell(*key): [median(row[name] for row in of) for name in names]
        for key, of in group(rows, *Cell._fields).items()
    }
    numbers = [[cell[i] for cell in found] for i in range(4)]
    base = Cell(*(max(set(of), key=of.count) for of in numbers))
    order = {
        cell: None
        for i in range(4)
        for cell in sorted(found)
        if cell.n_processes == 1 and cell[:i] + cell[i + 1 :] == base[:i] + base[i + 1 :]
    }
    lines = []
    for cell in order:
        (one, *_), (two, gradients, codes) = found[cell], found[cell._replace(n_processes=2)]
        line = [f"{cell.n_rows:,}", f"{cell.n_features:,}", str(cell.n_components)]
        line += [f"{cell.batch_size:,}", f"{1e3 * one:.1f}", f"{1e3 * two:.1f}"]
        line += [f"{2.0 * one / two:.2f} x", f"{gradients / 1e6:.2f}", f"{codes / 1e3:.1f}"]
        lines.append(line)
    return lines


def distributed(rows: list[Row]) -> list[str]:
    """Return the table of the measured steps."""
    headings = ["rows", "features", "components", "rows per step and process"]
    headings += ["ms per step, 1 process", "2 processes", "rows per second, 2 against 1"]
    headings += ["gradients, MB", "codes, kB"]
    return table(headings, steps(rows))


def single_cell() -> None:
    """Fill the page of single cells."""
    environment, rows = pages.load("single_cell")
    types = [row for row in rows if row["kind"] == "types"]
    projected = [row for row in rows if row["kind"] == "projection"]
    fill(
        DOCS / "single-cell-results.md",
        batches=cells([row for row in types if "scib" in row], SCIB + SECONDS),
        types=cells([row for row in types if "scib" not in row], TYPES + SECONDS, "label"),
        projection=cells(projected, PROJECTED, "batch"),
        made=pages.made_by("single-cell", environment, rows)[1:],
    )


def main() -> None:
    """Fill every page."""
    compare_page.main()
    single_cell()
    regularisation_page.main()
    fill(DOCS / "novelty.md", novelty=section("novelty", novelty.summary))
    parts = {of.__name__: section(of.__name__, of) for of in (speed, profile, gpu, scale)}
    quality = {"time-to-quality": section("time-to-quality", time_to_quality.summary)}
    fill(DOCS / "performance.md", **parts, **quality)
    fill(DOCS / "bound-gap.md", gap=section("gap", gap.summary))
    fill(DOCS / "disentangle.md", disentangle=section("disentangle", disentangle.summary))
    fill(DOCS / "scaling-measured.md", measured=section("distributed", distributed))
    fill(DOCS / "tilted.md", tilted=section("tilted", tilted.summary))
