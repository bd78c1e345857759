"""The speed benchmark: its generated rows, its contenders and its ratios."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import gpu, profile, scale, speed, speed_cell, speed_page
from skhebae import HEBAETransformer

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")


def test_generated_rows_are_as_described():
    counts = speed_cell.counts(500)
    assert counts.shape == (500, speed_cell.N_GENES)
    assert counts.nnz == 500 * speed_cell.N_GENES * speed_cell.DENSITY
    assert counts.has_canonical_format
    np.testing.assert_array_equal(counts.data, np.rint(counts.data))
    assert counts.data.min() >= 1.0
    images = speed_cell.images(200)
    assert images.dtype == np.float32
    assert (images.min() >= 0.0) & (images.max() <= 1.0)
    assert np.linalg.matrix_rank(np.log(images / (1.0 - images)), tol=1.0) <= 10


def test_ratios_are_of_medians():
    rates = {"paper: HEBAE": (30.0, 50.0, 40.0), "paper: pythae": (10.0, 20.0, 10.0)}
    rows = [
        {"name": name, "rows_per_second": rate} for name, values in rates.items() for rate in values
    ]
    found = speed.ratios(rows)
    assert found == {"ratio_pythae_paper": "4.00 (2.50 to 4.00)"}


def test_a_run_writes_and_prints_ratios_last(tmp_path, monkeypatch, capsys):
    rates = iter([100.0, 25.0, 80.0, 20.0])

    def measure(name, threads):
        if name == "own":
            return {"name": name, "rows": [{"name": "500 x 20"}, {"name": "transform"}]}
        return {"name": name, "rows_per_second": next(rates), "peak_mib": 1.0}

    monkeypatch.setattr(speed, "measure", measure)
    monkeypatch.setattr(speed, "find_spec", lambda name: name == "scvi")
    only = ["counts: HEBAE", "counts: scVI", "paper: pythae"]
    speed.main(["--output", str(tmp_path), "--only", *only])
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "ratio_scvi_counts: 4.00 (4.00 to 4.00)"
    assert printed[-2].startswith("pythae is not installed")
    rows = json.loads((tmp_path / "speed.json").read_text())["rows"]
    # In turn: A B A B.
    assert [row["name"] for row in rows[:4]] == only[:2] * 2
    assert [row["name"] for row in rows[4:]] == ["500 x 20", "transform"]
    # Ours alone, and the others as they were.
    speed.main(["--output", str(tmp_path), "--own"])
    assert json.loads((tmp_path / "speed.json").read_text())["rows"] == rows


def test_a_contender_runs_in_its_process(monkeypatch):
    row = speed.measure("counts: HEBAE", 1)
    assert row["rows_per_second"] > 100.0
    assert row["peak_mib"] > 100.0
    with pytest.raises(RuntimeError, match="nobody failed"):
        speed.measure("nobody", 1)


def test_page_has_rates_and_ratios(tmp_path, monkeypatch):
    rates = {"counts: HEBAE": (40.0, 60.0), "counts: scVI": (10.0, 10.0)}
    rows = [
        {"name": name, "rows_per_second": rate, "peak_mib": 500.0}
        for name, values in rates.items()
        for rate in values
    ]
    rows += [
        {"name": "500 x 20", "seconds": 0.5, "share_not_training": 0.1},
        {"name": "transform", "rows_per_second": 5e5, "one_row_ms": 0.25},
        {"name": "import", "ms": 33.3},
        {"name": "bounds", "VAE": -300.04, "VAE, float32": -301.0, "pythae": -302.0},
    ]
    (tmp_path / "speed.json").write_text(json.dumps({"environment": {"cores": 2}, "rows": rows}))
    one = {"n_cells": 1000, "file_mb": 3.0, "peak_mib": 500.0, "total_seconds": 2.0}
    scale_rows = [
        {**one, "how": how, "rows_per_second": rate}
        for how, rate in (("backed", 300.0), ("in memory", 400.0), ("zarr", 200.0))
    ]
    document = {"environment": {"cores": 2}, "rows": scale_rows}
    (tmp_path / "scale.json").write_text(json.dumps(document))
    kinds = {"products": 1.0, "other operations": 2.0, "none": 0.5, "step": 3.5}
    rate = {"precision": "bfloat16", "product_gflops": 300.0, "product_gflops_float32": 150.0}
    profile_rows = [{"name": "paper", "arithmetic_ms": 0.9, **rate, **kinds}]
    gpu_rows = [
        {"name": "paper", "how": how, "batch_size": 128, "rows_per_second": of, "gpu": "G1"}
        for how, of in (("graphs", 900.0), ("pythae", 100.0), ("compile", 1200.0))
    ]
    for name, of in (("profile", profile_rows), ("gpu", gpu_rows)):
        document = {"environment": {"cores": 2}, "rows": of}
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    monkeypatch.setattr("benchmarks.pages.RESULTS", tmp_path)
    monkeypatch.setattr(speed_page, "PAGE", tmp_path / "page.md")
    speed_page.main()
    page = (tmp_path / "page.md").read_text()
    assert "| counts | HEBAE | 50 (40 to 60) | 500 |" in page
    assert "| `ratio_scvi_counts` | counts: HEBAE / counts: scVI | 5.00 (4.00 to 6.00) |" in page
    assert "takes 0.50 s, 10% of it not training" in page
    assert "`import skhebae` takes 33 ms beyond" in page
    assert "bound of -300.0 (VAE) and -301.0 (VAE, float32); pythae's has -302.0" in page
    assert "| paper | 3.50 | 0.90 | 1.00 | 2.00 | 0.50 |" in page
    assert "| paper | 128 | graphs | 900 |" in page
    assert "`ratio_pythae_paper_gpu: 9.0 (compiled 12.0)`" in page
    assert "1,000 cells: backed at 75%, zarr at 50% of the speed in memory." in page


def test_generated_files_are_what_anndata_reads(tmp_path, monkeypatch):
    anndata = pytest.importorskip("anndata")
    monkeypatch.setattr(scale, "CHUNK_CELLS", 80)
    scale.generate(tmp_path / "cells.h5ad", 200)
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert adata.shape == (200, scale.N_GENES)
    assert adata.X.nnz == 200 * scale.N_GENES * scale.DENSITY
    assert adata.X.has_canonical_format
    assert adata.X.data.min() >= 1.0
    assert adata.obs_names[199] == "obs199"


def test_all_files_have_the_same_counts(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    monkeypatch.setattr(scale, "CHUNK_CELLS", 80)
    tables = {}
    for how, name in scale.FILES.items():
        scale.generate(tmp_path / name, 200)
        rows = scale.table(tmp_path / name, how)[:]
        tables[how] = np.asarray(rows.toarray() if hasattr(rows, "toarray") else rows)
    assert tables["backed"].mean() == pytest.approx(2.0 * scale.DENSITY, rel=0.01)
    for rows in tables.values():
        np.testing.assert_array_equal(rows, tables["backed"])


def test_scale_goes_on_with_the_ways_that_are_left(tmp_path, monkeypatch):
    pytest.importorskip("zarr")
    asked = []
    row = {"rows_per_second": 1.0, "total_seconds": 1.0, "peak_mib": 1.0}
    monkeypatch.setattr(
        scale, "in_a_process", lambda path, how, threads: (asked.append((path.name, how)), row)[1]
    )
    common = ["--cells", "300", "--output", str(tmp_path), "--resume", "--how"]
    scale.main([*common, "memmap"])
    scale.main([*common, "backed", "memmap", "zarr"])
    assert asked == [("cells.bytes", "memmap"), ("cells.h5ad", "backed"), ("cells.zarr", "zarr")]
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    assert [row["how"] for row in rows] == ["memmap", "backed", "zarr"]
    assert rows[0]["file_mb"] == pytest.approx(300 * scale.N_GENES / 1e6)
    assert rows[2]["file_mb"] > 0.01


def test_scale_measures_every_way(tmp_path):
    pytest.importorskip("anndata")
    common = ["--cells", "300", "--threads", "1", "--output", str(tmp_path)]
    scale.main([*common, "--how", "backed", "in memory", "memmap"])
    rows = json.loads((tmp_path / "scale.json").read_text())["rows"]
    assert [row["how"] for row in rows] == ["backed", "in memory", "memmap"]
    assert all(row["rows_per_second"] > 10.0 for row in rows)
    with pytest.raises(RuntimeError, match="backed failed"):
        scale.in_a_process(tmp_path / "none.h5ad", "backed", 1)


def test_profile_adds_up(tmp_path, monkeypatch):
    monkeypatch.setattr(profile, "product_rate", lambda dtype: 1e11)
    rows = np.random.default_rng(0).normal(size=(400, 30)).astype(np.float32)
    found = profile.profiled(speed_cell.ours(HEBAETransformer, rows))
    assert found["products"] > 0.0
    assert found["optimiser"] > 0.0
    parts = sum(value for kind, value in found.items() if kind != "step")
    assert parts >= found["step"] * 0.999
    assert profile.multiplications("paper") * 2 == gpu.operations_per_row()


def test_gpu_benchmark_says_where_there_is_none(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    gpu.main(["--output", str(tmp_path)])
    assert "no GPU" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
