"""The single-cell benchmark: its sets, measures and page, on generated cells."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from benchmarks import pages, single_cell, table
from benchmarks.single_cell import INTEGRATORS, METHODS, SETS, ours

anndata = pytest.importorskip("anndata")
pytest.importorskip("scanpy")

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

N, P = 180, 40
TYPES, BATCHES = ("B", "NK", "T"), ("a", "b", "c")


def cells(seed=0, n_genes=P):
    """Three types, unequally frequent, in three batches."""
    rng = np.random.default_rng(seed)
    kind = rng.choice(3, size=N, p=(0.5, 0.3, 0.2))
    mean = np.exp(rng.normal(0.0, 1.5, (3, n_genes)))[kind]
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(kind, TYPES),
            "batch": pd.Categorical.from_codes(np.arange(N) % 3, BATCHES),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    adata = anndata.AnnData(sparse.csr_matrix(rng.poisson(mean).astype(np.float32)), obs=obs)
    adata.var_names = [f"gene{j}" for j in range(n_genes)]
    return adata


def test_prepared_keeps_counts_of_variable_genes(monkeypatch):
    monkeypatch.setattr(single_cell, "N_GENES", 25)
    adata = cells()
    before = adata.X.copy()
    kept = single_cell.prepared(adata, "batch")
    assert kept.shape == (N, 25)
    np.testing.assert_array_equal(adata.X.toarray(), before.toarray())
    np.testing.assert_array_equal(kept.X.toarray(), adata[:, kept.var_names].X.toarray())
    # Log-normalised by all genes, not by those that are left.
    totals = np.asarray(before.sum(axis=1))
    expected = np.log1p(1e4 * kept.X.toarray() / totals)
    np.testing.assert_allclose(kept.layers["log"], expected, rtol=1e-5)


def test_each_batch_loses_a_type_of_its_own():
    before = cells()
    adata = single_cell.without_one_type_each(before)
    present = pd.crosstab(adata.obs["batch"], adata.obs["cell_type"]) > 0
    assert (~present).to_numpy().sum() == 3
    assert (present.sum(axis=0) == 2).all()
    assert (present.sum(axis=1) == 2).all()
    by_frequency = before.obs["cell_type"].value_counts().index
    assert list(adata.uns["one_sided"]) == list(by_frequency)
    assert not present.loc["a", by_frequency[0]]


def test_purity_knows_apart_from_mixed():
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y", "z"], 200)
    apart = np.repeat(np.eye(3) * 50.0, 200, axis=0) + rng.normal(size=(600, 3))
    assert single_cell.purity(apart, labels, np.array(["x"])) == 1.0
    mixed = rng.normal(size=(600, 3))
    assert single_cell.purity(mixed, labels, np.array(["x"])) == pytest.approx(1 / 3, abs=0.05)
    half = np.where(labels[:, None] == "z", apart, mixed)  # x and y in one heap
    assert single_cell.purity(half, labels, np.array(["x"])) == pytest.approx(1 / 2, abs=0.05)
    assert single_cell.purity(half, labels, np.array(["z"])) == 1.0


def test_neighbours_are_right_of_types_and_by_chance_of_noise():
    rng = np.random.default_rng(0)
    labels = np.repeat(["x", "y"], 200)
    assert single_cell.neighbour_accuracy((labels == "x")[:, None] * 1.0, labels, 0) == 1.0
    noise = single_cell.neighbour_accuracy(rng.normal(size=(400, 3)), labels, 0)
    assert noise == pytest.approx(0.5, abs=0.1)


def test_projection_leaves_every_batch_out_once():
    adata = single_cell.prepared(cells(), "batch")
    rows = list(single_cell.measure_projection(SETS["pbmc_3tech"], adata, METHODS["PCA"], 0, 1))
    assert [row["batch"] for row in rows] == list(BATCHES)
    assert sum(row["n_cells"] for row in rows) == N
    assert all(row["accuracy"] > 0.9 for row in rows)


def test_harmony_returns_a_code_per_cell_that_knows_its_batch_less():
    pytest.importorskip("harmonypy")
    adata = cells()
    shifted = adata.X.toarray()
    shifted[adata.obs["batch"] == "a", :8] += 20.0
    adata.X = sparse.csr_matrix(shifted)
    adata = single_cell.prepared(adata, "batch")
    batches = adata.obs["batch"].to_numpy(dtype=str)
    codes = [
        METHODS["PCA"](adata, "batch", 0).codes,
        INTEGRATORS["Harmony"](adata, "batch", 0).codes,
    ]
    assert codes[1].shape == (N, single_cell.N_COMPONENTS)
    before, after = (single_cell.neighbour_accuracy(z, batches, 0) for z in codes)
    assert after < before - 0.1


def test_integration_rewards_mixing():
    """scib-metrics itself, where it is installed: mixed batches against separate ones."""
    pytest.importorskip("scib_metrics")
    adata = single_cell.prepared(cells(), "batch")
    rng = np.random.default_rng(0)
    codes = np.eye(3)[adata.obs["cell_type"].cat.codes] * 20.0 + rng.normal(size=(N, 3))
    apart = np.hstack([codes, 100.0 * adata.obs["batch"].cat.codes.to_numpy()[:, None]])
    mixed, separate = (single_cell.measure_integration(adata, z) for z in (codes, apart))
    assert mixed["Batch correction"] > separate["Batch correction"] + 0.3
    assert mixed["Total"] > separate["Total"]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the benchmark on generated files with methods that take no time."""
    cells().write_h5ad(tmp_path / "pbmc_3tech.h5ad")
    cells(1).write_h5ad(tmp_path / "pbmc3k.h5ad")
    totals = {"Total": 0.5, "Bio conservation": 0.6, "Batch correction": 0.4}
    monkeypatch.setattr(single_cell, "measure_integration", lambda adata, codes: totals)
    monkeypatch.setattr(single_cell, "find_spec", lambda name: name != "umap")
    fitted = []

    def counted(name, method):
        def fit(adata, batch_key, seed):
            fitted.append((name, batch_key, adata.n_obs))
            return method(adata, batch_key, seed)

        return fit

    short = {"max_iter": 2}
    methods = {"PCA": METHODS["PCA"], "HEBAE": ours("hebae", **short), "UMAP": METHODS["UMAP"]}
    methods["HEBAE, log values"] = ours("hebae", layer="log", **short)
    # In the place of a peer that is not installed here.
    methods["scVI"] = METHODS["PCA"]
    shares = {name: ours("hebae", batch_share=0.0, **short) for name in list(INTEGRATORS)[:1]}
    for name, of in (("METHODS", methods), ("INTEGRATORS", shares)):
        monkeypatch.setattr(single_cell, name, {k: counted(k, v) for k, v in of.items()})
    monkeypatch.setattr(single_cell, "limit_threads", lambda threads: None)
    monkeypatch.setattr(table, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "RESULTS", tmp_path)

    def start(*arguments):
        fitted.clear()
        folders = ["--data-dir", str(tmp_path), "--output", str(tmp_path)]
        single_cell.main(["--seeds", "0", "--threads", "1", *folders, *arguments])
        return list(fitted), json.loads((tmp_path / "single_cell.json").read_text())["rows"]

    return start


DATA = ("pbmc3k", "pbmc_3tech", "pbmc_3tech, one-sided")


@pytest.mark.slow
def test_run_measures_everything_and_resumes(run, tmp_path, capsys):
    fits, rows = run("--data", *DATA, "paul15")
    printed = capsys.readouterr().out
    assert "UMAP left out: python -m pip install umap-learn" in printed
    assert "left out: no file" in printed
    kinds = pd.DataFrame(rows).groupby(["kind", "data"]).size()
    assert kinds["types", "pbmc3k"] == 4
    assert kinds["types", "pbmc_3tech"] == kinds["types", "pbmc_3tech, one-sided"] == 5
    assert kinds["projection", "pbmc_3tech"] == 4 * len(BATCHES)
    # Only the sets that integrate batches have them in the fit.
    assert all((key is None) == (i < 4) for i, (_, key, _) in enumerate(fits))
    types = {(row["data"], row["method"]): row for row in rows if row["kind"] == "types"}
    assert types["pbmc_3tech", "PCA"]["scib"]["Total"] == 0.5
    assert "scib" not in types["pbmc3k", "PCA"]
    assert 0.0 < types["pbmc_3tech, one-sided", "HEBAE"]["purity"] <= 1.0
    assert types["pbmc3k", "PCA"]["knn_accuracy"] > 0.9
    again, more = run("--data", *DATA, "--resume")
    assert (again, more) == ([], rows)

    table.single_cell()
    page = (tmp_path / "single-cell-results.md").read_text()
    for heading in ("pbmc_3tech: 180 cells, 40 genes", "pbmc_3tech, one-sided: 1"):
        assert f"### {heading}" in page
    assert "### pbmc3k, `cell_type`: 180 cells, 40 genes" in page
    assert "### pbmc_3tech, `a`: 60 cells" in page
    assert "| purity |" in page
    assert "Total: HEBAE 0.500, scVI 0.500. HEBAE takes " in page
