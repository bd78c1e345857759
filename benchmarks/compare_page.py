"""Tables, summary and figure of docs/benchmarks.md that come from results/compare.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.methods import CORE
from benchmarks.pages import Column, described, group, load, table_of_methods, values

Row = dict[str, Any]

HEBAE = "HEBAE"

#: The number of components whose results the summary speaks of.
SUMMARY_DIMENSIONS = 10

#: Differences of a score, and shares of an error, that count as none.
TIE, TIE_SHARE = 0.01, 0.02

#: Colours of the Petroff palette.
COLOURS = (
    "#bd1f01",
    "#ffa90e",
    "#832db6",
    "#3f90da",
    "#94a4a2",
    "#717581",
    "#a96b59",
    "#b9ac70",
    "#92dadd",
    "#e76300",
    "#000000",
)


def metric(name: str) -> Callable[[Row], float | None]:
    """Return what reads a measure of codes: None where its controls failed."""

    def read(row: Row) -> float | None:
        measured = row["metrics"].get(name)
        return measured["value"] if measured and measured["valid"] else None

    return read


def field(name: str, factor: float = 1.0) -> Callable[[Row], float | None]:
    """Return what reads a number of a row, times a factor."""
    return lambda row: None if row.get(name) is None else factor * row[name]


def told_apart(row: Row) -> float | None:
    """Return the share of samples told from rows, of the density that `sample` has by default."""
    measured = next(iter(row["samples"].values()), None)
    return measured["value"] if measured and measured["valid"] else None


def inverse_ms(row: Row) -> float | None:
    """Milliseconds a row of the inverse."""
    if row.get("inverse_seconds") is None:
        return None
    return 1000 * row["inverse_seconds"] / row["inverse_rows"]


def error_share(row: Row) -> float | None:
    """Held-out squared error as a share of that of the mean row."""
    if row.get("held_out_squared_error") is None:
        return None
    return row["held_out_squared_error"] / row["squared_error_of_mean"]


COLUMNS: tuple[Column, ...] = (
    ("error", error_share, "{:.3f}", False),
    ("k-NN", metric("knn_accuracy"), "{:.3f}", True),
    ("trustw.", metric("trustworthiness"), "{:.3f}", True),
    ("contin.", metric("continuity"), "{:.3f}", True),
    ("dist. corr.", metric("distance_correlation"), "{:.3f}", True),
    ("NMI", metric("nmi"), "{:.3f}", True),
    ("ARI", metric("ari"), "{:.3f}", True),
    ("silh.", metric("silhouette"), "{:.3f}", True),
    ("told apart", told_apart, "{:.3f}", False),
    ("fit s", field("fit_seconds"), "{:.2f}", False),
    ("10,000 rows s", field("transform_seconds"), "{:.3f}", False),
    ("one row ms", field("one_row_seconds", 1000), "{:.2f}", False),
    ("inverse ms a row", inverse_ms, "{:.3f}", False),
    ("file kB", field("saved_bytes", 1e-3), "{:.0f}", False),
    ("peak MiB", field("peak_mib"), "{:.0f}", False),
)


def cells_of(rows: list[Row]) -> list[Row]:
    """Return the cells that succeeded."""
    return [row for row in rows if row["kind"] == "cell" and "error" not in row]


def same_alone(cells: list[Row]) -> str:
    """Whether a row has the same code alone as among others, in every cell."""
    return "yes" if all(row["row_independent"] for row in cells) else "no"


def table(cells: list[Row]) -> list[str]:
    """`table_of_methods` of the measures of a comparison."""
    return table_of_methods(cells, COLUMNS, ("same alone", same_alone))


def tables(rows: list[Row]) -> list[str]:
    """Every data set and number of components, and what failed."""
    lines: list[str] = []
    for (data, d), cells in group(cells_of(rows), "data", "n_components").items():
        one = cells[0]
        lines += [
            f"### {data}, d = {d}",
            "",
            f"{one['n_train']} training rows, {one['n_test']} held out, {one['n_features']} "
            f"features; {one['n_neighbors']} neighbours.",
            "",
            *table(cells),
            "",
        ]
    failures = [row for row in rows if row["kind"] == "cell" and "error" in row]
    for (data, method, d, error), cells in group(
        failures, "data", "method", "n_components", "error"
    ).items():
        lines.append(f"- {data}, {method}, d = {d}, {len(cells)} seeds: {error}")
    return [*lines, ""] if failures else lines


def conformance(rows: list[Row]) -> list[str]:
    """Table of the estimator checks."""
    lines = [
        "### scikit-learn's estimator checks",
        "",
        "| method | passed | failed | first failures |",
        "|---|---|---|---|",
    ]
    for row in rows:
        if row["kind"] != "conformance":
            continue
        if row.get("passed") is None:
            lines.append(f"| {row['method']} | not an estimator | | |")
            continue
        named = ", ".join(f"`{name}`" for name in row["failures"][:3])
        lines.append(f"| {row['method']} | {row['passed']} | {row['failed']} | {named} |")
    return [*lines, ""]


def by_data(cells: list[Row], read: Callable[[Row], float | None]) -> dict[str, dict[str, float]]:
    """Mean over seeds of each method on each set."""
    result: dict[str, dict[str, float]] = {}
    for (data, method), rows in group(cells, "data", "method").items():
        if found := values(rows, read):
            result.setdefault(data, {})[method] = mean(found)
    return result


def standing(cells: list[Row], read: Callable[[Row], float | None], *, more: bool) -> str:
    """Say where HEBAE is best, tied with the best, or not, and who is best there."""
    first, tied, behind = [], [], []
    for data, methods in by_data(cells, read).items():
        if HEBAE not in methods or len(methods) < 2:
            continue
        top = (max if more else min)(methods, key=lambda name: methods[name])
        gap = abs(methods[top] - methods[HEBAE])
        close = gap <= (TIE if more else TIE_SHARE * methods[top])
        if top == HEBAE:
            first.append(data)
        elif close:
            tied.append(data)
        else:
            behind.append(f"{data} ({top})")
    parts = [("best", first), ("within a hair of the best", tied), ("behind", behind)]
    return "; ".join(f"{what} on {', '.join(names)}" for what, names in parts if names)


#: Columns of the summary: means over the shared sets, and numbers of the largest of them.
QUALITY = (
    ("error", error_share),
    ("k-NN", metric("knn_accuracy")),
    ("trustworthiness", metric("trustworthiness")),
    ("distance correlation", metric("distance_correlation")),
    ("told apart", told_apart),
)
COSTS = (
    ("fit s", field("fit_seconds")),
    ("10,000 new rows s", field("transform_seconds")),
    ("one row ms", field("one_row_seconds", 1000)),
    ("file kB", field("saved_bytes", 1e-3)),
)


def shared_sets(cells: list[Row], methods: Iterable[str]) -> tuple[list[str], str]:
    """Return the sets that all methods ran on, and the largest of them."""
    ran = ({row["data"] for row in cells if row["method"] == name} for name in methods)
    common = set.intersection(*ran)
    size = {row["data"]: row["n_train"] for row in cells}
    return sorted(common), max(common, key=lambda data: size[data])


def summary_table(rows: list[Row]) -> list[str]:
    """One line a method that ran on most sets: quality, costs, and what it can do."""
    cells = [row for row in cells_of(rows) if row["n_components"] == SUMMARY_DIMENSIONS]
    methods = [name for name in CORE if any(row["method"] == name for row in cells)]
    checks = {row["method"]: row for row in rows if row["kind"] == "conformance"}
    common, largest = shared_sets(cells, methods)
    headings = [heading for heading, _ in (*QUALITY, *COSTS)]
    headings += ["inverse", "row alone = among others", "estimator checks passed"]
    lines = ["| method | " + " | ".join(headings) + " |", "|---" * (len(headings) + 1) + "|"]
    for method in methods:
        of_method = [r for r in cells if r["method"] == method and r["data"] in common]
        parts = []
        for _, read in QUALITY:
            means = [of[method] for of in by_data(of_method, read).values()]
            parts.append(f"{mean(means):.3f}" if means else "-")
        for _, read in COSTS:
            found = values([row for row in of_method if row["data"] == largest], read)
            parts.append(f"{mean(found):.3g}" if found else "-")
        parts.append("yes" if values(of_method, error_share) else "no")
        parts.append("yes" if all(row["row_independent"] for row in of_method) else "no")
        check = checks.get(method, {})
        counted = check.get("passed") is not None
        total = sum(check[key] for key in ("passed", "failed")) if counted else 0
        parts.append(f"{check['passed']} of {total}" if counted else "-")
        lines.append(f"| {method} | " + " | ".join(parts) + " |")
    return [
        *lines,
        "",
        f"d = {SUMMARY_DIMENSIONS}; means over {', '.join(common)} (held-out rows); seconds and "
        f"file size on {largest}, one thread. Error: squared, as a share of the mean row's. Told "
        "apart: accuracy at which neighbours tell samples from rows, 0.5 is chance.",
    ]


def summary(rows: list[Row]) -> list[str]:
    """Who wins what, in one screen."""
    cells = [row for row in cells_of(rows) if row["n_components"] == SUMMARY_DIMENSIONS]
    lines = [*summary_table(rows), ""]
    judged = (
        ("Reconstruction", error_share, False),
        ("k-NN accuracy", metric("knn_accuracy"), True),
        ("Trustworthiness", metric("trustworthiness"), True),
        ("Global structure (distance correlation)", metric("distance_correlation"), True),
        ("Clusters (NMI of k-means)", metric("nmi"), True),
    )
    lines.append(f"HEBAE with its defaults, d = {SUMMARY_DIMENSIONS}, against all others:")
    lines.append("")
    lines += [f"- {what}: {standing(cells, read, more=more)}." for what, read, more in judged]
    flat = [row for row in cells_of(rows) if row["n_components"] == 2]
    if flat:
        lines += ["", "In two dimensions, for looking:", ""]
        lines += [f"- {what}: {standing(flat, read, more=more)}." for what, read, more in judged]
    return [*lines, ""]


#: Panels side by side in the figure.
PANEL_COLUMNS = 5
PANELS = (
    ("k-NN accuracy", metric("knn_accuracy")),
    ("error, share of the mean row's", error_share),
)


def plot(rows: list[Row], path: Path) -> None:
    """Quality against seconds of fitting: two panels a set, one above the other."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    cells = cells_of(rows)
    sets = [data for (data,) in group(cells, "data")]
    colours = dict(zip((name for (name,) in group(cells, "method")), COLOURS, strict=False))
    named: dict[str, Any] = {}
    n_columns = min(len(sets), PANEL_COLUMNS)
    n_rows = 2 * -(-len(sets) // n_columns)
    figure, grid = plt.subplots(
        n_rows,
        n_columns,
        figsize=(2.7 * n_columns, 2.3 * n_rows),
        layout="constrained",
        squeeze=False,
    )
    for axis in grid.flat:
        axis.set_visible(False)
    for number, data in enumerate(sets):
        block, column = divmod(number, n_columns)
        of_data = group([row for row in cells if row["data"] == data], "method", "n_components")
        for part, (title, read) in enumerate(PANELS):
            axis = grid[2 * block + part, column]
            axis.set_visible(True)
            for (method, d), of in of_data.items():
                if found := values(of, read):
                    circle = d == SUMMARY_DIMENSIONS
                    style = {"color": colours[method], "marker": "o" if circle else "^", "s": 34}
                    seconds = mean(values(of, field("fit_seconds")))
                    dot = axis.scatter(seconds, mean(found), **style)
                    if circle:
                        named.setdefault(method, dot)
            axis.set_xscale("log")
            axis.grid(alpha=0.3)
            axis.tick_params(labelsize=7)
            if part == 0:
                axis.set_title(data, fontsize=10)
            else:
                axis.set_xlabel("seconds to fit", fontsize=8)
            if column == 0:
                axis.set_ylabel(title, fontsize=8)
    title = "circles d = 10, triangles d = 2"
    figure.legend(
        [named[name] for name in colours if name in named],
        [name for name in colours if name in named],
        loc="outside lower center",
        ncols=6,
        fontsize=8,
        title=title,
        title_fontsize=8,
    )
    figure.savefig(path, dpi=100)
    plt.close(figure)


METHOD = """\
Each cell is a process of its own: one method, one data set, one number of components, one
seed and its split (Fashion-MNIST has its own). Everything is measured on held-out rows.

- **error**: squared error of the inverse, as a share of that of predicting the training
  mean (UMAP: of the first 20 held-out rows, its inverse takes that long).
- **k-NN**: accuracy of the label of held-out codes by the training codes' neighbours.
- **trustworthiness, continuity** (5 neighbours, 2,000 rows), **distance correlation** of rows and
  codes (unbiased, 1,000 rows; global structure), **NMI, ARI** of k-means with as many clusters
  as labels, **silhouette** of the labels.
- **told apart**: accuracy at which 5 neighbours tell samples from held-out rows in their first 20
  principal components; 0.5 is chance. Ours sample from their default density, PCA and
  truncated SVD from a Gaussian fitted to their training codes, pythae from its mixture.
- **fit, 10,000 rows, one row**: seconds of the processor with the one thread named below (with
  more threads, of the clock), after the imports (and after a first compiling fit for UMAP and
  PaCMAP); **file**: what `save` or joblib writes; **peak**:
  resident memory of the whole process.
- **same alone**: codes of a row do not change with the rows it comes with.

Every measure has a positive control (the data against itself) and a negative one (shuffled codes,
noise); where they do not come out as known, the number is left out (-). Rows of UMAP are
`n_jobs=1`, which its `random_state` implies. An inverse that has no end after some seconds
(UMAP's in ten dimensions) counts as none. pythae and scVI train for at most 12,000 steps; see
`settings` in the JSON.
"""


def page(folder: Path) -> tuple[list[str], list[str]]:
    """Summary and details, as lines; the figure goes to ``folder/images``."""
    environment, rows = load("compare")
    plot(rows, folder / "images" / "compare.png")
    made = f"Made by `python -m benchmarks compare`: {described(environment)}."
    top = [
        "## Which reducer should I use?",
        "",
        *summary(rows),
        "![Quality against seconds of fitting, two panels a data set](images/compare.png)",
        "",
    ]
    details = ["## The comparison in full", "", METHOD, *conformance(rows), *tables(rows), made, ""]
    return top, details
