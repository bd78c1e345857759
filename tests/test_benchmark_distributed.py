"""The benchmark of several processes: what it measures, and the page of it."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import distributed
from benchmarks import table as page
from benchmarks.distributed import Cell

SMALL = ["--rows", "400", "--features", "40", "--components", "2", "--batch-size", "64"]


def test_cells_vary_one_number_at_a_time():
    found = distributed.cells({"n_rows": (5, 10), "n_features": (20, 40)}, Cell(10, 20, 3, 8))
    assert found == [
        *(Cell(5, 20, 3, 8, size) for size in (1, 2)),
        *(Cell(10, 20, 3, 8, size) for size in (1, 2)),
        *(Cell(10, 40, 3, 8, size) for size in (1, 2)),
    ]


@pytest.mark.slow
def test_one_process_is_measured():
    spec = {"cell": Cell(400, 40, 2, 64), "rank": 0, "threads": torch.get_num_threads()}
    row = distributed.fit(spec, lambda stage, row: None)
    assert row["seconds_a_step"] > 0.0
    assert row["seconds_around"] > 0.0


@pytest.mark.slow
def test_two_processes_are_measured(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distributed, "cells", lambda sweeps, base: [base._replace(n_processes=2)])
    how = [*SMALL, "--rounds", "1", "--base", "400", "40", "2", "64"]
    distributed.main([*how, "--output", str(tmp_path)])
    (row,) = json.loads((tmp_path / "distributed.json").read_text())["rows"]
    assert row["n_processes"] == 2
    assert row["seconds_a_step"] > 0.0
    assert row["seconds_around"] > 0.0
    assert "seconds_a_step" in capsys.readouterr().out


def test_payload_counts_the_weights_and_codes():
    alone = distributed.payload(Cell(600, 60, 2, 128, 1))
    assert alone == {"gradient_bytes": 0, "code_bytes": 0}
    # Encoder 60-128-4 and decoder 2-128-60, with biases and dispersions.
    n_weights = 61 * 128 + 129 * 4 + 3 * 128 + 129 * 60 + 60
    together = distributed.payload(Cell(600, 60, 2, 128, 2))
    assert together == {"gradient_bytes": 4 * n_weights, "code_bytes": 4 * 3 * 128 * 2}


def test_page_has_medians_ordered_by_what_varies():
    sweeps = {"n_rows": (12_800, 25_600), "n_features": (1000, 2000), "batch_size": (128, 512)}
    rows = [
        {**cell._asdict(), "round": i, "seconds_a_step": i * 0.002 + 0.006 + 0.002 * cell[4]}
        | {"gradient_bytes": 2_000_000, "code_bytes": 15_360}
        for i in range(3)
        for cell in distributed.cells(sweeps, Cell(25_600, 2000, 10, 128))
    ]
    lines = page.steps(rows)
    # Medians: 10 ms for one process, and 2 more for two.
    base = ["25,600", "2,000", "10", "128", "10.0", "12.0", "1.67 x", "2.00", "15.4"]
    assert lines[1] == base
    assert [line[:4] for line in lines] == [
        ["12,800", "2,000", "10", "128"],
        ["25,600", "2,000", "10", "128"],
        ["25,600", "1,000", "10", "128"],
        ["25,600", "2,000", "10", "512"],
    ]


def test_a_group_fails_with_the_first_error(monkeypatch):
    rows = [{"seconds_a_step": 1.0}, {"error": "start: ended with code 1: no rows"}]
    monkeypatch.setattr(distributed, "run", lambda *args, **how: rows)
    with pytest.raises(RuntimeError, match="no rows"):
        distributed.measure(Cell(600, 60, 2, 128, 2))
