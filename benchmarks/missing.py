"""Missing values: imputed entries, their intervals and the codes of incomplete rows.

``python -m benchmarks missing`` removes entries of standardised tables, completely at random or
the large ones of each column, fills them in by ours and by scikit-learn's imputers, and writes
``results/missing.json``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.datasets import Dataset, load
from benchmarks.pages import average, group, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, limit_threads
from benchmarks.speed import unwarned
from skhebae import HEBAEImputer, HEBAETransformer, VAETransformer

Array = NDArray[np.float64]
#: The sets, the slowest last; codes are judged on that.
DATA = ("breast-cancer", "wine", "vehicle", "ionosphere", "diabetes", "digits")
LABELLED = "digits"

#: What is removed: shares at random, or of the values above a quantile of their column.
AT_RANDOM = {"20 %": 0.2, "50 %": 0.5}
LARGE, LARGE_QUANTILE, LARGE_SHARE = "large values", 0.75, 0.8
NOTHING = "nothing"
REMOVED = (*AT_RANDOM, LARGE, NOTHING)

#: Draws behind an interval, and the share of removed values that it should cover.
DRAWS, COVERED = 100, 0.9

METHODS: dict[str, Callable[[int], Any]] = {
    "HEBAE": lambda seed: HEBAEImputer(HEBAETransformer(random_state=seed)),
    "VAE": lambda seed: HEBAEImputer(VAETransformer(random_state=seed)),
    "k-NN": lambda seed: KNNImputer(keep_empty_features=True),
    "iterative": lambda seed: IterativeImputer(random_state=seed, keep_empty_features=True),
    "mean": lambda seed: SimpleImputer(keep_empty_features=True),
}
OURS, PEERS = ("HEBAE", "VAE"), ("k-NN", "iterative")
SECONDS = ("fit_seconds", "impute_seconds")
FILLED = "`transform(impute(X))`"

#: Targets: sets on which ours is no worse than the better peer, geometric mean of the ratios to
#: it, RMSE on digits without half of the entries, coverage, share of the accuracy of codes.
SETS, TYPICAL, DIGITS, COVERAGE, ACCURACY = 5, 0.95, 0.70, (0.87, 0.93), 0.95


def standardised(dataset: Dataset) -> Array:
    """Return the columns that vary, with mean 0 and deviation 1."""
    rows = dataset.rows.astype(np.float64)
    rows = rows[:, rows.std(axis=0) > 0.0]
    scaled: Array = (rows - rows.mean(axis=0)) / rows.std(axis=0)
    return scaled


def removal(rows: Array, removed: str, seed: int) -> NDArray[np.bool_]:
    """Choose the entries to remove, True in a mask of the shape of `rows`."""
    draws = np.random.RandomState(seed).uniform(size=rows.shape)
    if removed == LARGE:
        return (rows > np.quantile(rows, LARGE_QUANTILE, axis=0)) & (draws < LARGE_SHARE)
    return draws < AT_RANDOM.get(removed, 0.0)


def coverage(draws: Array, values: Array) -> float:
    """Return the share of values (m,) within the central intervals of draws (n_draws, m)."""
    tails = [0.5 * (1.0 - COVERED), 0.5 * (1.0 + COVERED)]
    # For draws from the values' own distribution, these quantiles cover that share on average.
    low, high = np.quantile(draws, tails, axis=0, method="weibull")
    return float(((values >= low) & (values <= high)).mean())


def accuracy(codes: Array, labels: NDArray[Any]) -> float:
    """Return the cross-validated accuracy of five neighbours among codes."""
    return float(cross_val_score(KNeighborsClassifier(5), codes, labels, cv=5).mean())


def measure(
    dataset: Dataset, removed: str, seed: int, method: str, now: Callable[[], float]
) -> Row:
    """Remove entries, fill them in, and return what is measured of that."""
    rows = standardised(dataset)
    mask = removal(rows, removed, seed)
    holed = np.where(mask, np.nan, rows)
    model, start = METHODS[method](seed), now()
    model.fit(holed)
    row: Row = {"n_removed": int(mask.sum()), "fit_seconds": now() - start}
    start = now()
    filled = model.transform(holed)
    row["impute_seconds"] = now() - start
    if mask.any():
        row["rmse"] = float(np.square(filled - rows)[mask].mean() ** 0.5)
    if method not in OURS:
        return row
    estimator = model.autoencoder_
    row["is_linear"] = bool(estimator.is_linear_)
    if mask.any():
        draws = estimator.impute(holed, n_draws=DRAWS, random_state=seed)
        row["coverage"] = coverage(draws[:, mask], rows[mask])
    if dataset.name == LABELLED:
        row["accuracy"] = accuracy(estimator.transform(holed), dataset.labels)
        row["accuracy_filled"] = accuracy(estimator.transform(filled), dataset.labels)
    return row


def ratios(rows: list[Row], method: str, removed: str) -> dict[str, float]:
    """Return, per set, the RMSE over that of the better peer of the run, mean over seeds."""
    found = {}
    for (data,), of in group((r for r in rows if r["removed"] == removed), "data").items():
        runs = [
            {row["method"]: row["rmse"] for row in of_seed}
            for of_seed in group(of, "seed").values()
        ]
        found[data] = mean(run[method] / min(run[peer] for peer in PEERS) for run in runs)
    return found


def targets(rows: list[Row], method: str = "HEBAE") -> list[list[object]]:
    """Return what was asked for, the target, what was reached, and whether that is met."""
    own = [row for row in rows if row["method"] == method]
    found = {removed: ratios(rows, method, removed) for removed in AT_RANDOM}
    behind = {removed: [k for k, v in of.items() if v > 1.0] for removed, of in found.items()}
    lines: list[tuple[str, str, str, bool]] = []
    for removed, of in found.items():
        said = f"{len(of) - len(behind[removed])} of {len(of)}"
        said += f" (not {', '.join(behind[removed])})" if behind[removed] else ""
        name = f"{removed} removed: data sets no worse than the better peer"
        lines.append((name, f">= {SETS}", said, len(of) - len(behind[removed]) >= SETS))
    typical = geometric_mean(ratio for of in found.values() for ratio in of.values())
    name = "geometric mean of the ratios"
    lines.append((name, f"<= {TYPICAL}", f"{typical:.3f}", typical <= TYPICAL))
    low, high = COVERAGE
    within = f"{low} to {high}"
    cells = group((row for row in own if row["removed"] in AT_RANDOM), "data", "removed")
    if (LABELLED, "50 %") in cells:
        error = average(cells[(LABELLED, "50 %")], "rmse")
        name = f"RMSE on {LABELLED}, 50 % removed"
        lines.append((name, f"<= {DIGITS:.2f}", f"{error:.3f}", error <= DIGITS))
    weights = [row["n_removed"] for of in cells.values() for row in of]
    shares = [row["coverage"] for of in cells.values() for row in of]
    overall = float(np.average(shares, weights=weights))
    name = "removed entries in 90 % intervals"
    lines.append((name, within, f"{overall:.3f}", low <= overall <= high))
    covered = {key: average(of, "coverage") for key, of in cells.items()}
    outside = [f"{d}, {r}: {v:.3f}" for (d, r), v in covered.items() if not low <= v <= high]
    said = f"{len(covered) - len(outside)} of {len(covered)}"
    said += f" (not {'; '.join(outside)})" if outside else ""
    lines.append((f"data sets and rates where that share is {within}", "all", said, not outside))
    whole = [row for row in own if row["removed"] == NOTHING]
    if whole and (LABELLED, "20 %") in cells:
        complete = average(whole, "accuracy")
        for key, form in {"accuracy": "`transform(X)`", "accuracy_filled": FILLED}.items():
            share = average(cells[(LABELLED, "20 %")], key) / complete
            name = f"accuracy of {form} of {LABELLED}, 20 % removed over complete"
            lines.append((name, f">= {ACCURACY}", f"{share:.3f}", share >= ACCURACY))
    return [[*line, "met" if met else "missed"] for *line, met in lines]


def errors(rows: list[Row]) -> list[str]:
    """Return the table of errors, coverage and seconds of all sets."""
    lines = []
    for removed in REMOVED[:-1]:
        ratio = ratios(rows, "HEBAE", removed)
        cells = group((row for row in rows if row["removed"] == removed), "data", "method")
        for data in ratio:
            line = [data, removed, *(f"{average(cells[data, m], 'rmse'):.3f}" for m in METHODS)]
            line += [f"{ratio[data]:.3f}"]
            line += [f"{average(cells[data, m], 'coverage'):.3f}" for m in OURS]
            for method in ("HEBAE", *PEERS):
                line += [f"{sum(average(cells[data, method], key) for key in SECONDS):.1f}"]
            lines.append(line)
    headings = ["data", "removed", *METHODS, "ratio"]
    headings += [f"{m} covered" for m in OURS] + [f"{m} s" for m in ("HEBAE", *PEERS)]
    return table(headings, lines)


def codes(rows: list[Row]) -> list[str]:
    """Return the table of accuracies of codes."""
    labelled = [row for row in rows if row["data"] == LABELLED and row["method"] in OURS]
    keys = ("accuracy", "accuracy_filled")
    lines = (
        [method, removed, *(f"{average(of, key):.3f}" for key in keys)]
        for (method, removed), of in group(labelled, "method", "removed").items()
    )
    headings = ["method", "removed", "`transform(X)`", FILLED]
    return table(headings, lines)


def summary(rows: list[Row]) -> list[str]:
    """Return the tables, and whether the targets are met."""
    order = sorted(rows, key=lambda r: (DATA.index(r["data"]), REMOVED.index(r["removed"])))
    order.sort(key=lambda row: list(METHODS).index(row["method"]))
    return [
        *table(["measure", "target", "HEBAE", "verdict"], targets(order)),
        "",
        "**Errors of the filled-in entries.** A row is one data set with one kind of removal. The "
        "columns named after methods have the root mean squared error, lower is better. *Ratio* is "
        "HEBAE's error over that of the better of k-NN and iterative. *Covered* is the share of "
        "removed entries in 90 % intervals; 0.90 is right. Seconds are processor time, one thread.",
        "",
        *errors(order),
        "",
        f"**Codes of rows with holes.** A row is one method on {LABELLED}. The numbers are the "
        "accuracy of a classifier of five nearest neighbours on the codes, higher is better.",
        "",
        *codes(order),
    ]


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the summary."""
    made = parser("missing", __doc__, threads=1, resumes=True)
    made.add_argument("--data", nargs="+", choices=DATA, default=DATA)
    made.add_argument("--data-dir", type=Path, help="folder of the sets")
    made.add_argument("--removed", nargs="+", choices=REMOVED, default=REMOVED)
    made.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    keys = ("data", "removed", "seed", "method")
    output = arguments.output / "missing.json"
    results = Results(output, keys, resume=arguments.resume, threads=arguments.threads)
    now = clock(arguments.threads)
    for name in sorted(arguments.data, key=DATA.index):
        dataset = load(name, arguments.data_dir)
        for removed in arguments.removed if dataset is not None else ():
            if removed == NOTHING and name != LABELLED:
                continue
            methods = OURS if removed == NOTHING else METHODS
            chosen = [method for method in methods if method in arguments.methods]
            for seed, method in product(arguments.seeds, chosen):
                cell = {"removed": removed, "seed": seed, "method": method}
                if not results.has(data=name, **cell):
                    with unwarned():
                        row = measure(dataset, **cell, now=now)
                    results.add({"data": name, **cell, **row})
    if set(METHODS) == {row["method"] for row in results.rows}:
        print(*summary(results.rows), sep="\n")
