"""docs/single-cell-results.md, from results/single_cell.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.pages import Column, described, group, load, spread_out, table_of_methods

Row = dict[str, Any]
Reader = Callable[[Row], float | None]

PAGE = Path(__file__).parents[1] / "docs" / "single-cell-results.md"

PEER, OURS = "scVI", "HEBAE"


def measured(name: str) -> Reader:
    """Return what reads a measure: None where its controls failed."""
    return lambda row: row[name]["value"] if row[name]["valid"] else None


def scib(name: str) -> Reader:
    """Return what reads a number of scib-metrics."""
    return lambda row: row["scib"][name]


def number(name: str) -> Reader:
    """Return what reads a number of a row, None where there is none."""
    return lambda row: row.get(name)


TYPES: tuple[Column, ...] = (
    ("k-NN", number("knn_accuracy"), "{:.3f}", True),
    ("NMI", measured("nmi"), "{:.3f}", True),
    ("ARI", measured("ari"), "{:.3f}", True),
    ("silhouette", measured("silhouette"), "{:.3f}", True),
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


def size(rows: list[Row]) -> str:
    """How many cells and genes."""
    return f"{rows[0]['n_cells']:,} cells, {rows[0]['n_genes']:,} genes"


def of_types(rows: list[Row]) -> list[str]:
    """Tables of the sets whose batches are left alone."""
    lines = [
        "## Cell types",
        "",
        "k-NN: accuracy of 15 neighbours in five folds. NMI and ARI: of k-means with as many",
        "clusters as there are types. Silhouette: of the types. More is better.",
        "",
    ]
    for (data, label), of in group(rows, "data", "label").items():
        if "scib" not in of[0]:
            lines += [
                f"### {data}, `{label}`: {size(of)}",
                "",
                *table_of_methods(of, TYPES + SECONDS),
                "",
            ]
    return lines


def of_batches(rows: list[Row]) -> list[str]:
    """Tables of the sets whose batches are integrated."""
    lines = [
        "## Batches",
        "",
        "Totals of scib-metrics (0.6 biology + 0.4 mixing; 50 principal components are the state",
        "before). `batch_share` is how much of HEBAE's penalty falls on each batch's codes: 0",
        "leaves integration to the decoder, which sees the labels; the default is 1. In the",
        "*one-sided* sets each batch has lost a frequent type of its own; purity is the share",
        "of neighbours of such cells that are of the same type. It falls where batches are mixed",
        "that ought to stay apart.",
        "",
    ]
    for (data,), of in group([row for row in rows if "scib" in row], "data").items():
        lines += [f"### {data}: {size(of)}", "", *compared(of), ""]
        lines += [*table_of_methods(of, SCIB + SECONDS), ""]
    return lines


def compared(rows: list[Row]) -> list[str]:
    """One line: HEBAE's total and time against scVI's, nothing if either is missing."""
    methods = group(rows, "method")
    if (PEER,) not in methods or (OURS,) not in methods:
        return []
    ours, peers = methods[(OURS,)], methods[(PEER,)]
    totals = [mean(row["scib"]["Total"] for row in of) for of in (ours, peers)]
    ratio = mean(r["fit_seconds"] for r in ours) / mean(r["fit_seconds"] for r in peers)
    return [
        f"HEBAE {totals[0]:.3f}, scVI {totals[1]:.3f}, in {ratio:.2f} of scVI's time "
        f"(threads: {ours[0]['threads']})."
    ]


def of_projection(rows: list[Row]) -> list[str]:
    """Tables of batches that were left out of the fit."""
    lines = [
        "## New cells",
        "",
        "Fit without one batch, project it, predict its types by 15 neighbours among the cells",
        "of the fit. scVI's projection is scArches' surgery: 100 epochs of training on the new",
        "cells; the others map a cell at once.",
        "",
    ]
    for (data, batch), of in group(rows, "data", "batch").items():
        title = f"### {data}, `{batch}` left out: {of[0]['n_cells']:,} cells"
        lines += [title, "", *table_of_methods(of, PROJECTED), ""]
    return lines


def of_genotypes(rows: list[Row]) -> list[str]:
    """Table of populations at four dimensions."""
    return [
        "## Genotypes",
        "",
        "hapmap: populations of 279 people at four dimensions, from 0, 1 or 2 copies of each",
        "variant. Missing calls are the variant's mean, as `SimpleImputer` fills them in; of",
        'the variants the 2,000 most variable are used. *Shares*: `likelihood="bernoulli"` of half',
        "the copies, which is the binomial of two draws. Neighbours find more of the populations",
        "in HEBAE's codes, the two from East Asia above all; k-means fewer: codes are as wide in",
        "every direction, and PCA's are widest where continents differ.",
        "",
        *table_of_methods(rows, TYPES),
        "",
    ]


def of_defaults() -> list[str]:
    """Table behind the defaults for counts."""
    environment, rows = load("count_defaults")
    lines = [
        "## Defaults for counts",
        "",
        "Bound of held-out cells (a quarter), nats a cell, with multiples of the default's epochs",
        "and input noises; the default is noise 1 and its epochs once. Longer training learns the",
        "noise of the counts by heart, the bound and the neighbours say, and less so the more",
        "input noise there is.",
        "",
        "| set | noise | epochs | bound | k-NN, held out | fit s |",
        "|---|---|---|---|---|---|",
    ]
    for (data, noise, _), of in group(rows, "data", "input_noise", "times").items():
        shown = (("bound", "{:.1f}"), ("knn_accuracy", "{:.3f}"), ("seconds", "{:.1f}"))
        numbers = [spread_out([row[key] for row in of], form) for key, form in shown]
        lines.append(f"| {data} | {noise:g} | {of[0]['epochs']} | " + " | ".join(numbers) + " |")
    made = f"Made by `python -m benchmarks count-defaults`: {described(environment)}."
    return [*lines, "", made, ""]


def main() -> None:
    """Write the page."""
    environment, rows = load("single_cell")
    kinds = {kind: of for (kind,), of in group(rows, "kind").items()}
    lines = [
        "# Single cells: results",
        "",
        "Generated by `python -m benchmarks table` from `benchmarks/results/single_cell.json`; do",
        "not edit. How to choose: [single-cell.md](single-cell.md). Ten dimensions, at most 2,000",
        "variable genes, the same cells and genes for all methods; PCA, UMAP and *log values* see",
        "log-normalised values, the others counts. scVI has its defaults, and 100 epochs without",
        "batches, 200 with them.",
        "",
    ]
    pages = {
        "types": lambda of: of_batches(of) + of_types(of),
        "projection": of_projection,
        "genotypes": of_genotypes,
    }
    for kind, page in pages.items():
        if kind in kinds:
            lines += page(kinds[kind])
    lines += [f"Made by `python -m benchmarks single-cell`: {described(environment)}.", ""]
    PAGE.write_text("\n".join(lines + of_defaults()))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
