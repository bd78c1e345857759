"""The speed benchmarks: generated rows, contenders, ratios and pages."""

from __future__ import annotations

import json
from importlib.util import find_spec
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import gpu, pages, profile, runner, scale, speed, table, work

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

WRITES_IN_PARTS = pytest.mark.skipif(
    find_spec("anndata.io") is None, reason="anndata writes parts of files since 0.11"
)


def nothing(stage, row):
    """Report to nobody."""


def test_generated_rows_are_as_described():
    counts = work.counts(500)
    assert counts.shape == (500, work.N_GENES)
    assert counts.nnz == 500 * work.N_GENES / work.STRETCH
    assert counts.has_canonical_format
    np.testing.assert_array_equal(counts.data, np.rint(counts.data))
    assert counts.data.min() >= 1.0
    assert (counts != work.counts(500, seed=1)).nnz > 0
    assert work.counts(5, 40).shape == (5, 40)
    images = work.images(200)
    assert images.dtype == np.float32
    assert (images.min() >= 0.0) & (images.max() <= 1.0)
    assert np.linalg.matrix_rank(np.log(images / (1.0 - images)), tol=1.0) <= 10
    totals = np.expm1(work.log_values(50).toarray().astype(np.float64)).sum(axis=1)
    np.testing.assert_allclose(totals, 1e4, rtol=1e-4)


def test_ratios_are_of_medians():
    rates = {"paper: HEBAE": (30.0, 50.0, 40.0), "paper: pythae": (10.0, 20.0, 10.0)}
    rows = [
        {"name": name, "rows_per_second": rate} for name, values in rates.items() for rate in values
    ]
    assert speed.ratios(rows) == {"ratio_pythae_paper": "4.00 (2.50 to 4.00)"}


def test_rates_are_of_the_difference_of_two_fits(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(speed.time, "perf_counter", lambda: now[0])

    def fit(epochs):
        now[0] += 7.0 + 2.0 * epochs

    assert speed.rate(fit, 100, (1, 5)) == 50.0


def test_a_run_measures_in_turn_and_prints_ratios_last(tmp_path, monkeypatch, capsys):
    rates = iter([100.0, 25.0, 80.0, 20.0])

    def measure(name, threads, n_rows):
        return {"rows_per_second": next(rates), "peak_mib": 1.0}

    monkeypatch.setattr(speed, "measure", measure)
    monkeypatch.setattr(speed, "find_spec", lambda name: name == "scvi")
    only = ["counts: HEBAE", "counts: scVI", "paper: pythae"]
    speed.main(["--output", str(tmp_path), "--only", *only])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "ratio_scvi_counts: 4.00 (4.00 to 4.00)"
    assert printed[-2].startswith("pythae is not installed")
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert [row["name"] for row in rows] == only[:2] * 2  # A B A B


@pytest.mark.slow
def test_a_contender_is_measured(monkeypatch):
    monkeypatch.setattr(speed, "CELL_EPOCHS", (1, 3))
    monkeypatch.setattr(speed, "limit_threads", lambda threads: None)
    row = speed.train({"name": "counts: HEBAE", "n_rows": 256, "threads": 1}, nothing)
    assert np.isfinite(row["rows_per_second"])
    assert row["peak_mib"] > 100.0


def test_multiplications_are_those_of_the_layers():
    sizes = [(784, 784), (784, 800), (800, 20), (10, 800), (800, 800), (800, 784)]
    products = [a * b for a, b in sizes]
    assert work.multiplications("paper") == 3 * sum(products) - 784 * 784
    assert work.multiplications("counts") == 3 * (2 * 2000 * 128 + 128 * 30) - 2000 * 128


def test_pages_have_rates_and_ratios(tmp_path, monkeypatch):
    rates = {"counts: HEBAE": (40.0, 60.0), "counts: scVI": (10.0, 10.0)}
    kinds = {"products": 1.0, "other operations": 2.0, "none": 0.5, "step": 3.5}
    rate = {"precision": "bfloat16", "product_gflops": 300.0, "product_gflops_float32": 150.0}
    one = {"n_cells": 1000, "file_mb": 3.0, "peak_mib": 500.0, "total_seconds": 2.0}
    documents = {
        "speed": [
            {"name": name, "rows_per_second": value, "peak_mib": 500.0}
            for name, of in rates.items()
            for value in of
        ],
        "profile": [{"name": "paper", "arithmetic_ms": 0.9, **rate, **kinds}],
        "gpu": [
            {"name": "paper", "how": how, "batch_size": 128, "rows_per_second": of, "gpu": "G1"}
            for how, of in (("graphs", 900.0), ("pythae", 100.0), ("compile", 1200.0))
        ],
        "scale": [
            {**one, "how": how, "rows_per_second": of}
            for how, of in (("backed", 300.0), ("in memory", 400.0))
        ],
    }
    for name, rows in documents.items():
        document = {"environment": {"cores": 2}, "rows": rows}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    parts = {name: "\n".join(pages.section(name, getattr(table, name))) for name in documents}
    assert "| counts | HEBAE | 50 (40 to 60) | 500 |" in parts["speed"]
    ratio = "| `ratio_scvi_counts` | counts: HEBAE / counts: scVI | 5.00 (4.00 to 6.00) |"
    assert ratio in parts["speed"]
    assert "| paper | 3.50 | 0.90 | 1.00 | 2.00 | 0.50 |" in parts["profile"]
    assert "| bfloat16 | 300 |" in parts["profile"]
    assert "| paper | 128 | graphs | 900 |" in parts["gpu"]
    assert "`ratio_pythae_paper_gpu: 9.0 (compiled 12.0)`" in parts["gpu"]
    assert "| 1,000 | 3 | backed | 300 | 75% | 500 | 2 |" in parts["scale"]
    assert all("cores 2" in part for part in parts.values())


@WRITES_IN_PARTS
def test_generated_files_are_what_anndata_reads(tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    monkeypatch.setattr(scale, "CHUNK_CELLS", 80)
    scale.generate(tmp_path / "cells.h5ad", 200)
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert adata.shape == (200, work.N_GENES)
    assert adata.X.nnz == 200 * work.N_GENES / work.STRETCH
    assert adata.X.has_canonical_format
    assert adata.obs_names[199] == "obs199"
    np.testing.assert_array_equal(adata.X[80:160].toarray(), work.counts(80, seed=1).toarray())


@pytest.mark.slow
@WRITES_IN_PARTS
def test_scale_measures_what_is_not_there(tmp_path, monkeypatch):
    pytest.importorskip("anndata")
    asked = []

    def here(function, specs, folder, *, threads):
        asked.append(specs[0]["how"])
        return [scale.fit(specs[0], nothing)]

    monkeypatch.setattr(scale, "run", here)
    monkeypatch.setattr(scale, "limit_threads", lambda threads: None)
    how = ["--cells", "200", "--threads", "1", "--output", str(tmp_path)]
    scale.main(how)
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    assert [row["how"] for row in rows] == asked == ["backed", "in memory"]
    assert all(row["rows_per_second"] > 0.0 for row in rows)
    assert rows[0]["file_mb"] > 0.01
    scale.main([*how, "--resume"])
    assert asked == ["backed", "in memory"]


@pytest.mark.slow
def test_kinds_of_operations_are_found_in_a_fit():
    rows = np.random.default_rng(0).normal(size=(256, 30)).astype(np.float32)
    found = profile.by_kind(work.ours("HEBAE", rows), 1)
    assert set(found) == {*profile.KINDS, profile.OTHER}
    assert min(found["products"], found["optimiser"], found[profile.OTHER]) > 0.0


def test_a_profile_is_of_a_step_and_adds_up(monkeypatch):
    # 3 ms before and after training, and 2 ms of products per epoch of 4 steps.
    monkeypatch.setattr(profile, "by_kind", lambda fit, n: {"products": 3.0 + 2.0 * n})
    fitted = SimpleNamespace(history_={"seconds": [9.0, 0.006, 0.004, 0.005]})
    found = profile.profiled(lambda epochs: fitted, 4)
    assert found == pytest.approx({"products": 0.5, "none": 0.5, "step": 1.0})


def test_the_encoder_of_step_by_step_is_not_torchs():
    net = gpu.step_by_step((784,), 20)
    assert not type(net).__module__.startswith(("torch", "skhebae"))
    assert sum(p.numel() for p in net.parameters()) == 785 * 784 + 785 * 800 + 801 * 20


def test_gpu_benchmark_says_where_there_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpu.main(["--output", str(tmp_path)])
    assert "no GPU" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_memory_is_that_of_this_process():
    assert 50.0 < runner.memory_mib("VmRSS") <= runner.memory_mib()
