"""``python -m benchmarks.table`` makes docs/benchmarks.md from the JSON in results."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.common import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "benchmarks.md"


def load(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Environment and rows of one result file."""
    document = json.loads((RESULTS / f"{name}.json").read_text())
    return document["environment"], document["rows"]


def described(environment: dict[str, Any]) -> str:
    """One line on where a result was made."""
    return ", ".join(f"{key} {value}" for key, value in environment.items())


def group(rows: list[dict[str, Any]], *keys: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Rows by the values of `keys`, in order of appearance."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[key] for key in keys)].append(row)
    return groups


def average(rows: list[dict[str, Any]], key: str) -> float:
    """Mean of one number over rows."""
    return mean(float(row[key]) for row in rows)


def defaults() -> list[str]:
    """Table of the estimators with their defaults against PCA."""
    environment, rows = load("defaults")
    lines = [
        "## Defaults against PCA of the same size",
        "",
        "Held-out squared error as a share of PCA's, nearest-neighbour accuracy on the codes",
        "(5 neighbours, 10 on Fashion-MNIST), seconds, and the accuracy at which 5 neighbours",
        "tell held-out rows from sampled ones (0.5 is chance). Means over seeds; each seed has",
        "its own split, except for Fashion-MNIST's.",
        "",
        "| data | method | seeds | error / PCA | k-NN accuracy | fit s | mixture, share of fit "
        "| told apart: mixture | gaussian | prior |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (data,), of_data in group(rows, "data").items():
        methods = group(of_data, "method")
        pca = average(methods[("PCA",)], "held_out_squared_error")
        for (method,), cells in methods.items():
            error = average(cells, "held_out_squared_error") / pca
            line = (
                f"| {data} (d = {cells[0]['n_components']}) | {method} | {len(cells)} "
                f"| {error:.3f} | {average(cells, 'knn_accuracy'):.3f} "
                f"| {average(cells, 'fit_seconds'):.2f} "
            )
            if "n_iter" in cells[0]:
                apart = [cell["two_sample_accuracy"] for cell in cells]
                line += f"| {100 * average(cells, 'mixture_share_of_fit'):.1f} % "
                line += "".join(
                    f"| {average(apart, latent):.3f} "
                    for latent in ("mixture", "gaussian", "prior")
                )
                lines.append(line + "|")
            else:
                lines.append(line + "| | | | |")
    return [*lines, "", f"Made by `python -m benchmarks.defaults`: {described(environment)}.", ""]


def covariance_prior() -> list[str]:
    """Table behind the default of `covariance_prior`."""
    environment, rows = load("covariance_prior")
    lines = [
        "## The default of `covariance_prior`",
        "",
        "HEBAE on digits, 100 epochs, with more rows than dimensions in a minibatch and with",
        "fewer. `KL of moments` is the divergence of the held-out codes' covariance from the",
        "identity, in nats. Up to one pseudo-row nothing changes where there are enough rows,",
        "and where there are not, small values are best and as stable; larger ones narrow the",
        "codes. One row's weight is the default. Fewer rows than dimensions narrow the codes",
        'whatever the prior, which is why `batch_size="auto"` takes at least 4 rows a dimension.',
        "",
        "| n_components | batch_size | covariance_prior | held-out squared error | mean variance "
        "| KL of moments |",
        "|---|---|---|---|---|---|",
    ]
    keys = ("n_components", "batch_size", "covariance_prior")
    for key, cells in group(rows, *keys).items():
        numbers = [
            average(cells, name)
            for name in ("held_out_squared_error", "mean_variance", "kl_of_moments")
        ]
        lines.append(
            "| {} | {} | {:g} | ".format(*key) + "{:.5f} | {:.3f} | {:.3f} |".format(*numbers)
        )
    command = "python -m benchmarks.covariance_prior"
    return [*lines, "", f"Made by `{command}`, 3 seeds: {described(environment)}.", ""]


def precision() -> list[str]:
    """Table behind `precision="auto"`."""
    environment, rows = load("precision")
    lines = [
        "## When bfloat16 training pays",
        "",
        "Seconds per epoch in bfloat16 over float32, HEBAE with one hidden layer of 128 units and",
        'minibatches of 128 rows: median and range of three pairs. `precision="auto"` takes',
        "bfloat16 from 65,536 weights in a layer on.",
        "",
        "| features | weights of the widest layer | bfloat16 / float32 |",
        "|---|---|---|",
    ]
    for row in rows:
        low, middle, high = sorted(row["ratios"])
        lines.append(
            f"| {row['n_features']} | {row['weights']} | {middle:.2f} ({low:.2f} to {high:.2f}) |"
        )
    return [*lines, "", f"Made by `python -m benchmarks.precision`: {described(environment)}.", ""]


def main() -> None:
    """Write the page."""
    lines = ["# Benchmarks", "", "Generated by `python -m benchmarks.table`; do not edit.", ""]
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text("\n".join([*lines, *defaults(), *covariance_prior(), *precision()]))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
