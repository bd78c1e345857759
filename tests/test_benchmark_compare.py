"""The comparison of reducers: what a cell measures, and what a run survives."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from benchmarks import compare, conformance, processes
from benchmarks.cell import Cell, repeated
from benchmarks.datasets import load, split
from benchmarks.methods import COUNTED, METHODS, missing, version_of
from benchmarks.peers import MOST_STEPS, counts_of, default_or_most_epochs
from benchmarks.reducer import Reducer

WINE = ["--data", "wine", "--dims", "2", "--seeds", "1", "--threads", "1"]


@pytest.fixture(scope="module")
def wine():
    return split(load("wine"), 0)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Results of PCA and HEBAE on wine, each in its own process."""
    path = tmp_path_factory.mktemp("compare") / "compare.json"
    compare.main([*WINE, "--methods", "PCA", "HEBAE", "--no-conformance", "--output", str(path)])
    return path


@pytest.fixture(scope="module")
def cells(output):
    return {row["method"]: row for row in json.loads(output.read_text())["rows"]}


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
def test_every_field_is_measured(cells, method):
    row = cells[method]
    assert row["errors"] == {}
    unmeasured = {key for key in compare.UNMEASURED if row[key] is None}
    assert unmeasured == {"compile_seconds"}
    assert 0 < row["one_row_seconds"] < 0.1
    assert 0 < row["transform_seconds"] < 5
    assert row["transform_rows"] == 10_000
    assert row["held_out_squared_error"] < 0.7 * row["squared_error_of_mean"]
    assert 500 < row["saved_bytes"] < 200_000
    assert 0 <= row["fit_mib"] < row["peak_mib"] < 2000
    assert row["row_independent"] is True
    assert row["deterministic"] is True
    assert row["metrics"]["knn_accuracy"]["valid"] is True
    assert row["metrics"]["knn_accuracy"]["value"] > 0.8
    for measured in [*row["metrics"].values(), *row["samples"].values()]:
        assert set(measured) == {"value", "positive", "negative", "valid"}


def test_memory_is_of_the_method_alone(cells):
    # This process, which started the other, holds torch; PCA's does not import it.
    assert cells["PCA"]["peak_mib"] < cells["HEBAE"]["peak_mib"] - 50
    assert set(cells["HEBAE"]["samples"]) == {"mixture", "gaussian", "prior"}


def test_environment(output):
    environment = json.loads(output.read_text())["environment"]
    assert environment["threads"] == 1
    assert environment["skhebae"] == version_of("HEBAE").split()[1]
    assert {"processor", "scikit-learn", "torch"} <= set(environment)


def test_resume_runs_what_is_not_there(output, tmp_path, monkeypatch):
    path = tmp_path / "compare.json"
    path.write_text(output.read_text())
    run = []

    def pretend(spec, *args):
        run.append((spec["method"], spec["seed"]))
        return {"errors": {}, "error": "fit: pretended"}

    monkeypatch.setattr(processes, "run", pretend)
    how = [*WINE, "--methods", "PCA", "--no-conformance", "--output", str(path), "--resume"]
    compare.main(how)
    assert run == []
    compare.main([*how, "--seeds", "2"])
    assert run == [("PCA", 1)]
    compare.main([*how, "--seeds", "2"])
    assert run == [("PCA", 1)]  # a failure is a result
    compare.main([*how, "--seeds", "2", "--retry"])
    assert run == [("PCA", 1)] * 2
    rows = json.loads(path.read_text())["rows"]
    assert [(row["method"], row["seed"]) for row in rows] == [("PCA", 0), ("HEBAE", 0), ("PCA", 1)]
    assert rows[2]["error"] == "fit: pretended"
    monkeypatch.setattr(compare, "version_of", lambda name: f"{name} 99")
    compare.main(how)
    assert run == [("PCA", 1)] * 2 + [("PCA", 0)]
    assert len(json.loads(path.read_text())["rows"]) == 3  # the newer in the place of the older


def child(tmp_path, code, timeout=30.0, inverse_timeout=30.0):
    """The row that `processes.run` makes of a process that runs `code` in a folder."""
    writes = """
import json, os, sys, time
def write(stage, **row):
    with open("document.partial", "w") as file:
        json.dump({"stage": stage, "row": {"errors": {}, **row}}, file)
    os.replace("document.partial", "document.json")
"""
    script = f"{writes}\nos.chdir({str(tmp_path)!r})\n{code}"
    spec = {"kind": "cell", "threads": 3}
    command = [sys.executable, "-S", "-c", script]
    return processes.run(spec, tmp_path, timeout, inverse_timeout, command)


def test_time_limit_of_a_fit_is_an_error(tmp_path):
    start = time.monotonic()
    row = child(tmp_path, 'write("fit", import_seconds=1.0); time.sleep(60)', timeout=0.5)
    assert time.monotonic() - start < 10
    assert row == {"errors": {}, "import_seconds": 1.0, "error": "fit: no end after 0.5 s"}


def test_time_limit_of_an_inverse_keeps_the_rest(tmp_path):
    code = 'write("inverse", fit_seconds=1.0); time.sleep(60)'
    row = child(tmp_path, code, inverse_timeout=0.3)
    assert row == {"errors": {"inverse": "no end after 0.3 s"}, "fit_seconds": 1.0}


def test_crash_is_an_error_with_its_last_line(tmp_path):
    row = child(tmp_path, 'write("fit"); sys.stderr.write("out of memory\\n\\n"); os._exit(7)')
    assert row["error"] == "fit: ended with code 7: out of memory"
    (tmp_path / "document.json").unlink()
    assert child(tmp_path, "os._exit(7)")["error"] == "start: ended with code 7: no output"


def test_a_program_that_is_ended_ends_its_process(tmp_path):
    alive = tmp_path / "alive"
    child = f"import time; open({str(alive)!r}, 'w').close(); time.sleep(60)"
    code = (
        "from pathlib import Path\n"
        "import sys\n"
        "from benchmarks import processes\n"
        "processes.end_children_too()\n"
        f"command = [sys.executable, '-c', {child!r}]\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "try:\n"
        "    processes.run({'kind': 'cell', 'threads': 1}, folder, 60.0, command=command)\n"
        "finally:\n"
        "    (folder / 'ended').touch()\n"
    )
    environment = processes.variables(1)
    with subprocess.Popen([sys.executable, "-c", code], env=environment) as program:
        end = time.monotonic() + 60
        while not alive.exists() and time.monotonic() < end:
            time.sleep(0.05)
        program.terminate()
        # `run` returns only once its process has.
        assert program.wait(30) == 143
    assert (tmp_path / "ended").exists()


def test_process_has_its_threads_before_imports(tmp_path):
    row = child(tmp_path, "write(None, **os.environ)")
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        assert row[f"{library}_NUM_THREADS"] == "3"
    assert Path(row["PYTHONPATH"].split(os.pathsep)[0]) == Path(compare.__file__).parents[1]
    assert row["CUDA_VISIBLE_DEVICES"] == ""


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
    """The row of a cell measured in this process."""
    for part in ("train", "test"):
        np.save(folder / f"{part}.npy", getattr(wine, part))
    spec = {
        "method": method,
        "n_components": n_components,
        "seed": 0,
        "threads": torch.get_num_threads(),
        "likelihood": "gaussian",
        "rows": str(folder),
        "transform_rows": 100,
    }
    cell = Cell(spec, folder)
    cell.run()
    assert processes.read_document(folder) == {"stage": None, "row": cell.row}
    return cell.row


def test_dependence_on_other_rows_is_reported(wine, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mean", Mean)
    row = measure_here("mean", wine, tmp_path)
    assert row["row_independent"] is False
    assert row["deterministic"] is True
    assert row["row_difference"] > 0.1
    # A stage that fails leaves the others' numbers.
    assert row["errors"] == {"inverse": "ArithmeticError: two lines"}
    assert row["saved_bytes"] > 0
    assert "error" not in row


def test_randomness_is_reported(wine, tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "noisy", Noisy)
    assert measure_here("noisy", wine, tmp_path)["deterministic"] is False


def test_fit_that_fails_ends_the_cell(wine, tmp_path):
    row = measure_here("PCA", wine, tmp_path, n_components=50)
    assert row["error"].startswith("fit: ValueError: n_components=50")
    assert "transform_seconds" not in row


def test_missing_package_is_skipped_with_a_line(tmp_path, monkeypatch, capsys):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pythae" else found(name)
    )
    assert missing("PCA") is None
    output = str(tmp_path / "compare.json")
    compare.main([*WINE, "--methods", "pythae-VAE", "--output", output])
    assert "pythae-VAE skipped: pip install pythae\n" in capsys.readouterr().out
    assert not Path(output).exists()


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_what_they_are(name):
    method = METHODS[name]
    assert missing(name) in (None, f"{name} skipped: pip install {method.package}")
    reducer = method(3, "gaussian", 5)
    assert (reducer.n_components, reducer.likelihood, reducer.seed) == (3, "gaussian", 5)
    assert set(method.latents) <= {"mixture", "gaussian", "prior"}


class ReturnsNothing(BaseEstimator):
    """A transformer whose tags do not say so, and whose fit returns None."""

    def fit(self, X, y=None):
        self.fitted_ = True

    def transform(self, X):
        return np.asarray(X)


def test_conformance_counts(tmp_path):
    reports = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the checks' own data
        good = conformance.count(StandardScaler(), reports.append)
        bad = conformance.count(ReturnsNothing(), reports.append)
    assert good["refused"] is None
    assert good["failed"] == 0
    assert good["failures"] == []
    assert good["passed"] > 30
    assert bad["refused"].startswith("RuntimeError: Estimator ReturnsNothing seems to be a Trans")
    assert "check_estimators_fit_returns_self" in bad["failures"]
    assert len(bad["failures"]) == bad["failed"] > 5
    assert bad["passed"] > 5
    assert len(reports) == sum(
        c[key] for c in (good, bad) for key in ("passed", "failed", "skipped")
    )


def test_conformance_of_what_is_no_estimator(tmp_path, monkeypatch):
    monkeypatch.setitem(METHODS, "mean", Mean)
    conformance.run({"method": "mean", "threads": torch.get_num_threads()}, tmp_path)
    document = processes.read_document(tmp_path)
    assert document["stage"] is None
    assert document["row"]["estimator"] is False
    assert "passed" not in document["row"]


def test_counts_come_back():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.5, 4.0, size=(50, 40))).astype(np.float32)
    counts[:, 0] = 1
    counts[7] = 0
    rows = np.log1p(counts * rng.uniform(3, 60, size=(50, 1))).astype(np.float32)
    np.testing.assert_array_equal(counts_of(rows), counts)


def test_rows_that_were_not_counts_are_refused(digits, wine):
    for rows in (digits[0], wine.train):
        with pytest.raises(ValueError, match="not log-normalised counts"):
            counts_of(rows)


@pytest.mark.parametrize("name", COUNTED)
def test_counts_of_cells(shared_data, name):
    anndata = pytest.importorskip("anndata")
    dataset = load(name, shared_data)
    counts = counts_of(dataset.rows)
    assert counts.min() == 0
    if name == "kang":  # has all of its genes, in their order
        path = shared_data / "kang_ctrl_8donor.h5ad"
        np.testing.assert_array_equal(counts, anndata.read_h5ad(path).X.toarray())


def test_epochs_are_the_default_unless_they_are_too_many():
    assert default_or_most_epochs(100, 1000, 64) == 100
    epochs = default_or_most_epochs(100, 60_000, 64)
    assert 1 < epochs < 100
    assert MOST_STEPS - 938 < 938 * epochs <= MOST_STEPS
    assert default_or_most_epochs(100, 10**9, 64) == 1


def test_repeated_rows_are_near_the_rows_and_all_different(wine):
    many = repeated(wine.test, 1000, 0, jitter=True)
    assert many.dtype == wine.test.dtype
    assert len(np.unique(many, axis=0)) == 1000
    assert wine.test.min() <= many.min()
    assert many.max() <= wine.test.max()
    np.testing.assert_allclose(many[45:90], wine.test, atol=0.02)
    np.testing.assert_array_equal(repeated(wine.test, 90, 0, jitter=False)[45:], wine.test)


def test_quick_leaves_the_committed_results_alone():
    arguments = compare.parse(["--quick"])
    assert arguments.output != compare.parse([]).output
    assert (arguments.data, arguments.dims, arguments.seeds) == (["digits", "wine"], [2], 1)
    assert arguments.conformance is False
    assert compare.parse(["--quick", "--seeds", "2"]).seeds == 2
    full = compare.parse([])
    assert full.conformance
    assert (full.dims, full.seeds, full.threads, full.jobs) == ([2, 10], 3, 2, 1)


@pytest.mark.slow
def test_quick_comparison(tmp_path):
    path = tmp_path / "quick.json"
    command = [sys.executable, "-m", "benchmarks.compare", "--quick", "--output", str(path)]
    subprocess.run(command, check=True, cwd=Path(compare.__file__).parents[1])
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) == 12
    assert [row["method"] for row in rows if "error" in row or row["errors"]] == []
    umap = next(row for row in rows if row["method"] == "UMAP" and row["data"] == "digits")
    assert umap["inverse_rows"] == 20
    assert umap["row_independent"] is False
