"""Never behind PCA: error, neighbours and distances of ours against PCA's on 22 sets.

``python -m benchmarks tables`` fits both in this process, one after the other, and writes
``results/tables.json``. ``--params '{"input_noise": 0.1}'`` tries others than the defaults.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

import skhebae
from benchmarks import compare, metrics, pages
from benchmarks.datasets import TABLES, Table, load, split
from benchmarks.pages import average, group, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, limit_threads
from benchmarks.speed import unwarned

#: The sets, the slowest last.
DATA = [*TABLES, *sorted(compare.DATA, key="fashion-mnist".__eq__)]
#: Training and test rows of a table, each at most.
MOST_ROWS = 3000
METHODS = ("HEBAE", "VAE", "WAE")
#: What may not be worse than PCA's: heading, key.
SCORES = {
    "k-NN": "knn_accuracy",
    "trustworthiness": "trustworthiness",
    "distance correlation": "distance_correlation",
}

#: Targets: the largest ratio of errors, their geometric mean, the mean difference of a score.
WORST, TYPICAL, BEHIND = 1.02, 0.70, -0.005


def dimensions(data: str, n_features: int) -> int:
    """Return the number of components: `compare`'s, or a third of the features of a table."""
    return 10 if data in compare.DATA else min(10, max(2, n_features // 3))


def fitted(model: Any, data: Table, seed: int, now: Callable[[], float]) -> Row:
    """Fit a model, and measure held-out rows and codes as `compare` does."""
    start = now()
    model.fit(data.train)
    row: Row = {"fit_seconds": now() - start}
    codes = [model.transform(rows) for rows in (data.train, data.test)]
    row["error"] = float(np.square(model.inverse_transform(codes[1]) - data.test).mean())
    row["knn_accuracy"] = neighbours(data, *codes)
    few = metrics.subsample(metrics.QUADRATIC_ROWS, seed, data.test, codes[1])
    row["trustworthiness"] = metrics.trustworthiness(*few, data.n_neighbors)
    row["distance_correlation"] = metrics.distance_correlation(*few)
    if isinstance(model, PCA):
        scale = np.sqrt(model.explained_variance_).clip(min=1e-12)
        row["knn_accuracy_whitened"] = neighbours(data, *(part / scale for part in codes))
    return row


def neighbours(data: Table, train: metrics.Array, test: metrics.Array) -> float:
    """Return the accuracy of neighbours among training codes at labels of held-out ones."""
    return metrics.knn_accuracy(train, data.y_train, test, data.y_test, data.n_neighbors)


def measure(data: Table, method: str, seed: int, params: Row, now: Callable[[], float]) -> Row:
    """Return what is measured of one of ours, and of PCA under names with ``pca_``."""
    d = dimensions(data.name, data.train.shape[1])
    row = {"d": d, "n_train": len(data.train), "n_features": data.train.shape[1]}
    pca = fitted(PCA(d, random_state=seed), data, seed, now)
    how = {"likelihood": data.likelihood, "random_state": seed, **params}
    row |= fitted(getattr(skhebae, f"{method}Transformer")(d, **how), data, seed, now)
    row["error_ratio"] = row["error"] / pca["error"]
    return row | {f"pca_{key}": value for key, value in pca.items()}


def against_pca(rows: list[Row]) -> dict[str, dict[str, float]]:
    """Return, per set, the ratio of errors and the differences of scores, means over seeds."""
    found = {}
    for (data,), of in group(rows, "data").items():
        found[data] = {"d": of[0]["d"], "error": average(of, "error_ratio")}
        for heading, key in SCORES.items():
            found[data][heading] = average(of, key) - average(of, f"pca_{key}")
    return found


def summary(rows: list[Row], method: str = "HEBAE") -> list[str]:
    """Return the table of all sets, and whether the targets hold for them."""
    found = against_pca([row for row in rows if row["method"] == method])
    forms = {"d": "", "error": ".3f", **dict.fromkeys(SCORES, "+.3f")}
    lines = (
        [data, *(f"{of[key]:{form}}" for key, form in forms.items())] for data, of in found.items()
    )
    ratios = [of["error"] for of in found.values()]
    worst, data = max(zip(ratios, found, strict=True))
    typical, above = geometric_mean(ratios), sum(ratio > WORST for ratio in ratios)
    share = f"{above} of {len(ratios)} ({above / len(ratios):.0%})"
    targets = [
        ("largest error ratio", WORST, f"{worst:.3f} ({data})", worst <= WORST),
        ("geometric mean of error ratios", TYPICAL, f"{typical:.3f}", typical <= TYPICAL),
        (f"data sets above {WORST}", 0, share, above == 0),
    ]
    for key in SCORES:
        behind = mean(of[key] for of in found.values())
        targets.append((f"mean gain of {key}", BEHIND, f"{behind:+.4f}", behind >= BEHIND))
    headings = ["data", "d", "error ratio", *(f"{key} gain" for key in SCORES)]
    verdicts = ([*target, "yes" if holds else "no"] for *target, holds in targets)
    return [
        *pages.fold(f"All {len(found)} data sets", table(headings, lines)),
        "",
        *table(["over all data sets", "target", method, "met"], verdicts),
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the summary."""
    made = parser("tables", __doc__, threads=2, resumes=True)
    made.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    made.add_argument("--data-dir", type=Path, help="folder of the sets")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--method", choices=METHODS, default="HEBAE")
    made.add_argument("--params", type=json.loads, default={}, help="of the estimator, as JSON")
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    common = {"method": arguments.method, "params": arguments.params}
    keys = ("data", "seed", "method")
    results = Results(
        arguments.output / "tables.json",
        keys,
        resume=arguments.resume,
        threads=arguments.threads,
    )
    for name in sorted(arguments.data, key=DATA.index):
        cells = [{"data": name, "seed": seed, **common} for seed in arguments.seeds]
        left = [cell for cell in cells if not results.has(**cell)]
        dataset = load(name, arguments.data_dir) if left else None
        for cell in left if dataset is not None else ():
            data = split(dataset, cell["seed"], MOST_ROWS if name in TABLES else None)
            how = (cell["method"], cell["seed"], cell["params"], clock(arguments.threads))
            with unwarned():
                results.add({**cell, **measure(data, *how)})
    if any(row["method"] == arguments.method for row in results.rows):
        print(*summary(results.rows, arguments.method), sep="\n")
