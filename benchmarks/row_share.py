"""What `row_share` does, to choose its default: HEBAE from the paper's objective to the ELBO.

``python -m benchmarks.row_share [--data digits ...] [--seeds 3]`` writes
``results/row_share.json``: held-out numbers of HEBAE for each share, and of VAE.
"""

from __future__ import annotations

import argparse
import warnings
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.common import two_sample_accuracy, write
from benchmarks.datasets import Table, load_table
from skhebae import HEBAETransformer, VAETransformer
from skhebae.diagnostics import latent_report
from skhebae.exceptions import LatentWarning

SHARES = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0)
STUDIED = ("digits", "fashion-mnist", "pbmc3k")
#: Held-out rows behind the likelihood, the report and the samples.
ROWS = 2000

#: Principal components in which samples are compared with rows: among thousands
#: of noisy features, decoded means, which have no noise, are everyone's neighbours.
COMPARED_COMPONENTS = 20


def measure(estimator: Any, table: Table) -> dict[str, float]:
    """Fit on the training rows, measure on the others."""
    estimator.fit(table.train)
    codes = estimator.transform(table.test)
    neighbours = KNeighborsClassifier(table.n_neighbors)
    neighbours.fit(estimator.transform(table.train), table.y_train)
    rows = table.test[:ROWS]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatentWarning)  # vanished noise is what is studied
        report = latent_report(estimator, rows)
    result = {
        "held_out_squared_error": np.square(estimator.inverse_transform(codes) - table.test).mean(),
        "reconstruction": report.reconstruction,
        "elbo": report.elbo,
        "score": estimator.score(rows),
        "log_likelihood": estimator.log_likelihood(rows).mean(),
        "mutual_information": report.mutual_information,
        "mutual_information_ceiling": np.log(report.n_pair_rows),
        "row_kl": report.row_kl,
        "moments_kl": report.moments_kl,
        "noise_share": float(np.median(report.posterior_variance / report.mean_variance)),
        "active": int(report.active.sum()),
        "knn_accuracy": neighbours.score(codes, table.y_test),
    }
    pca = PCA(COMPARED_COMPONENTS, random_state=0).fit(table.train)
    for latent in ("mixture", "prior"):
        samples = estimator.sample(len(rows), latent, random_state=0)
        result[f"told_apart_{latent}"] = two_sample_accuracy(
            pca.transform(rows), pca.transform(samples)
        )
    return {name: float(value) for name, value in result.items()}


def main() -> None:
    """Measure every data set asked for, writing after each cell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=STUDIED, default=STUDIED)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for name in arguments.data:
            table = load_table(name, seed)
            if table is None:
                continue
            params = {"likelihood": table.likelihood, "random_state": seed}
            models = {
                share: HEBAETransformer(table.n_components, row_share=share, **params)
                for share in SHARES
            } | {"VAE": VAETransformer(table.n_components, **params)}
            for share, estimator in models.items():
                cell = {"data": name, "seed": seed, "row_share": share}
                rows.append({**cell, "n_train": len(table.train), **measure(estimator, table)})
                print(rows[-1], flush=True)
                write("row_share", rows)


if __name__ == "__main__":
    main()
