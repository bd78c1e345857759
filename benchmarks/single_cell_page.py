"""Fill docs/single-cell-results.md from results/single_cell.json."""

from __future__ import annotations

from statistics import mean

from benchmarks.pages import (
    DOCS,
    Column,
    Reader,
    fill,
    group,
    load,
    made_by,
    number,
    table_of_methods,
    valid,
)
from benchmarks.runner import Row

PEER, OURS = "scVI", "HEBAE"


def scib(name: str) -> Reader:
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
    ("processor s", number("processor_seconds"), "{:.1f}", False),
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


def tables(rows: list[Row], columns: tuple[Column, ...], *keys: str) -> list[str]:
    """Return a table per data set, and per value of other keys."""
    lines: list[str] = []
    for key, of in group(rows, "data", *keys).items():
        first = of[0]
        genes = f", {first['n_genes']:,} genes" if "n_genes" in first else ""
        named = ", ".join([key[0], *(f"`{value}`" for value in key[1:])])
        lines += [f"### {named}: {first['n_cells']:,} cells{genes}", "", *compared(of)]
        lines += [*table_of_methods(of, columns), ""]
    return lines[:-1]


def compared(rows: list[Row]) -> list[str]:
    """Hold HEBAE's total and time against scVI's, where both are there."""
    methods = group(rows, "method")
    if "scib" not in rows[0] or not {(PEER,), (OURS,)} <= methods.keys():
        return []
    ours, peers = methods[(OURS,)], methods[(PEER,)]
    totals = [mean(row["scib"]["Total"] for row in of) for of in (ours, peers)]
    ratio = mean(r["fit_seconds"] for r in ours) / mean(r["fit_seconds"] for r in peers)
    said = f"HEBAE {totals[0]:.3f}, scVI {totals[1]:.3f}, in {ratio:.2f} of scVI's time"
    return [f"{said} (threads: {ours[0]['threads']}).", ""]


def main() -> None:
    """Fill the page."""
    environment, rows = load("single_cell")
    types = [row for row in rows if row["kind"] == "types"]
    projected = [row for row in rows if row["kind"] == "projection"]
    fill(
        DOCS / "single-cell-results.md",
        batches=tables([row for row in types if "scib" in row], SCIB + SECONDS),
        types=tables([row for row in types if "scib" not in row], TYPES + SECONDS, "label"),
        projection=tables(projected, PROJECTED, "batch"),
        made=made_by("single-cell", environment, rows)[1:],
    )
