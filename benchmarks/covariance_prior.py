"""What `covariance_prior` does, to choose its default.

``python -m benchmarks.covariance_prior`` writes ``results/covariance_prior.json``:
HEBAE on digits with more rows than dimensions in a minibatch, and with fewer.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning

from benchmarks.common import write
from benchmarks.datasets import TABLES
from skhebae import HEBAETransformer

PSEUDO_ROWS = (0.01, 0.1, 1.0, 5.0, 20.0, 64.0, 200.0)
SETTINGS = ({"n_components": 10, "batch_size": 128}, {"n_components": 64, "batch_size": 32})


def measure(setting: dict[str, Any], pseudo_rows: float, seed: int) -> dict[str, Any]:
    """Held-out error, and how far held-out codes are from N(0, I) in moments."""
    table = TABLES["digits"](seed)
    assert table is not None  # it comes with scikit-learn
    estimator = HEBAETransformer(
        **setting, covariance_prior=pseudo_rows, max_iter=100, tol=0.0, random_state=seed
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a fixed budget, on purpose
        estimator.fit(table.train)
    codes = estimator.transform(table.test)
    covariance = np.cov(codes.T)
    log_det = np.linalg.slogdet(covariance)[1]
    return {
        **setting,
        "covariance_prior": pseudo_rows,
        "seed": seed,
        "held_out_squared_error": float(
            np.square(estimator.inverse_transform(codes) - table.test).mean()
        ),
        "mean_variance": float(np.diag(covariance).mean()),
        "kl_of_moments": float(0.5 * (np.trace(covariance) - len(covariance) - log_det)),
    }


def main() -> None:
    """Measure the grid, writing after each cell."""
    rows: list[dict[str, Any]] = []
    for setting in SETTINGS:
        for pseudo_rows in PSEUDO_ROWS:
            for seed in range(3):
                rows.append(measure(setting, pseudo_rows, seed))
                print(rows[-1], flush=True)
                write("covariance_prior", rows)


if __name__ == "__main__":
    main()
