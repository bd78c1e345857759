"""Strange rows: detectors on outlier sets, cell types and classes of images left out of the fit.

``python -m benchmarks novelty`` fits detectors to rows of known kinds, scores rows of these and of
other kinds, and writes ``results/novelty.json``. PyOD's detectors join in where it is installed.
"""

from __future__ import annotations

import importlib
import math
import tempfile
import warnings
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.preprocessing import StandardScaler

from benchmarks import datasets
from benchmarks.pages import average, fold, group, table
from benchmarks.results import Results, parser
from benchmarks.runner import Row, clock, limit_threads
from benchmarks.single_cell import SETS, read
from benchmarks.speed import unwarned
from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer
from skhebae.fitted.novelty import SCORES, novelty_scores

Array = NDArray[np.float64]
Novelty = Callable[[Array], Array]

#: Neighbours of the peers, and of LOF as scikit-learn has it by default.
NEIGHBOURS, LOF_NEIGHBOURS = 5, 20
#: Images and cells of a set, at most.
IMAGES, CELLS = 3000, 4000
#: Share of the rows of known kinds that a set of cells or images is fitted to.
TRAINED = 0.8
#: Share of the rows that is held out where scores are compared with each other.
HELD_OUT = 0.1
#: False alarms that p-values are compared with.
ALPHA = 0.05

#: Targets: gain in AUROC and average precision over k-NN, AUROC of cells, false alarms, seconds to
#: score 10,000 rows of 20 columns, bytes of the file.
AUROC_GAIN, AP_GAIN, CELLS_AUROC, ALARMS = 0.007, 0.005, 0.90, (0.04, 0.06)
SPEED_SHAPE, SECONDS, BYTES = (10_000, 20), 0.1, 1_000_000
OURS, PEER = "NoveltyDetector", "k-NN"

#: What the abstract of arXiv:1806.02997 says of novelties, with the scores that show it; the AUROC
#: of chance; and how many scores are many.
WAYS = {
    "novelties are reconstructed worse": ("reconstruction", "reconstruction_error"),
    "novelties violate the regulariser more": ("divergence",),
    "novelties differ in the latent space": ("latent_distance", "bhattacharyya", "code_density"),
    "novelties differ in the output": (
        "decoder_stochastic",
        "fully_stochastic",
        "nearest_generated",
    ),
}
CHANCE, MANY = 0.5, 3
#: Scores of others' or our own.
NOT_THEIRS = ("neighbours", "joint", "regret", "typicality")
#: The score "joint" with a normalising flow in place of the mixture, where zuko is installed, and
#: the flow's epochs.
WITH_FLOW, FLOW_EPOCHS = "score: reconstruction + flow of codes", 100


class Task(NamedTuple):
    """Rows to fit to, rows to score, and which of these are novel."""

    train: Array
    test: Array
    is_novel: NDArray[np.bool_]
    likelihood: str = "gaussian"
    train_log: Array | None = None  # what methods without a likelihood see
    test_log: Array | None = None


def outlier_sets(folder: Path) -> list[str]:
    """Return the names of the outlier sets in a folder."""
    return sorted(path.stem for path in (folder / "outliers").glob("*.npz"))


def outliers(folder: Path, name: str, seed: int) -> Iterator[tuple[str, Task]]:
    """Yield a set of ADBench: half of the inliers train, standardised; the rest is scored."""
    with np.load(folder / "outliers" / f"{name}.npz") as file:
        rows, labels = file["X"].astype(np.float64), file["y"].astype(int)
    known = np.random.RandomState(seed).permutation(np.flatnonzero(labels == 0))
    known = known[: len(known) // 2]
    others = np.setdiff1d(np.arange(len(rows)), known)
    scaler = StandardScaler().fit(rows[known])
    yield (
        "outliers",
        Task(scaler.transform(rows[known]), scaler.transform(rows[others]), labels[others] == 1),
    )


def left_out(
    rows: Array,
    labels: NDArray[Any],
    likelihood: str,
    seed: int,
    most: int,
    logs: Array | None = None,
) -> Iterator[tuple[str, Task]]:
    """Yield a set with each of its kinds in turn left out of the fit."""
    chosen = np.random.RandomState(seed).permutation(len(rows))[:most]
    kinds = labels[chosen].astype(str)
    seen = rows if logs is None else logs
    for kind in np.unique(kinds):
        known, novel = chosen[kinds != kind], chosen[kinds == kind]
        trained, held_out = np.split(known, [int(TRAINED * len(known))])
        test = np.concatenate([held_out, novel])
        is_novel = np.arange(len(test)) >= len(held_out)
        task = Task(rows[trained], rows[test], is_novel, likelihood, seen[trained], seen[test])
        yield str(kind), task


def detector(task: Task, seed: int, **params: Any) -> NoveltyDetector:
    """Make ours for the rows of a task."""
    return NoveltyDetector(
        HEBAETransformer(likelihood=task.likelihood), random_state=seed, **params
    )


def fit_neighbours(task: Task, seed: int) -> Novelty:
    """Fit k-NN."""
    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(task.train)
    return lambda rows: near.kneighbors(rows)[0][:, -1]


def fit_lof(task: Task, seed: int) -> Novelty:
    """Fit LOF."""
    model = LocalOutlierFactor(LOF_NEIGHBOURS, novelty=True).fit(task.train)
    return lambda rows: -model.score_samples(rows)


def fit_mahalanobis(task: Task, seed: int) -> Novelty:
    """Fit the covariance of all rows."""
    return EmpiricalCovariance().fit(task.train).mahalanobis  # type: ignore[no-any-return]


def fit_forest(task: Task, seed: int) -> Novelty:
    """Fit an isolation forest."""
    model = IsolationForest(random_state=seed).fit(task.train)
    return lambda rows: -model.score_samples(rows)


def on_pca(n_components: int, task: Task, seed: int) -> Novelty:
    """Fit k-NN on principal components, of log-normalised rows for counts."""
    assert task.train_log is not None
    model = PCA(n_components, random_state=seed)
    near = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(model.fit_transform(task.train_log))
    return lambda _: near.kneighbors(model.transform(task.test_log))[0][:, -1]


def of_pyod(module: str, name: str, task: Task, seed: int) -> Novelty:
    """Fit a detector of PyOD's with its defaults."""
    cls = getattr(importlib.import_module(f"pyod.models.{module}"), name)
    model = cls(**({"random_state": seed} if name in ("VAE", "AutoEncoder") else {}))
    model.fit(np.asarray(task.train))
    return lambda rows: np.asarray(model.decision_function(rows))


Method = Callable[[Task, int], Novelty]
PEERS: dict[str, Method] = {
    PEER: fit_neighbours,
    "LOF": fit_lof,
    "Mahalanobis": fit_mahalanobis,
    "isolation forest": fit_forest,
}
ON_PCA: dict[str, Method] = {
    "k-NN on 10 PCs": lambda task, seed: on_pca(10, task, seed),
    "k-NN on 50 PCs": lambda task, seed: on_pca(50, task, seed),
}
PYOD: dict[str, Method] = {
    "PyOD ECOD": lambda task, seed: of_pyod("ecod", "ECOD", task, seed),
    "PyOD AutoEncoder": lambda task, seed: of_pyod("auto_encoder", "AutoEncoder", task, seed),
    "PyOD VAE": lambda task, seed: of_pyod("vae", "VAE", task, seed),
}
KINDS = ("outliers", "cells", "images")
OF_KIND: dict[str, dict[str, Method]] = {
    "outliers": {**PEERS, **PYOD},
    "cells": ON_PCA,
    "images": {PEER: fit_neighbours, "isolation forest": fit_forest, **ON_PCA},
}
#: Names of the sets that have a class left out, by kind.
LEFT_OUT = {"cells": ("pbmc3k", "kang_ctrl"), "images": ("fashion-mnist",)}


def quality(is_novel: NDArray[np.bool_], novelty: Array) -> Row:
    """Return the area under the ROC curve and the average precision."""
    return {
        "auroc": float(roc_auc_score(is_novel, novelty)),
        "ap": float(average_precision_score(is_novel, novelty)),
    }


def measure_peer(method: Method, task: Task, seed: int, now: Callable[[], float]) -> Row:
    """Fit a peer, and return what is measured of it."""
    start = now()
    novelty = method(task, seed)
    fit_seconds, start = now() - start, now()
    scores = novelty(task.test)
    return {
        **quality(task.is_novel, scores),
        "fit_seconds": fit_seconds,
        "score_seconds": now() - start,
    }


def measure_scores(task: Task, seed: int, now: Callable[[], float], base: Any) -> list[Row]:
    """Fit one autoencoder, and return what is measured of each score of it."""
    # The score that needs most of a reference: others can be had from the same fit.
    model = NoveltyDetector(
        base(likelihood=task.likelihood),
        novelty_score="bhattacharyya",
        calibration=HELD_OUT,
        random_state=seed,
    )
    start = now()
    model.fit(task.train)
    fit_seconds, rows = now() - start, []
    fitted, typical = model.autoencoder_.fitted_, float(-model.autoencoder_.score(task.train))
    scored: dict[str, Array] = {}
    for score in SCORES:
        start = now()
        scored[score] = novelty_scores(
            fitted,
            score,
            model.autoencoder_.validate_rows(task.test),
            reference=model.reference_,
            typical=typical,
        )
        row = {**quality(task.is_novel, scored[score]), "score_seconds": now() - start}
        rows.append({"method": f"score: {score}", **row, "fit_seconds": fit_seconds})
    if find_spec("zuko") is not None:
        codes = [model.autoencoder_.transform(of) for of in (task.train, task.test)]
        joint = scored["reconstruction"] + flow_surprise(*codes, seed=seed)
        rows.append({"method": WITH_FLOW, **quality(task.is_novel, joint)})
    return rows


def last_score() -> str:
    """Return the score that is measured last."""
    return f"score: {SCORES[-1]}" if find_spec("zuko") is None else WITH_FLOW


def flow_surprise(train: Array, test: Array, seed: int) -> Array:
    """Return minus the log-density of codes under a neural spline flow of codes of the fit."""
    import torch
    import zuko

    scale = train.std(axis=0) + 1e-6
    known, others = (torch.from_numpy((of - train.mean(axis=0)) / scale) for of in (train, test))
    held_out = known[::5]
    known = known[torch.arange(len(known)) % 5 != 0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = zuko.flows.NSF(known.shape[1], transforms=3, hidden_features=(64, 64))
        optimiser = torch.optim.AdamW(flow.parameters(), lr=1e-3, weight_decay=1e-3)
        best, kept = math.inf, {}
        for _ in range(FLOW_EPOCHS):
            for batch in known[torch.randperm(len(known))].split(256):
                optimiser.zero_grad()
                (-flow().log_prob(batch).mean()).backward()
                optimiser.step()
            with torch.no_grad():
                loss = float(-flow().log_prob(held_out).mean())
            if loss < best:  # stop where held-out codes are most likely
                best, kept = loss, {k: v.clone() for k, v in flow.state_dict().items()}
        flow.load_state_dict(kept)
        with torch.no_grad():
            surprise: Array = -flow().log_prob(others).double().numpy()
    return surprise


def measure_default(task: Task, seed: int, now: Callable[[], float]) -> Row:
    """Fit a detector with defaults, and return what is measured of it."""
    start = now()
    model = detector(task, seed).fit(task.train)
    fit_seconds, start = now() - start, now()
    p_values, seconds = model.p_values(task.test), now() - start
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "detector")
        size = (Path(folder) / "detector").stat().st_size
    quiet = -model.score_samples(task.test)
    return {
        **quality(task.is_novel, quiet),
        "fit_seconds": fit_seconds,
        "score_seconds": seconds,
        "false_alarms": float((p_values[~task.is_novel] <= ALPHA).mean()),
        "found": float((p_values[task.is_novel] <= ALPHA).mean()),
        "bytes": size,
    }


def measure_speed(now: Callable[[], float]) -> Row:
    """Return how long 10,000 rows of 20 columns take to score, and the size of the file."""
    rng = np.random.RandomState(0)
    n_rows, n_features = SPEED_SHAPE
    rows = rng.standard_normal((n_rows, 5)) @ rng.standard_normal((5, n_features))
    rows += 0.3 * rng.standard_normal(rows.shape)
    model = NoveltyDetector(random_state=0).fit(rows)
    seconds = []
    for _ in range(7):
        start = now()
        model.score_samples(rows)
        seconds.append(now() - start)
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder) / "detector")
        size = (Path(folder) / "detector").stat().st_size
    return {"score_seconds": median(seconds), "bytes": size}


# The summary

#: What numbers and kinds of tasks are called on the page, and how many methods are not folded away.
KEYS = {"auroc": "AUROC", "ap": "average precision"}
HEADINGS = {"outliers": "Outlier sets", "cells": "Left-out cell types", "images": "Left-out images"}
SHOWN = 8


def per_set(rows: list[Row], method: str, key: str) -> dict[str, float]:
    """Return the mean of a number over seeds and left-out kinds, per set."""
    own = [row for row in rows if row["method"] == method and key in row]
    return {data: average(of, key) for (data,), of in group(own, "data").items()}


def means(rows: list[Row], method: str, key: str) -> float:
    """Return the mean over sets of `per_set`."""
    return mean(per_set(rows, method, key).values())


def overview(rows: list[Row]) -> list[str]:
    """Return the table of methods on the sets of one kind."""
    methods = sorted({row["method"] for row in rows}, key=lambda m: -means(rows, m, "auroc"))
    lines = []
    for method in methods:
        keys = ("auroc", "ap")
        line: list[object] = [method, *(f"{means(rows, method, key):.3f}" for key in keys)]
        timed = any(row["method"] == method and "fit_seconds" in row for row in rows)
        for key in ("fit_seconds", "score_seconds"):
            line.append(f"{means(rows, method, key):.2f}" if timed else "")
        lines.append(line)
    return table(["method", "AUROC", "AP", "fit s", "score s"], lines)


def by_set(rows: list[Row], methods: tuple[str, ...]) -> list[str]:
    """Return the table of AUROC per set."""
    columns = {method: per_set(rows, method, "auroc") for method in methods}
    alarms, found = (per_set(rows, OURS, key) for key in ("false_alarms", "found"))
    lines = [
        [
            data,
            *(f"{columns[m][data]:.3f}" for m in methods),
            f"{alarms[data]:.3f}",
            f"{found[data]:.3f}",
        ]
        for data in columns[OURS]
    ]
    return table(["AUROC on", *methods, "false alarms", "found"], lines)


def targets(rows: list[Row]) -> list[list[object]]:
    """Return what was asked for, the target, what was reached, and whether that is met."""
    of = {kind: [row for row in rows if row["kind"] == kind] for kind in (*KINDS, "speed")}
    lines: list[tuple[str, str, str, bool]] = []
    if of["outliers"]:
        for key, least in (("auroc", AUROC_GAIN), ("ap", AP_GAIN)):
            gain = means(of["outliers"], OURS, key) - means(of["outliers"], PEER, key)
            lines.append(
                (
                    f"outlier sets: mean {KEYS[key]} minus that of k-NN",
                    f">= {least}",
                    f"{gain:+.3f}",
                    gain >= least,
                )
            )
        alarms = means(of["outliers"], OURS, "false_alarms")
        low, high = ALARMS
        lines.append(
            (
                "outlier sets: share of held-out inliers with p <= 0.05",
                f"{low} to {high}",
                f"{alarms:.3f}",
                low <= alarms <= high,
            )
        )
    if of["cells"]:
        reached = means(of["cells"], OURS, "auroc")
        best = max(means(of["cells"], method, "auroc") for method in ON_PCA)
        said = f"{reached:.3f} (k-NN on principal components: {best:.3f})"
        lines.append(
            ("left-out cell types: mean AUROC", f">= {CELLS_AUROC}", said, reached >= CELLS_AUROC)
        )
    for row in of["speed"]:
        seconds, size = row["score_seconds"], row["bytes"]
        lines.append(
            (
                "seconds to score 10,000 rows of 20 columns",
                f"< {SECONDS}",
                f"{seconds:.3f}",
                seconds < SECONDS,
            )
        )
        lines.append(("size of the file in bytes", f"< {BYTES:,}", f"{size:,}", size < BYTES))
    return [[*line, "met" if met else "missed"] for *line, met in lines]


def claims(rows: list[Row]) -> list[list[object]]:
    """Return what the abstract of arXiv:1806.02997 says, what was measured, and a verdict.

    On images of one class in turn, scored by a VAE of the other classes. A way in which novelties
    differ "holds" if its scores are above chance for all classes, and "partly" if on average.
    """
    images = [row for row in rows if row["kind"] == "images"]
    lines: list[list[object]] = []
    for claim, scores in WAYS.items():
        best = max(scores, key=lambda score: means(images, f"score: {score}", "auroc"))
        own = [row["auroc"] for row in images if row["method"] == f"score: {best}"]
        above = sum(value > CHANCE for value in own)
        verdict = "holds" if above == len(own) else "partly" if mean(own) > CHANCE else "does not"
        said = (
            f"{best}: mean AUROC {mean(own):.3f}, above {CHANCE} for {above} of {len(own)} classes"
        )
        lines.append([claim, said, verdict])
    peer = max(OF_KIND["images"], key=lambda method: means(images, method, "auroc"))
    level = means(images, peer, "auroc")
    theirs = [score for score in SCORES if score not in NOT_THEIRS]
    better = [score for score in theirs if means(images, f"score: {score}", "auroc") > level]
    verdict = "holds" if len(better) >= MANY else "partly" if better else "does not"
    said = f"{len(better)} of {len(theirs)} scores better than {peer} ({level:.3f})"
    said += f": {', '.join(better)}" if better else ""
    lines.append(["many of the scores outperform other methods", said, verdict])
    return lines


def summary(rows: list[Row]) -> list[str]:
    """Return the tables, and whether the targets are met."""
    lines = table(["measure", "target", "reached", "verdict"], targets(rows))
    for kind in KINDS:
        of = [row for row in rows if row["kind"] == kind]
        if of:
            methods = overview(of)
            lines += ["", f"### {HEADINGS[kind]}", "", *methods[: 2 + SHOWN]]
            lines += ["", *fold(f"All {len(methods) - 2} methods and scores", methods), ""]
            peers = tuple(m for m in OF_KIND[kind] if any(row["method"] == m for row in of))[:3]
            lines += by_set(of, (OURS, *peers))
    if any(row["kind"] == "images" for row in rows):
        heading = "### The claims of arXiv:1806.02997, on images"
        lines += ["", heading, "", *table(["claim", "measured", "verdict"], claims(rows))]
    return lines


def tasks(kind: str, name: str, folder: Path, seed: int) -> Iterator[tuple[str, Task]]:
    """Yield the tasks of a set, each with the name of what is novel."""
    if kind == "outliers":
        yield from outliers(folder, name, seed)
        return
    if kind == "images":
        images = datasets.load(name, folder)
        if images is not None:
            yield from left_out(images.rows, images.labels, images.likelihood, seed, IMAGES)
        return
    adata = read(SETS[name], folder)
    if adata is not None:
        labels, log = adata.obs["cell_type"].to_numpy(), adata.layers["log"]
        yield from left_out(adata.X.toarray(), labels, "negative_binomial", seed, CELLS, log)


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for, and print the summary."""
    made = parser("novelty", __doc__, threads=1, resumes=True)
    made.add_argument("--kinds", nargs="+", choices=(*KINDS, "speed"), default=[*KINDS, "speed"])
    made.add_argument("--data-dir", type=Path, default=datasets.DATA, help="folder of the sets")
    made.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    made.add_argument("--again", nargs="*", default=[], help="methods to measure again")
    arguments = made.parse_args(argv)
    limit_threads(arguments.threads)
    output = arguments.output / "novelty.json"
    keys = ("kind", "data", "novel", "seed", "method")
    results = Results(output, keys, resume=arguments.resume, threads=arguments.threads)
    results.rows = [row for row in results.rows if row["method"] not in arguments.again]
    now = clock(arguments.threads)
    for kind in arguments.kinds:
        if kind == "speed":
            if not results.has(kind=kind):
                cell = {"kind": kind, "data": "normal", "novel": "", "seed": 0, "method": OURS}
                results.add({**cell, **measure_speed(now)})
            continue
        names = outlier_sets(arguments.data_dir) if kind == "outliers" else LEFT_OUT[kind]
        seeds = arguments.seeds if kind == "outliers" else arguments.seeds[:1]
        for name, seed in product(names, seeds):
            for novel, task in tasks(kind, name, arguments.data_dir, seed):
                cell = {"kind": kind, "data": name, "novel": novel, "seed": seed}
                measure(results, cell, task, now)
    print(*summary(results.rows), sep="\n")


def measure(results: Results, cell: Row, task: Task, now: Callable[[], float]) -> None:
    """Add the rows of one task that are not there yet."""
    if task.is_novel.sum() < 2:
        return
    seed, kind = cell["seed"], cell["kind"]
    with unwarned():
        if not results.has(**cell, method=OURS):
            results.add({**cell, "method": OURS, **measure_default(task, seed, now)})
        # Jacobians of thousands of features take minutes per type: one set of cells says enough.
        compares = kind != "cells" or cell["data"] == LEFT_OUT["cells"][0]
        if compares and not results.has(**cell, method=last_score()):
            base = VAETransformer if kind == "images" else HEBAETransformer
            for row in measure_scores(task, seed, now, base):
                results.add({**cell, **row})
        for method, fit in OF_KIND[kind].items():
            # PyOD's networks take minutes per set, and the first seed says enough.
            if results.has(**cell, method=method) or (method in PYOD and seed != 0):
                continue
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    row = measure_peer(fit, task, seed, now)
            except ImportError:
                continue
            results.add({**cell, "method": method, **row})
