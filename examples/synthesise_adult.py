"""Generate rows of a census table and compare them with real ones.

Run ``python examples/synthesise_adult.py --output demo_output``. It downloads the Adult data set
from OpenML, or reads the CSV file that ``--data`` names (with the column names of OpenML or UCI).
It fits 5,000 rows of numbers and categories, generates as many, prints what it checks and draws
two figures. It needs pandas and ``pip install 'skhebae[plot]'``.

Generated rows are not anonymous, because a model may remember rows that it was fitted to. So the
example also measures whether they lie nearer to rows of the fit than to rows that the model has
never seen.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from sklearn.datasets import fetch_openml
from sklearn.neighbors import NearestNeighbors

from skhebae import HEBAETransformer

mpl.use("Agg")
import matplotlib.pyplot as plt

#: Rows to fit. As many others are kept to compare with.
N_ROWS = 5000
#: Colours of real and of generated values.
COLOURS = {"real": "#4c72b0", "generated": "#dd8452"}
#: Number of categories that are drawn per column, the most frequent ones.
MOST_LEVELS = 8


def main(output: Path, data: Path | None, n_rows: int) -> None:
    """Fit rows of a table, generate as many, and compare them with other real rows."""
    output.mkdir(parents=True, exist_ok=True)
    whole = load(data)
    order = np.random.default_rng(0).permutation(len(whole))
    train, other = (whole.iloc[order[k * n_rows : (k + 1) * n_rows]] for k in range(2))
    start = time.perf_counter()
    model = HEBAETransformer(random_state=0).fit(train)
    drawn = model.sample(len(train), random_state=0)
    print(f"fitted {len(train)} rows and generated as many in {time.perf_counter() - start:.0f} s")
    print(drawn.head(3).to_string(index=False))
    check_types(train, drawn)
    report_distances(train, other, drawn)
    given = model.sample(1000, random_state=0, given={"sex": "Female", "age": 40})
    print(f"women aged 40 who earn more than 50K: {earners(given):.0%} of 1,000 generated rows")
    similar = whole[(whole["sex"] == "Female") & whole["age"].between(38, 42)]
    print(f"women aged 38 to 42 who do: {earners(similar):.0%} of {len(similar)} real rows")
    draw_columns(other, drawn, output / "adult_columns.png")
    draw_pairs(other, drawn, output / "adult_pairs.png")


def load(path: Path | None) -> Any:
    """Read Adult from a file or from OpenML. Exit with one line where neither can be read."""
    try:
        if path is not None:
            rows = pd.read_csv(path, skipinitialspace=True)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # one per attempt to download
                rows = fetch_openml("adult", version=2, as_frame=True, n_retries=1).frame
    except (OSError, HTTPException) as error:
        source = path or "OpenML"
        sys.exit(
            f"Cannot read Adult from {source} ({error}). This example needs a network connection, "
            "or a copy of the table: pass --data FILE."
        )
    return rows.rename(columns={"class": "income"})


def earners(rows: Any) -> float:
    """Return the share of rows with the higher income."""
    return float(rows["income"].astype(str).str.startswith(">").mean())


def check_types(train: Any, drawn: Any) -> None:
    """Print whether types, ranges and categories are those of the rows of the fit."""
    assert list(drawn) == list(train)
    numbers = train.select_dtypes("number").columns
    inside = all(
        drawn[name].between(train[name].min(), train[name].max()).all() for name in numbers
    )
    levels = train.columns.difference(numbers)
    known = all(set(drawn[name].dropna()) <= set(train[name].dropna()) for name in levels)
    same = (drawn.dtypes == train.dtypes).all()
    print(f"same dtypes: {same}; numbers within bounds: {inside}; known categories only: {known}")


def report_distances(train: Any, other: Any, drawn: Any) -> None:
    """Print how many generated rows lie nearer to a row of the fit than to any other real row."""
    numbers = train.select_dtypes("number").columns
    whole = pd.concat([train, other, drawn])
    hot = pd.get_dummies(whole.drop(columns=numbers).astype(str)) / 2**0.5
    points = np.column_stack([whole[numbers] / train[numbers].std(), hot]).astype(np.float32)
    parts = np.split(points, [len(train), len(train) + len(other)])
    near, far = (
        NearestNeighbors(n_neighbors=1).fit(part).kneighbors(parts[2])[0] for part in parts[:2]
    )
    share = np.mean(near < far) + np.mean(near == far) / 2
    print(f"nearer to a row of the fit than to any other real row: {share:.1%} (copies: 100%)")


def draw_columns(real: Any, drawn: Any, path: Path) -> None:
    """Draw the distribution of each column among real and generated rows."""
    figure, axes = plt.subplots(3, 5, figsize=(16, 9), layout="constrained")
    for ax, name in zip(axes.flat, real, strict=False):
        if pd.api.types.is_numeric_dtype(real[name]):
            draw_number(ax, real[name], drawn[name])
        else:
            draw_levels(ax, real[name], drawn[name])
        ax.set_title(name)
    handles = [mpl.patches.Patch(color=colour, label=label) for label, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside upper right", ncols=2, frameon=False)
    figure.suptitle("Adult, column by column: real rows that were not fitted, and generated rows")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"wrote {path.name}")


def draw_number(ax: Any, real: Any, drawn: Any) -> None:
    """Draw two histograms, on a logarithmic scale if most rows have the same value."""
    edges = np.linspace(real.min(), np.quantile(real, 0.995), 31)
    for values, (label, colour) in zip((real, drawn), COLOURS.items(), strict=True):
        filled = label == "real"
        ax.hist(
            values.clip(upper=edges[-1]),
            edges,
            weights=np.full(len(values), 100 / len(values)),
            histtype="stepfilled" if filled else "step",
            color=colour,
            alpha=0.45 if filled else 1.0,
            linewidth=1.6,
        )
    if (real == real.mode()[0]).mean() > 0.5:
        ax.set_yscale("log")
    ax.set_ylabel("% of rows")


def draw_levels(ax: Any, real: Any, drawn: Any) -> None:
    """Draw two bars per category."""
    shares = [100 * of.astype(str).value_counts(normalize=True) for of in (real, drawn)]
    levels = list(shares[0].index[:MOST_LEVELS])
    for k, (of, colour) in enumerate(zip(shares, COLOURS.values(), strict=True)):
        places = np.arange(len(levels)) + 0.4 * k - 0.2
        ax.barh(places, of.reindex(levels).fillna(0), 0.4, color=colour, alpha=0.8)
    ax.set_yticks(range(len(levels)), [level[:18] for level in levels], fontsize=8)
    ax.invert_yaxis()
    ax.set_xlabel("% of rows")


def draw_pairs(real: Any, drawn: Any, path: Path) -> None:
    """Draw two pairs of columns, and the share of high incomes by education."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), layout="constrained")
    bins = [np.arange(17, 92, 3), np.arange(0, 101, 5)]
    for row, (label, rows) in zip(axes, (("real", real), ("generated", drawn)), strict=True):
        counts = np.histogram2d(rows["age"], rows["hours-per-week"], bins)[0]
        row[0].pcolormesh(*bins, np.log1p(counts).T, cmap="viridis", vmin=0, vmax=6)
        row[0].set(xlabel="age", ylabel="hours per week", title=f"{label}: log of rows")
        draw_table(row[1], rows, real, "marital-status", "relationship")
        row[1].set_title(f"{label}: log of rows")
        rich = rows["income"].astype(str).str.startswith(">")
        share = 100 * rich.groupby(rows["education-num"]).mean()
        row[2].bar(share.index, share, color=COLOURS[label])
        row[2].set(xlabel="education-num", ylabel="% above 50K", ylim=(0, 100), title=label)
    figure.suptitle("Adult, pairs of columns: real rows that were not fitted, and generated rows")
    figure.savefig(path, dpi=100)
    plt.close(figure)
    print(f"wrote {path.name}")


def draw_table(ax: Any, rows: Any, real: Any, first: str, second: str) -> None:
    """Draw how often each pair of categories occurs."""
    names = [sorted(real[column].astype(str).unique()) for column in (first, second)]
    counts = pd.crosstab(rows[first].astype(str), rows[second].astype(str))
    counts = counts.reindex(index=names[0], columns=names[1], fill_value=0)
    ax.imshow(np.log1p(counts), cmap="viridis", vmin=0, vmax=8, aspect="auto")
    ax.set_xticks(range(len(names[1])), names[1], rotation=30, ha="right", fontsize=8)
    ax.set_yticks(range(len(names[0])), names[0], fontsize=8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--data", type=Path, help="CSV file of Adult, instead of a download")
    parser.add_argument("--rows", type=int, default=N_ROWS, help="number of rows to fit")
    arguments = parser.parse_args()
    main(arguments.output, arguments.data, arguments.rows)
