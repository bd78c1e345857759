"""Where the bound is lost: what Gaussians, independent codes and the encoder miss of log p(x).

``python -m benchmarks gap`` fits VAE, and HEBAE at row shares 0, 0.3 and 1, with encoders of one to
three layers before the same decoder, splits the gap of their bounds on training and on held-out
rows, writes ``results/gap.json``, and draws ``docs/images/bound_gap.png``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from torch import nn

from benchmarks.datasets import Table, load, split
from benchmarks.pages import DOCS, average, fold, group, spread_out, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, limit_threads
from benchmarks.speed import unwarned
from skhebae import HEBAETransformer, VAETransformer
from skhebae.diagnostics import BoundGap, bound_gap

#: Sets, with their latent dimensions.
DATA = {"breast-cancer": 5, "digits": 5}
METHODS: dict[str, Callable[..., Any]] = {
    "VAE": VAETransformer,
    "HEBAE 0": lambda *d, **how: HEBAETransformer(*d, row_share=0.0, **how),
    "HEBAE 0.3": lambda *d, **how: HEBAETransformer(*d, row_share=0.3, **how),
    "HEBAE 1": lambda *d, **how: HEBAETransformer(*d, row_share=1.0, **how),
}
INDEPENDENT, FULL = "VAE", "HEBAE 1"
#: Hidden layers of encoders; those before the first of a method are its only ones.
LAYERS, WIDTH, DEEPENED = (1, 2, 3), 128, (INDEPENDENT, FULL)
#: Rows of each kind that are measured, and draws behind log p(x) of each.
ROWS, DRAWS = 125, 2000
KINDS = {"train": slice(0, ROWS), "test": slice(ROWS, None)}
PARTS = {
    "gaussian": "Gaussian",
    "family": "family",
    "amortisation": "encoder",
}

#: Rules of the claims. The cost of independent codes by J^T W J is within this factor of that
#: measured; the price of a decoder trained with independent codes is below this share of that
#: trained without; what three layers leave of what independence costs is at least this share of
#: what one layer does; log p(x) differs if by more than this number of standard errors.
WITHIN, PULLED, LEFT, ERRORS = 2.0, 0.9, 0.9, 2.0


def deep_encoder(n_layers: int) -> Callable[..., nn.Module]:
    """Return a factory of perceptrons with some hidden layers."""

    def make(shape: tuple[int, ...], n_outputs: int) -> nn.Module:
        sizes = [int(np.prod(shape)), *[WIDTH] * n_layers]
        layers: list[nn.Module] = [nn.Flatten()]
        for n_in, n_out in pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.GELU()]
        return nn.Sequential(*layers, nn.Linear(sizes[-1], n_outputs))

    return make


def fit_model(data: Table, method: str, n_layers: int, seed: int) -> Any:
    """Fit a model whose encoder alone depends on `n_layers`, without noise in its input."""
    how = {"hidden_layer_sizes": (WIDTH,), "linear_path": False, "input_noise": 0.0}
    encoder = deep_encoder(n_layers)
    model = METHODS[method](
        DATA[data.name], encoder=encoder, weight_decay=0.0, random_state=seed, **how
    )
    return model.fit(data.train)


def numbers(gap: BoundGap) -> Row:
    """Return means of training and of held-out rows."""
    row: Row = {"posterior_family": gap.posterior_family}
    columns = {
        **gap.parts,
        "log_likelihood": gap.log_likelihood,
        "off_diagonal": gap.off_diagonal,
        "turned_off_diagonal": gap.turned_off_diagonal,
        "off_diagonal_size": gap.off_diagonal_size,
    }
    for kind, rows in KINDS.items():
        row |= {f"{kind}_{name}": float(values[rows].mean()) for name, values in columns.items()}
    row["effective_draws"] = float(np.median(gap.effective_draws))
    row["n_unreliable"] = int(gap.unreliable.sum())
    row["errors"] = {name: error for name, (_, error) in gap.summary.items()}
    return row


def measured_rows(data: Table) -> np.ndarray[Any, Any]:
    """Return the rows that are measured, those of training first."""
    return np.concatenate([data.train[:ROWS], data.test[:ROWS]])


def measure(data: Table, cell: Row, now: Callable[[], float]) -> Row:
    """Fit a model and split the gap of its bound."""
    start = now()
    model = fit_model(data, cell["method"], cell["n_layers"], cell["seed"])
    row: Row = {"d": DATA[data.name], "fit_seconds": now() - start, "n_epochs": model.n_iter_}
    start = now()
    gap = bound_gap(model, measured_rows(data), max_rows=None, n_draws=DRAWS)
    return {**row, **numbers(gap), "gap_seconds": now() - start}


def verdict(hold: list[bool]) -> str:
    """Return whether all, some or none of several conditions hold."""
    return "holds" if all(hold) else "partly" if any(hold) else "does not"


def claims(rows: list[Row]) -> list[list[str]]:
    """Return the abstract's claims, what was measured of each, and verdicts by rule."""
    lines = []
    ratios = [row["train_off_diagonal"] / row["train_independence"] for row in rows]
    said = "cost predicted from the off-diagonals over the measured cost, per model: "
    said += f"{min(ratios):.2f} to {max(ratios):.2f}"
    within = [1.0 / WITHIN <= ratio <= WITHIN for ratio in ratios]
    claim = "Decoders consistent with independent codes have a diagonal $I + J^T W J$"
    lines.append([claim, f"{said} (rule: within a factor {WITHIN:g})", verdict(within)])
    one = group(rows, "data", "method", "n_layers")
    told, pulled, paid = [], [], []
    for data in dict.fromkeys(row["data"] for row in rows):
        alone, full = (one[data, method, LAYERS[0]] for method in (INDEPENDENT, FULL))
        costs = [average(of, "train_turned_off_diagonal") for of in (alone, full)]
        pulled.append(costs[0] <= PULLED * costs[1])
        by_seed = [
            b["train_log_likelihood"] - a["train_log_likelihood"]
            for a, b in zip(alone, full, strict=True)
        ]
        # One seed has no spread: the rule is then milder.
        many = len(by_seed) > 1
        error = float(np.std(by_seed, ddof=1)) / len(by_seed) ** 0.5 if many else 0.0
        paid.append(mean(by_seed) > ERRORS * error)
        told.append((data, costs, f"{mean(by_seed):+.2f}" + (f" ± {error:.2f}" if many else "")))
    said = "; ".join(f"{data}: {costs[0]:.3f} against {costs[1]:.3f}" for data, costs, _ in told)
    claim = "The optimum of the ELBO with independent codes is pulled towards these decoders"
    said = f"off-diagonal cost on the best axes, {INDEPENDENT} against {FULL}: {said}"
    lines.append([claim, f"{said} (rule: at most {PULLED:g} times)", verdict(pulled)])
    said = "; ".join(f"{data}: {gain}" for data, _, gain in told)
    claim = "... and away from the optimum of the likelihood"
    said = f"$\\log p(x)$ of training rows, {FULL} minus {INDEPENDENT}: {said}"
    lines.append([claim, f"{said} (rule: above {ERRORS:g} standard errors)", verdict(paid)])
    said, left = [], []
    for data in dict.fromkeys(row["data"] for row in rows):
        costs = [average(one[data, INDEPENDENT, n], "train_independence") for n in LAYERS]
        left.append(min(costs[1:]) >= LEFT * costs[0])
        said.append(f"{data}: " + ", ".join(f"{cost:.3f}" for cost in costs))
    claim = "Deeper encoders cannot decrease the error of conditional independence"
    counts = ", ".join(map(str, LAYERS))
    told_layers = f"cost of independence, {INDEPENDENT} with {counts} layers, {'; '.join(said)}"
    lines.append(
        [claim, f"{told_layers} (rule: at least {LEFT:g} times that of one layer)", verdict(left)]
    )
    return lines


def summary(rows: list[Row]) -> list[str]:
    """Return the tables of the gap's parts, and the verdicts on the abstract's claims."""
    lines: list[str] = []
    order = sorted(rows, key=lambda row: (row["data"], list(METHODS).index(row["method"])))
    cells = group(order, "data", "method", "n_layers")
    columns = {"log_likelihood": "$\\log p(x)$", **PARTS, "independence": "independence"}
    columns |= {"off_diagonal": "off-diagonal", "turned_off_diagonal": "best axes"}
    for kind, name in {"train": "training rows", "test": "held-out rows"}.items():
        shown = [
            [*key, *(said([row[f"{kind}_{column}"] for row in of]) for column in columns)]
            for key, of in cells.items()
        ]
        parts = table([name, "method", "layers", *columns.values()], shown)
        lines += ["", *fold(f"Parts of the gap on {name}, nats per row", parts)]
    return [*table(["claim", "measured", "verdict"], claims(rows)), *lines]


def said(numbers: list[float]) -> str:
    """Format a mean with its spread over seeds; digits that a row's gap can bear."""
    return spread_out(numbers, "{:.3f}" if abs(mean(numbers)) < 1.0 else "{:.2f}")


def draw(data: Table, path: Path) -> None:
    """Draw the split of held-out rows for all methods, with encoders of one layer."""
    from skhebae.plotting import BoundGapDisplay

    with unwarned():
        models = {method: fit_model(data, method, LAYERS[0], 0) for method in METHODS}
        display = BoundGapDisplay.from_estimators(models, data.test, max_rows=2 * ROWS)
    path.parent.mkdir(exist_ok=True)
    display.figure_.savefig(path, dpi=100)


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the summary."""
    made = parser("gap", __doc__, threads=1, resumes=True)
    made.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--images", type=Path, default=DOCS / "images", help="folder of the figure")
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    results = Results(
        arguments.output / "gap.json",
        ("data", "seed", "method", "n_layers"),
        resume=arguments.resume,
        threads=arguments.threads,
    )
    now = clock(arguments.threads)
    for name in arguments.data:
        dataset = load(name)
        assert dataset is not None  # they come with scikit-learn
        for seed in arguments.seeds:
            data = split(dataset, seed)
            for method in METHODS:
                for n_layers in LAYERS if method in DEEPENED else LAYERS[:1]:
                    cell = {"method": method, "n_layers": n_layers, "seed": seed}
                    if not results.has(data=name, **cell):
                        with unwarned():
                            row = measure(data, cell, now)
                        results.add({"data": name, **cell, **row})
    if {row["data"] for row in results.rows} == set(DATA):
        print(*summary(results.rows), sep="\n")
        draw(split(load("digits"), 0), arguments.images / "bound_gap.png")  # type: ignore[arg-type]
