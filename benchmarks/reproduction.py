"""Fill docs/reproduction.md and draw its figures from ``results/paper-<data>.json``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.pages import DOCS, average, fill, made_by, table
from benchmarks.paper import METHODS
from benchmarks.paper_figures import Run, draw
from benchmarks.paper_measures import LATENTS
from benchmarks.results import RESULTS

#: Columns of a cell's table: key, heading, format.
COLUMNS = (
    ("held_out_squared_error", "error", "{:.4f}"),
    ("reconstruction", r"$-\mathbb{E}\log p(x \mid z)$", "{:.1f}"),
    ("paper_bound", "paper's bound", "{:.1f}"),
    ("elbo", "ELBO", "{:.1f}"),
    ("log_likelihood", r"$\log p(x)$", "{:.1f}"),
    ("mutual_information", "information", "{:.2f}"),
    ("mutual_information_per_dimension", "per dimension", "{:.2f}"),
    ("mean_posterior_deviation", "posterior dev.", "{:.4f}"),
    ("collapsed", "collapsed", "{:.1f}"),
    ("moments_kl", "KL of moments", "{:.2f}"),
    ("distance_from_identity", "distance from I", "{:.2f}"),
    ("mean_abs_off_diagonal_correlation", "mean abs. corr.", "{:.3f}"),
)


def joined(values: Sequence[float]) -> str:
    """Format numbers in one line."""
    return ", ".join(f"{value:g}" for value in values)


def setup(run: Run) -> list[str]:
    """Return the table of what was run."""
    how, first = run.setting, run.methods[0]
    rates = sorted({how.learning_rate_init[method] for method in run.methods})
    judged = [row for row in run.rows if "classifier_accuracy" in row]
    ceiling = run.said(first, "mutual_information_ceiling", run.middle, "{:.2f}")
    lines = [
        ["data", f"{run.data}, {run.rows[0]['n_train']:,} training rows"],
        ["penalty weights of the paper", ", ".join(f"{m} {METHODS[m][2]:g}" for m in run.methods)],
        ["d, at the paper's weights", joined(run.dims)],
        [f"penalty weights, at d = {run.middle}", joined(run.weights)],
        ["likelihood", how.likelihood],
        ["Adam's learning rate", joined(rates)],
        ["rows per minibatch", how.batch_size],
        ["epochs", run.epochs],
        ["epochs of the paper", how.full.epochs],
        ["precision", ", ".join(sorted({row["precision"] for row in run.rows}))],
        ["seeds", joined(run.seeds)],
        ["highest possible information", f"{ceiling} nats"],
    ]
    if judged:
        accuracy = f"{average(judged, 'classifier_accuracy'):.3f}"
        floor = f"{average(judged, 'frechet_floor'):.2f}"
        lines.append(["accuracy of the classifier behind Fréchet distances", accuracy])
        lines.append(["floor: Fréchet distance of training rows from test rows", floor])
    return table(["setting", "value"], lines)


def numbers(run: Run, name: str, settings: Sequence[tuple[int, float | None]]) -> list[str]:
    """Return everything held out, by d or by weight."""
    lines = [
        [
            method,
            f"{d}" if weight is None else f"{weight:g}",
            len(run.cells(method, d, weight)),
            *(run.said(method, key, d, form, weight) for key, _, form in COLUMNS),
        ]
        for method in run.methods
        for d, weight in settings
        if run.cells(method, d, weight)
    ]
    return table(["method", name, "seeds", *(heading for _, heading, _ in COLUMNS)], lines)


def distances(run: Run) -> list[str]:
    """Return Fréchet distances of every cell."""
    keys = [f"samples.{latent}.frechet" for latent in LATENTS]
    keys += ["samples.decoded_training_codes", "frechet_floor"]
    cells = ((row["method"], row["n_components"], row["weight"]) for row in run.rows)
    lines = [
        [method, d, f"{weight:g}", *(run.said(method, key, d, weight=weight) for key in keys)]
        for method, d, weight in dict.fromkeys(cells)
    ]
    headings = ["method", "d", "weight", *LATENTS, "decoded training codes", "floor"]
    return table(headings, lines)


def main(argv: list[str] | None = None) -> None:
    """Fill the page and draw its figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks reproduction", description=__doc__)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON")
    parser.add_argument("--output", type=Path, default=DOCS, help="folder of the page")
    arguments = parser.parse_args(argv)
    source = arguments.results / f"paper-{arguments.data}.json"
    if not source.exists():
        parser.error(f"no {source}: run python -m benchmarks paper --data {arguments.data}")
    run = Run.read(source)
    draw(run, arguments.output / "images")
    parts = {
        "setup": setup(run),
        "by-d": numbers(run, "d", [(d, None) for d in run.dims]),
        "by-weight": numbers(run, "weight", [(run.middle, w) for w in run.weights]),
        "distances": distances(run),
        "made": made_by(f"paper --data {run.data}", run.environment, run.rows)[1:],
    }
    fill(arguments.output / "reproduction.md", **parts)
