"""What the benchmarks share: data, the machine's description, JSON."""

from __future__ import annotations

import gzip
import json
import os
import platform
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sklearn
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import cross_val_score, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

import skhebae

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("SKHEBAE_DATA", Path(__file__).parents[2] / "shared" / "data"))


class Table(NamedTuple):
    """Train and test rows with labels, and how to model them."""

    train: NDArray[np.float32]
    test: NDArray[np.float32]
    y_train: NDArray[Any]
    y_test: NDArray[Any]
    n_components: int
    n_neighbors: int = 5
    likelihood: str = "gaussian"


def digits(seed: int) -> Table:
    """Scikit-learn's digits / 16, 75/25."""
    X, y = load_digits(return_X_y=True)
    return Table(*train_test_split(X / 16, y, test_size=0.25, random_state=seed), 10)


def _standardised(load: Callable[..., Any], n_components: int, seed: int) -> Table:
    train, test, *labels = train_test_split(
        *load(return_X_y=True), test_size=0.25, random_state=seed
    )
    scaler = StandardScaler().fit(train)
    return Table(scaler.transform(train), scaler.transform(test), *labels, n_components)


def breast_cancer(seed: int) -> Table:
    """Scikit-learn's breast-cancer table, standardised, 75/25."""
    return _standardised(load_breast_cancer, 5, seed)


def wine(seed: int) -> Table:
    """Scikit-learn's wine table, standardised, 75/25."""
    return _standardised(load_wine, 2, seed)


def fashion_mnist(seed: int) -> Table | None:
    """Fashion-MNIST / 255 in its own split, or None where its files are not."""
    del seed
    folder = DATA / "fashion-mnist"
    if not folder.is_dir():
        print(f"fashion-mnist skipped: no folder {folder}; set SKHEBAE_DATA to where it is")
        return None

    def read(name: str, offset: int) -> NDArray[np.uint8]:
        return np.frombuffer(gzip.decompress((folder / name).read_bytes()), np.uint8, offset=offset)

    parts = [read(f"{p}-images-idx3-ubyte.gz", 16).reshape(-1, 784) for p in ("train", "t10k")]
    labels = [read(f"{p}-labels-idx1-ubyte.gz", 8) for p in ("train", "t10k")]
    train, test = (np.divide(part, 255, dtype=np.float32) for part in parts)
    return Table(train, test, *labels, 10, 10, "bernoulli")


def pbmc3k(seed: int) -> Table | None:
    """Blood cells, log-normalised, 2,000 most variable genes, 75/25; None without the file."""
    path = DATA / "pbmc3k.h5ad"
    if not path.is_file():
        print(f"pbmc3k skipped: no file {path}; set SKHEBAE_DATA to its folder")
        return None
    import scanpy

    adata = scanpy.read_h5ad(path)
    scanpy.pp.normalize_total(adata, target_sum=1e4)
    scanpy.pp.log1p(adata)
    scanpy.pp.highly_variable_genes(adata, n_top_genes=2000, subset=True)
    X = np.asarray(adata.X.toarray(), dtype=np.float32)
    labels = adata.obs["cell_type"].to_numpy(dtype=str)
    return Table(*train_test_split(X, labels, test_size=0.25, random_state=seed), 10)


TABLES: dict[str, Callable[[int], Table | None]] = {
    "digits": digits,
    "breast-cancer": breast_cancer,
    "wine": wine,
    "fashion-mnist": fashion_mnist,
}


def two_sample_accuracy(real: NDArray[Any], generated: NDArray[Any]) -> float:
    """Accuracy of 5 neighbours at telling real rows from generated ones; 0.5 is chance."""
    rows = np.concatenate([real, generated])
    labels = np.repeat([0, 1], [len(real), len(generated)])
    return float(cross_val_score(KNeighborsClassifier(5), rows, labels, cv=5).mean())


def environment() -> dict[str, Any]:
    """Where and with what a result was made."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = models[0].split(":")[1].strip() if models else processor
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scikit-learn": sklearn.__version__,
        "numpy": np.__version__,
        "skhebae": skhebae.__version__,
    }


def write(name: str, rows: list[dict[str, Any]]) -> None:
    """Write results so far, with the environment, to ``results/<name>.json``."""
    RESULTS.mkdir(exist_ok=True)
    document = {"environment": environment(), "rows": rows}
    (RESULTS / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")
