"""The benchmark of lost bounds: encoders of several depths, and verdicts by rule."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import gap
from benchmarks.datasets import Table


def test_encoders_differ_in_depth_only():
    for n_layers in gap.LAYERS:
        network = gap.deep_encoder(n_layers)((6,), 10)
        assert sum(isinstance(layer, nn.Linear) for layer in network) == n_layers + 1
        assert network(torch.zeros(3, 6)).shape == (3, 10)


def made_up(data, method, n_layers, seed, **more):
    row = {"data": data, "method": method, "n_layers": n_layers, "seed": seed}
    values = {"log_likelihood": 50.0, "gaussian": 0.1, "family": 0.4, "amortisation": 2.0}
    values |= {"independence": 0.4, "off_diagonal": 0.5, "turned_off_diagonal": 0.3}
    row |= {f"{kind}_{name}": value for kind in gap.KINDS for name, value in values.items()}
    return row | more


def all_rows(full=None, deepest=None):
    cells = [(m, n) for m in gap.METHODS for n in (gap.LAYERS if m in gap.DEEPENED else (1,))]
    changed = {(gap.FULL, 1): full or {}, (gap.INDEPENDENT, 3): deepest or {}}
    return [
        made_up(data, *cell, seed, **changed.get(cell, {}))
        for data in gap.DATA
        for cell in cells
        for seed in (0, 1, 2)
    ]


def verdicts(rows):
    return [line[-1] for line in gap.claims(rows)]


def test_verdicts_follow_from_the_rules():
    full = {"train_turned_off_diagonal": 0.5, "train_log_likelihood": 50.5}
    assert verdicts(all_rows(full)) == ["holds"] * 4
    # Nothing is pulled, and depth helps.
    assert verdicts(all_rows({}, {"train_independence": 0.3}))[1:] == ["does not"] * 3
    # On one set only, and for some models only.
    rows = all_rows(full)
    rows[0]["train_off_diagonal"] = 0.1
    for row in rows:
        if row["data"] == "digits" and row["n_layers"] == 3:
            row["train_independence"] = 0.3
        if row["data"] == "digits" and row["method"] == gap.FULL:
            row |= {"train_turned_off_diagonal": 0.3, "train_log_likelihood": 49.0 + row["seed"]}
    assert verdicts(rows) == ["partly"] * 4


def test_summary_shows_means_over_seeds():
    text = "\n".join(gap.summary(all_rows()))
    assert "| digits | VAE | 3 | 50.00 | 0.100 | 0.400 | 2.00 | 0.400 | 0.500 | 0.300 |" in text
    assert "| held-out rows | method | layers |" in text
    assert "+0.00 ± 0.00" in text


@pytest.mark.slow
def test_a_row_has_the_parts_of_its_model(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    X = np.tanh(rng.normal(size=(160, 2)) @ rng.normal(size=(2, 6))) + 0.1 * rng.normal(
        size=(160, 6)
    )
    data = Table(X[:120].astype(np.float32), X[120:].astype(np.float32), None, None, name="digits")
    monkeypatch.setattr(gap, "DATA", {"digits": 2})
    monkeypatch.setattr(gap, "ROWS", 30)
    monkeypatch.setattr(gap, "KINDS", {"train": slice(0, 30), "test": slice(30, None)})
    with gap.unwarned():
        row = gap.measure(data, {"method": "VAE", "n_layers": 2, "seed": 0}, lambda: 0.0)
    for kind in ("train", "test"):
        parts = sum(row[f"{kind}_{part}"] for part in gap.PARTS)
        assert row[f"{kind}_total"] == pytest.approx(parts)
    assert row["train_family"] == row["train_independence"] > 0.0
    json.dumps(row)
