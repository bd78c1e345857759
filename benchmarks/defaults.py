"""The estimators with their defaults against PCA of the same size.

``python -m benchmarks.defaults [--data digits ...] [--seeds 3]`` writes
``results/defaults.json``.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.common import two_sample_accuracy, write
from benchmarks.datasets import TABLES, Table
from skhebae import HEBAETransformer, VAETransformer, WAETransformer
from skhebae.estimators.latent import MIXTURE_ROWS, CodeMixture

#: Rows that samples are compared with, at most.
SAMPLED_ROWS = 2000

ESTIMATORS = (PCA, HEBAETransformer, VAETransformer, WAETransformer)


def measure(cls: type, table: Table, seed: int) -> dict[str, Any]:
    """Fit on the training rows, measure on the others."""
    is_pca = cls is PCA
    params = {} if is_pca else {"likelihood": table.likelihood}
    estimator = cls(table.n_components, random_state=seed, **params)
    start = time.perf_counter()
    estimator.fit(table.train)
    fitted = time.perf_counter()
    codes = estimator.transform(table.test)
    mapped = time.perf_counter()
    train_codes = estimator.transform(table.train)
    error = np.square(estimator.inverse_transform(codes) - table.test).mean()
    neighbours = KNeighborsClassifier(table.n_neighbors).fit(train_codes, table.y_train)
    row: dict[str, Any] = {
        "method": cls.__name__,
        "seed": seed,
        "n_train": len(table.train),
        "n_components": table.n_components,
        "held_out_squared_error": float(error),
        "knn_accuracy": float(neighbours.score(codes, table.y_test)),
        "n_neighbors": table.n_neighbors,
        "fit_seconds": fitted - start,
        "transform_seconds": mapped - fitted,
    }
    if not is_pca:
        row["n_iter"] = estimator.n_iter_
        row["mixture_share_of_fit"] = mixture_seconds(train_codes) / row["fit_seconds"]
        rows = table.test[:SAMPLED_ROWS]
        row["two_sample_accuracy"] = {
            latent: two_sample_accuracy(rows, estimator.sample(len(rows), latent, random_state=0))
            for latent in ("mixture", "gaussian", "prior")
        }
    return row


def mixture_seconds(codes: np.ndarray[Any, np.dtype[np.float32]]) -> float:
    """Seconds of the latent mixture's fit, which `fit` includes."""
    start = time.perf_counter()
    CodeMixture.fit(codes[:MIXTURE_ROWS], 0)
    return time.perf_counter() - start


def main() -> None:
    """Measure every data set asked for, writing after each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=list(TABLES), default=list(TABLES))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for name in arguments.data:
        # One seed for the largest: its own split, half a minute a fit.
        for seed in range(1 if name == "fashion-mnist" else arguments.seeds):
            table = TABLES[name](seed)
            if table is None:
                break
            for cls in ESTIMATORS:
                rows.append({"data": name, **measure(cls, table, seed)})
                print({k: v for k, v in rows[-1].items() if k != "two_sample_accuracy"}, flush=True)
                write("defaults", rows)


if __name__ == "__main__":
    main()
