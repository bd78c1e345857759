"""Fill the pages of the reducers, of PCA, of missing values and of mixed tables."""

from __future__ import annotations

from statistics import mean

from benchmarks import missing, pages, tabular_page
from benchmarks import tables as against_pca
from benchmarks.pages import DOCS, Column, Reader, fill, fold, group, load, number, section, table
from benchmarks.reducers import METHODS
from benchmarks.runner import Row

#: The number of components whose results the summary shows.
SUMMARY_DIMENSIONS = 10


def metric(name: str) -> Reader:
    """Return a reader of a measure of codes: None where its controls failed."""
    return lambda row: pages.valid(row["metrics"].get(name))


def two_sample(row: Row) -> float | None:
    """Return the two-sample accuracy of the density that `sample` draws from by default."""
    return pages.valid(next(iter(row["samples"].values()), None))


def inverse_ms(row: Row) -> float | None:
    """Return milliseconds per row of the inverse."""
    if row.get("inverse_seconds") is None:
        return None
    return 1000 * row["inverse_seconds"] / row["inverse_rows"]


def error_share(row: Row) -> float | None:
    """Return the held-out squared error as a share of that of the mean row."""
    if row.get("held_out_squared_error") is None:
        return None
    return row["held_out_squared_error"] / row["squared_error_of_mean"]


KNN, TRUST, GLOBAL, NMI = map(
    metric, ("knn_accuracy", "trustworthiness", "distance_correlation", "nmi")
)
FIT, MANY = number("fit_seconds"), number("transform_seconds")
ONE, FILE = number("one_row_seconds", 1000), number("saved_bytes", 1e-3)
COLUMNS: tuple[Column, ...] = (
    ("error", error_share, "{:.3f}", False),
    ("k-NN", KNN, "{:.3f}", True),
    ("trustw.", TRUST, "{:.3f}", True),
    ("contin.", metric("continuity"), "{:.3f}", True),
    ("dist. corr.", GLOBAL, "{:.3f}", True),
    ("NMI", NMI, "{:.3f}", True),
    ("ARI", metric("ari"), "{:.3f}", True),
    ("silh.", metric("silhouette"), "{:.3f}", True),
    ("two-sample", two_sample, "{:.3f}", False),
    ("fit s", FIT, "{:.2f}", False),
    ("10k rows s", MANY, "{:.3f}", False),
    ("1 row ms", ONE, "{:.2f}", False),
    ("inverse ms", inverse_ms, "{:.3f}", False),
    ("file kB", FILE, "{:.0f}", False),
    ("peak MiB", number("peak_mib"), "{:.0f}", False),
)

#: Columns of the summary: means over the shared sets, and numbers of the largest of them.
QUALITY: dict[str, Reader] = {
    "error": error_share,
    "k-NN": KNN,
    "trustw.": TRUST,
    "dist. corr.": GLOBAL,
    "two-sample": two_sample,
}
COSTS = {"fit s": FIT, "10k rows s": MANY, "1 row ms": ONE, "file kB": FILE}


def cells_of(rows: list[Row]) -> list[Row]:
    """Return the cells that succeeded."""
    return [row for row in rows if row["kind"] == "cell" and "error" not in row]


def independent(cells: list[Row]) -> str:
    """Say whether a row has the same code whatever rows it comes with, in every cell."""
    return "yes" if all(row["row_independent"] for row in cells) else "no"


def tables(rows: list[Row]) -> list[str]:
    """Return a table per data set and number of components, and what failed."""
    lines: list[str] = []
    for (data, d), cells in group(cells_of(rows), "data", "n_components").items():
        one = cells[0]
        size = f"{one['n_train']:,} training rows, {one['n_test']:,} held-out rows"
        said = [f"{size}, {one['n_features']:,} features; {one['n_neighbors']} neighbours.", ""]
        said += pages.table_of_methods(cells, COLUMNS, ("batch-invariant", independent))
        lines += ["", *fold(f"{data}, d = {d}", said)]
    failed = [row for row in rows if row["kind"] == "cell" and "error" in row]
    keys = ("data", "method", "n_components", "error")
    failures = [[*key, len(of)] for key, of in group(failed, *keys).items()]
    headings = ["failed on", "method", "d", "error", "seeds"]
    return [*lines, *(["", *table(headings, failures)] if failures else [])]


def by_data(cells: list[Row], read: Reader) -> dict[str, dict[str, float]]:
    """Return the mean over seeds of each method on each set."""
    result: dict[str, dict[str, float]] = {}
    for (data, method), rows in group(cells, "data", "method").items():
        if found := pages.values(rows, read):
            result.setdefault(data, {})[method] = mean(found)
    return result


def summary(rows: list[Row]) -> list[str]:
    """Return a line per method that comes with the package: quality, costs, and what it can do."""
    cells = [row for row in cells_of(rows) if row["n_components"] == SUMMARY_DIMENSIONS]
    methods = [name for name in METHODS if any(row["method"] == name for row in cells)]
    ran = ({row["data"] for row in cells if row["method"] == name} for name in methods)
    sizes = {row["data"]: row["n_train"] for row in cells}
    common = sorted(set.intersection(*ran))
    largest = max(common, key=lambda data: sizes[data])
    lines = []
    for method in methods:
        of_method = [r for r in cells if r["method"] == method and r["data"] in common]
        parts = [method]
        for read in QUALITY.values():
            means = [of[method] for of in by_data(of_method, read).values()]
            parts.append(f"{mean(means):.3f}" if means else "-")
        for read in COSTS.values():
            found = pages.values([row for row in of_method if row["data"] == largest], read)
            parts.append(pages.short(mean(found)) if found else "-")
        parts += ["yes" if pages.values(of_method, error_share) else "no", independent(of_method)]
        lines.append(parts)
    headings = ["method", *QUALITY, *COSTS, "inverse", "batch-invariant"]
    return [
        *table(headings, lines),
        "",
        f"{SUMMARY_DIMENSIONS} components. Scores are means over the held-out rows of "
        f"{', '.join(common)}. Seconds and file size are for {largest}. *Error* is the squared "
        "error of the reconstruction as a share of that of the mean row; lower is better. "
        "*Two-sample* is the accuracy of a nearest-neighbour classifier that tells samples from "
        "real rows; 0.5 is best. Higher is better for the other scores.",
    ]


def main() -> None:
    """Fill the pages."""
    reducers = {"summary": summary(load("compare")[1]), "cells": section("compare", tables)}
    fill(DOCS / "benchmarks-compare.md", **reducers)
    fill(DOCS / "benchmarks-pca.md", tables=section("tables", against_pca.summary))
    fill(DOCS / "benchmarks-missing.md", missing=section("missing", missing.summary))
    fill(DOCS / "benchmarks-mixed.md", tabular=section("tabular", tabular_page.summary))
