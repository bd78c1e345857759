"""The benchmark of several processes: what it measures, and what it computes from that."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import distributed, distributed_page
from benchmarks.distributed import Cell


def test_cells_vary_one_number_at_a_time():
    found = distributed.cells({"n_rows": (5, 10), "n_features": (20, 40)}, Cell(10, 20, 3, 8, 1))
    assert found == [
        *(Cell(5, 20, 3, 8, size) for size in (1, 2)),
        *(Cell(10, 20, 3, 8, size) for size in (1, 2)),
        *(Cell(10, 40, 3, 8, size) for size in (1, 2)),
    ]


def test_counts_are_as_described():
    counts = distributed.counts(50, 100, 0)
    assert counts.shape == (50, 100)
    assert counts.nnz == 50 * 100 / distributed.STRETCH
    assert counts.has_canonical_format
    assert counts.data.min() >= 1.0
    assert (counts != distributed.counts(50, 100, 1)).nnz > 0


def test_one_and_two_processes_are_measured(tmp_path, capsys):
    options = ["--rows", "600", "--features", "60", "--components", "2", "--batch-size", "128"]
    options += ["--rounds", "1", "--base", "600", "60", "2", "128"]
    distributed.main([*options, "--output", str(tmp_path)])
    rows = json.loads((tmp_path / "distributed.json").read_text())["rows"]
    assert [row["n_processes"] for row in rows] == [1, 2]
    assert all(0.0 < row["seconds_a_step"] < 1.0 for row in rows)
    assert rows[0]["gradient_bytes"] == rows[0]["code_bytes"] == 0
    # Encoder 60-128-4 and decoder 2-128-60, with biases and dispersions.
    n_weights = 61 * 128 + 129 * 4 + 3 * 128 + 129 * 60 + 60
    assert rows[1]["gradient_bytes"] == 4 * n_weights
    assert rows[1]["code_bytes"] == 4 * 3 * 128 * 2
    assert "seconds_a_step" in capsys.readouterr().out


def test_a_process_that_fails_is_named():
    with pytest.raises(RuntimeError, match=r"n_components=0.* failed"):
        distributed.measure(Cell(600, 60, 0, 128, 1))


def rows_of(step, around, cells):
    return [
        {**cell._asdict(), "round": i, "seconds_a_step": i * 0.002 + step(cell)}
        | {"seconds_around": around(cell), "gradient_bytes": 2_000_000, "code_bytes": 15_360}
        for i in range(3)
        for cell in cells
    ]


def test_page_computes_from_medians(tmp_path, monkeypatch):
    sweeps = {"n_rows": (12_800, 25_600), "n_features": (1000, 2000), "batch_size": (128, 512)}
    cells = distributed.cells(sweeps, Cell(25_600, 2000, 10, 128, 1))
    # Medians: 10 ms for one process, and 2 more for two.
    rows = rows_of(
        lambda cell: 0.006 + 0.002 * cell.n_processes, lambda cell: 2.0 + 1e-4 * cell.n_rows, cells
    )
    document = {"environment": {"cores": 2}, "rows": rows}
    (tmp_path / "distributed.json").write_text(json.dumps(document))
    monkeypatch.setattr("benchmarks.pages.RESULTS", tmp_path)
    page = tmp_path / "scaling.md"
    page.write_text("before\n<!-- measured -->\nold\n<!-- /measured -->\nafter\n")
    monkeypatch.setattr(distributed_page, "PAGE", page)
    distributed_page.main()
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| 25,600 | 2,000 | 10 | 128 | 10.0 | 12.0 | 1.67 x | 2.00 | 15.4 |" in text
    assert text.count("| 12,800 |") == text.count("| 1,000 |") == 1
    step, epoch, around = distributed_page.hours(distributed_page.medians(rows), 8, 512)
    np.testing.assert_allclose(step, 10.0 + 2.0 * 14 / 8)
    np.testing.assert_allclose(epoch, 1e8 / (8 * 512) * step / 1e3 / 3600)
    np.testing.assert_allclose(around, 1e8 / 8 * 1e-4 / 3600)
    assert f"| 8 | 4,096 | {step:.1f} | {epoch:.2f} |" in text
