"""The defaults for counts: how much input noise, and how many epochs.

``python -m benchmarks count-defaults`` fits three quarters of the cells of each set at
multiples of the default's epochs and noises, and writes the bound of the others, nats a
cell, and the accuracy of neighbours to ``results/count_defaults.json``.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.common import RESULTS
from benchmarks.datasets import DATA
from benchmarks.single_cell import N_NEIGHBORS, SETS, PrintedResults, prepared
from skhebae import HEBAETransformer
from skhebae.estimators.assembly import auto_batch_size, auto_epochs

NOISES = (0.3, 1.0, 2.0)
TIMES = (0.5, 1.0, 2.0)
DEFAULT = (1.0, 1.0)


def measure(adata: Any, noise: float, times: float, seed: int) -> dict[str, Any]:
    """Fit with `times` the default's epochs, and look at held-out cells."""
    kinds, batches = (adata.obs[column].to_numpy() for column in ("cell_type", "batch"))
    train, test = train_test_split(range(adata.n_obs), test_size=0.25, random_state=seed)
    likelihood = "negative_binomial"
    epochs = auto_epochs(len(train), auto_batch_size(len(train), 10), likelihood)
    model = HEBAETransformer(
        10,
        likelihood=likelihood,
        input_noise=noise,
        max_iter=max(1, round(times * epochs)),
        n_iter_no_change=10**6,  # all of the epochs
        random_state=seed,
    )
    model.fit(adata.X[train], batch=batches[train])
    knn = KNeighborsClassifier(N_NEIGHBORS).fit(model.transform(adata.X[train]), kinds[train])
    return {
        "epochs": model.n_iter_,
        "bound": model.score(adata.X[test], batch=batches[test]),
        "knn_accuracy": float(knn.score(model.transform(adata.X[test]), kinds[test])),
        "seconds": sum(model.history_["seconds"]),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks count-defaults", description=__doc__
    )
    names = ("pbmc_3tech", "kang_ifnb", "pbmc3k", "paul15")
    parser.add_argument("--data", nargs="+", choices=names, default=names)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--data-dir", type=Path, default=DATA)
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON")
    arguments = parser.parse_args(argv)
    results = PrintedResults(arguments.output / "count_defaults.json", resume=arguments.resume)
    for name in arguments.data:
        path = arguments.data_dir / SETS[name].file
        if not path.is_file():
            print(f"{name} left out: no file {path}; set SKHEBAE_DATA to the folder that has it")
            continue
        import anndata

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scanpy, and of fits that are short on purpose
            adata = prepared(anndata.read_h5ad(path), None)
            if not SETS[name].integrates:
                adata.obs["batch"] = "one"
            for seed in arguments.seeds:
                for noise in NOISES:
                    for times in TIMES if noise == DEFAULT[0] else TIMES[1:2]:
                        cell = {"data": name, "input_noise": noise, "times": times, "seed": seed}
                        if not results.has(**cell):
                            results.add({**cell, **measure(adata, noise, times, seed)})


if __name__ == "__main__":
    main()
