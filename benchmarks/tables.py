"""Never behind PCA: error, neighbours and distances of ours against PCA's on 22 sets.

``python -m benchmarks tables`` fits both to 13 tables and the nine sets of ``compare``, each
pair in this process, one after the other, and writes ``results/tables.json`` after every row.
``--params '{"input_noise": 0.1}'`` tries other parameters than the defaults.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import numpy as np
from sklearn.decomposition import PCA

import skhebae
from benchmarks import compare, metrics
from benchmarks.datasets import TABLES, Table, load, split
from benchmarks.pages import group, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, limit_threads
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


def neighbours(codes: list[metrics.Array], table: Table) -> float:
    """Return the accuracy of neighbours among training codes at labels of held-out ones."""
    return metrics.knn_accuracy(codes[0], table.y_train, codes[1], table.y_test, table.n_neighbors)


def fitted(model: Any, table: Table, seed: int) -> Row:
    """Fit a model, and measure held-out rows and codes as `compare` does."""
    start = time.perf_counter()
    model.fit(table.train)
    row: Row = {"fit_seconds": time.perf_counter() - start}
    codes = [model.transform(rows) for rows in (table.train, table.test)]
    row["error"] = float(np.square(model.inverse_transform(codes[1]) - table.test).mean())
    row["knn_accuracy"] = neighbours(codes, table)
    few = metrics.subsample(metrics.QUADRATIC_ROWS, seed, table.test, codes[1])
    row["trustworthiness"] = metrics.trustworthiness(*few, table.n_neighbors)
    row["distance_correlation"] = metrics.distance_correlation(*few)
    if isinstance(model, PCA):
        scale = np.sqrt(model.explained_variance_).clip(min=1e-12)
        row["knn_accuracy_whitened"] = neighbours([part / scale for part in codes], table)
    return row


def measure(data: Table, method: str, d: int, seed: int, params: Row) -> list[Row]:
    """Return the rows of PCA and of one of ours."""
    how = {"likelihood": data.likelihood, "random_state": seed, **params}
    own = getattr(skhebae, f"{method}Transformer")(d, **how)
    rows = {"PCA": fitted(PCA(d, random_state=seed), data, seed), method: fitted(own, data, seed)}
    rows[method]["error_ratio"] = rows[method]["error"] / rows["PCA"]["error"]
    size = {"d": d, "n_train": len(data.train), "n_features": data.train.shape[1]}
    common = {"data": data.name, "seed": seed, **size}
    return [{**common, "method": name, "params": params, **row} for name, row in rows.items()]


def against_pca(rows: list[Row], method: str) -> dict[str, dict[str, float]]:
    """Return, per set, the ratio of errors and the differences of scores, means over seeds."""
    found = {}
    for (data,), of in group(rows, "data").items():
        pca, own = (
            {row["seed"]: row for row in of if row["method"] == name} for name in ("PCA", method)
        )
        pairs = [(pca[seed], row) for seed, row in own.items() if seed in pca]
        if pairs:
            means = {"d": pairs[0][0]["d"], "error": mean(row["error_ratio"] for _, row in pairs)}
            for heading, key in SCORES.items():
                means[heading] = mean(row[key] - reference[key] for reference, row in pairs)
            found[data] = means | {"fit s": mean(row["fit_seconds"] for _, row in pairs)}
    return found


def summary(rows: list[Row], method: str = "HEBAE") -> list[str]:
    """Return the table of all sets, what they have in common, and whether targets hold."""
    found = against_pca(rows, method)
    forms = {"d": "", "error": ".3f", **dict.fromkeys(SCORES, "+.3f"), "fit s": ".2f"}
    lines = (
        [data, *(f"{of[key]:{form}}" for key, form in forms.items())] for data, of in found.items()
    )
    ratios = {data: of["error"] for data, of in found.items()}
    worst, typical = max(ratios, key=ratios.__getitem__), geometric_mean(ratios.values())
    above = sum(ratio > WORST for ratio in ratios.values())
    behind = {key: mean(of[key] for of in found.values()) for key in SCORES}
    targets = [
        (f"largest error, at most {WORST}", f"{ratios[worst]:.3f} ({worst})", not above),
        (f"sets above {WORST}", f"{above} of {len(ratios)} ({above / len(ratios):.0%})", not above),
        (f"geometric mean of errors, at most {TYPICAL:.2f}", f"{typical:.3f}", typical <= TYPICAL),
    ]
    targets += [
        (f"mean difference of {key}, at least {BEHIND}", f"{value:+.4f}", value >= BEHIND)
        for key, value in behind.items()
    ]
    headings = ["data", "d", "error / PCA's", *(f"{key} - PCA's" for key in SCORES), "fit s"]
    verdicts = ((name, value, "yes" if holds else "no") for name, value, holds in targets)
    return [*table(headings, lines), "", *table(["target", method, "holds"], verdicts)]


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
    method, keys = arguments.method, ("data", "seed", "method")
    results = Results(arguments.output / "tables.json", keys, resume=arguments.resume)
    for name in sorted(arguments.data, key=DATA.index):
        cells = [{"data": name, "seed": seed, "method": method} for seed in arguments.seeds]
        left = [of["seed"] for of in cells if not results.has(**of, params=arguments.params)]
        dataset = load(name, arguments.data_dir) if left else None
        for seed in left if dataset is not None else ():
            data = split(dataset, seed, MOST_ROWS if name in TABLES else None)
            d = dimensions(name, data.train.shape[1])
            with unwarned():
                for row in measure(data, method, d, seed, arguments.params):
                    results.add(row)
    if against_pca(results.rows, method):
        print(*summary(results.rows, method), sep="\n")
