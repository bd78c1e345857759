"""The comparison of reducers: what a cell measures, and what a run survives."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from benchmarks import cell, compare, compare_page, runner
from benchmarks.datasets import load, split
from benchmarks.reducers import METHODS, Reducer, missing, version_of

WINE = ["--data", "wine", "--dims", "2", "--seeds", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def wine():
    return split(load("wine"), 0)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Results of PCA and HEBAE on wine, each in its own process."""
    folder = tmp_path_factory.mktemp("compare")
    how = ["--methods", "PCA", "HEBAE", "--transform-rows", "100", "--output", str(folder)]
    compare.main([*WINE, *how])
    return folder / "compare.json"


@pytest.fixture(scope="module")
def cells(output):
    return {row["method"]: row for row in json.loads(output.read_text())["rows"]}


@pytest.mark.slow
def test_cell_of_pca(cells, wine):
    row = cells["PCA"]
    pca = PCA(2, random_state=0).fit(wine.train)
    codes = pca.transform(wine.test)
    error = np.square(pca.inverse_transform(codes) - wine.test).mean()
    assert row["held_out_squared_error"] == pytest.approx(error, rel=1e-4)
    baseline = np.square(wine.test - wine.train.mean(axis=0)).mean()
    assert row["squared_error_of_mean"] == pytest.approx(baseline, rel=1e-4)
    assert list(row["samples"]) == ["gaussian"]
    assert (row["n_train"], row["n_test"], row["n_features"]) == (133, 45, 13)
    assert row["version"] == version_of("PCA")
    assert row["settings"] == {}


@pytest.mark.parametrize("method", ["PCA", "HEBAE"])
def test_every_number_is_measured(cells, method):
    row = cells[method]
    assert row["errors"] == {}
    assert min(row["one_row_seconds"], row["transform_seconds"], row["fit_seconds"]) > 0
    assert row["transform_rows"] == 100
    assert row["held_out_squared_error"] < 0.7 * row["squared_error_of_mean"]
    assert 500 < row["saved_bytes"] < 200_000
    assert 0 <= row["fit_mib"] < row["peak_mib"]
    assert row["row_independent"] is row["deterministic"] is True
    assert row["metrics"]["knn_accuracy"]["valid"] is True
    assert row["metrics"]["knn_accuracy"]["value"] > 0.8
    for measured in [*row["metrics"].values(), *row["samples"].values()]:
        assert set(measured) == {"value", "positive", "negative", "valid"}


def test_memory_is_that_of_the_method(cells):
    # This process, which started the other, holds torch; PCA's does not import it.
    assert cells["PCA"]["peak_mib"] < cells["HEBAE"]["peak_mib"] - 50
    assert list(cells["HEBAE"]["samples"]) == ["mixture", "gaussian", "prior"]


def test_environment_names_the_packages(output):
    environment = json.loads(output.read_text())["environment"]
    assert environment["threads"] == 1
    assert environment["skhebae"] == version_of("HEBAE").split()[1]
    assert {"processor", "scikit-learn", "torch"} <= set(environment)


def test_resume_runs_what_is_not_there(output, tmp_path, monkeypatch):
    path = tmp_path / "compare.json"
    path.write_text(output.read_text())
    run = []

    def pretend(function, specs, *args, **kwargs):
        run.append((specs[0]["method"], specs[0]["seed"]))
        return [{"error": "fit: pretended"}]

    monkeypatch.setattr(runner, "run", pretend)
    how = [*WINE, "--methods", "PCA", "--output", str(tmp_path), "--resume"]
    compare.main(how)
    assert run == []
    compare.main([*how, "--seeds", "2"])
    assert run == [("PCA", 1)]
    compare.main([*how, "--seeds", "2"])
    assert run == [("PCA", 1)]  # a failure is a result
    rows = json.loads(path.read_text())["rows"]
    assert [(row["method"], row["seed"]) for row in rows] == [("PCA", 0), ("HEBAE", 0), ("PCA", 1)]
    assert rows[2]["error"] == "fit: pretended"
    monkeypatch.setattr(compare, "version_of", lambda name: f"{name} 99")
    compare.main(how)
    assert run == [("PCA", 1), ("PCA", 0)]
    assert len(json.loads(path.read_text())["rows"]) == 3  # the newer in the place of the older


def test_rows_of_methods_without_code_stay(tmp_path, monkeypatch):
    rows = [{"kind": "cell", "method": name, "data": "wine"} for name in ("PCA", "scVI")]
    path = tmp_path / "compare.json"
    path.write_text(json.dumps({"environment": {}, "rows": rows}))
    monkeypatch.setattr(runner, "run", lambda *args, **how: [{"error": "fit: pretended"}])
    compare.main([*WINE, "--methods", "PCA", "--output", str(tmp_path)])
    kept = json.loads(path.read_text())["rows"]
    assert [(row["method"], "error" in row) for row in kept] == [("scVI", False), ("PCA", True)]


class Mean(Reducer):
    """Codes are the first features, less their mean among the rows of a call."""

    module = "numpy"
    package = "numpy"

    def fit(self, rows):
        self.model = None

    def transform(self, rows):
        return rows[:, : self.n_components] - rows[:, : self.n_components].mean(axis=0)

    def inverse_transform(self, codes):
        raise ArithmeticError("two\nlines")


class Noisy(Mean):
    """Codes that differ from call to call."""

    def __init__(self, *args):
        super().__init__(*args)
        self.rng = np.random.default_rng(0)

    def transform(self, rows):
        return rows[:, : self.n_components] + self.rng.normal(size=(len(rows), self.n_components))


def measure_here(method, wine, folder, n_components=2):
    """The row of a cell measured in this process, and the stages that it reported."""
    for part in ("train", "test"):
        np.save(folder / f"{part}.npy", getattr(wine, part))
    spec = {"method": method, "n_components": n_components, "seed": 0, "transform_rows": 10}
    spec |= {"threads": torch.get_num_threads(), "likelihood": "gaussian"}
    spec |= {"rows": str(folder), "folder": str(folder)}
    stages = []
    return cell.measure(spec, lambda stage, row: stages.append(stage)), stages


def test_dependence_on_other_rows_is_reported(wine, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mean", Mean)
    row, stages = measure_here("mean", wine, tmp_path)
    assert row["row_independent"] is False
    assert row["deterministic"] is True
    assert row["row_difference"] > 0.1
    # A stage that fails leaves the others' numbers.
    assert row["errors"] == {"inverse": "ArithmeticError: two lines"}
    assert row["saved_bytes"] > 0
    assert stages == ["load", "warm_up", "fit", "codes", *cell.OPTIONAL]


def test_randomness_is_reported(wine, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "noisy", Noisy)
    assert measure_here("noisy", wine, tmp_path)[0]["deterministic"] is False


def test_a_fit_that_fails_ends_the_cell(wine, tmp_path):
    with pytest.raises(ValueError, match="n_components=50"):
        measure_here("PCA", wine, tmp_path, n_components=50)


def test_a_missing_package_is_skipped_with_a_line(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "umap" else found(name)
    )
    assert missing("PCA") is None
    compare.main([*WINE, "--methods", "UMAP", "--output", str(tmp_path)])
    assert "UMAP skipped: pip install umap-learn\n" in capsys.readouterr().out
    assert not list(Path(tmp_path).iterdir())


def test_repeated_rows_are_near_the_rows_and_all_different(wine):
    many = cell.repeated(wine.test, 1000, 0)
    assert many.dtype == wine.test.dtype
    assert len(np.unique(many, axis=0)) == 1000
    assert wine.test.min() <= many.min()
    assert many.max() <= wine.test.max()
    np.testing.assert_allclose(many[45:90], wine.test, atol=0.02)


def made_up(method, data="wine", seed=0, **numbers):
    measured = {"value": 0.8, "valid": True}
    metrics = dict.fromkeys(("knn_accuracy", "trustworthiness", "distance_correlation"), measured)
    metrics["nmi"] = measured | {"valid": False}
    row = {"kind": "cell", "method": method, "data": data, "seed": seed, "n_components": 10}
    row |= {"n_train": 100, "n_test": 30, "n_features": 13, "n_neighbors": 5}
    row |= {"held_out_squared_error": 1.0, "squared_error_of_mean": 4.0, "row_independent": True}
    row |= {"fit_seconds": 2.0, "transform_seconds": 0.5, "one_row_seconds": 1e-3}
    return row | {"saved_bytes": 2000, "metrics": metrics, "samples": {}} | numbers


def test_page_shows_means_bests_and_failures():
    rows = [made_up("HEBAE", fit_seconds=1.0), made_up("HEBAE", seed=1), made_up("PCA")]
    rows.append(made_up("PCA", seed=1, error="fit: too long"))
    rows.append(made_up("PCA", "digits", n_train=1000))
    (_, _, first, second, *_, note) = compare_page.summary(rows)
    assert first == "| HEBAE | 0.250 | 0.800 | 0.800 | 0.800 | - | 1.5 | 0.5 | 1 | 2 | yes | yes |"
    assert second.startswith("| PCA | 0.250 |")
    assert "means over the held-out rows of wine. Seconds and file size are for wine." in note
    lines = compare_page.tables(rows)
    assert "| HEBAE | 2 | **0.250** |" in next(line for line in lines if "HEBAE" in line)
    assert "NMI" not in lines[5]
    assert lines[-1] == "| wine | PCA | 10 | fit: too long | 1 |"
