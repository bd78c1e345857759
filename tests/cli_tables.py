"""Files for the tests of the command line; those that docs/guide/command-line.md shows."""

from __future__ import annotations

import numpy as np


def make_patients(n=120):
    """A frame with identifiers, numbers, categories, codes, dates, truth values and gaps."""
    import pandas as pd

    rng = np.random.default_rng(0)
    state = rng.normal(size=n)
    frame = pd.DataFrame(
        {
            "patient": [f"P{i:03d}" for i in range(n)],
            "age": np.round(50 + 12 * state + 3 * rng.normal(size=n)).astype(int),
            "sex": np.where(rng.random(n) < 0.5, "F", "M"),
            "ward": [f"0{ward}" for ward in rng.integers(1, 4, n)],
            "pressure": np.round(130 + 15 * state + 5 * rng.normal(size=n), 1),
            "seen": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 300, n), "D"),
            "smoker": rng.random(n) < 0.3,
        }
    ).astype({"age": "Int64", "smoker": "boolean"})
    gaps = rng.random((n, 6)) < 0.1
    frame.iloc[:, 1:] = frame.iloc[:, 1:].mask(gaps)
    return frame


def make_cells(n=100, genes=20):
    """Counts of cells of two batches."""
    import anndata as ad
    import pandas as pd
    from scipy import sparse

    rng = np.random.default_rng(0)
    means = rng.gamma(1, 2, size=(n, 1)) * rng.gamma(1, 1, size=(1, genes)) + 0.1
    counts = sparse.csr_matrix(rng.poisson(means).astype(np.float32))
    obs = pd.DataFrame({"batch": pd.Categorical(np.where(np.arange(n) % 2, "day2", "day1"))})
    obs.index = [f"cell{i}" for i in range(n)]
    var = pd.DataFrame(index=[f"gene{i}" for i in range(genes)])
    return ad.AnnData(counts, obs=obs, var=var)


def write_all(folder):
    """Write patients.csv, new.csv, patients.parquet and cells.h5ad to a folder."""
    frame = make_patients()
    frame.to_csv(folder / "patients.csv", index=False)
    frame[:20].to_csv(folder / "new.csv", index=False)
    frame.to_parquet(folder / "patients.parquet", index=False)
    make_cells().write_h5ad(folder / "cells.h5ad")
