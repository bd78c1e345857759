"""Ours against PCA, and seconds until a quality: rows, summaries, pages."""

from __future__ import annotations

import json
from functools import partial
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.neighbors import KNeighborsClassifier

from benchmarks import datasets, metrics, pages, tables, time_to_quality, work
from benchmarks.datasets import load, split

QUICK = '{"max_iter": 3}'


@pytest.fixture
def folder(tmp_path):
    """A data folder with one table, whose columns have very different scales."""
    (tmp_path / "tables").mkdir()
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(120, 2)) @ rng.normal(size=(2, 9)) * 10.0 ** np.arange(-4, 5)
    path = tmp_path / "tables" / "bupa.npz"
    np.savez(path, X=rows.astype(np.float32), y=np.repeat(["a", "b"], 60), names=np.arange(9))
    return tmp_path


def test_tables_are_standardised_by_the_training_rows(folder, capsys):
    table = split(load("bupa", folder), 0, 50)
    assert (table.train.shape, table.test.shape) == ((50, 9), (30, 9))
    np.testing.assert_allclose(table.train.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(table.train.std(axis=0), 1.0, atol=1e-5)
    assert abs(table.test.mean()) > 1e-3
    assert load("wdbc", folder) is None
    assert "wdbc skipped: no file" in capsys.readouterr().out


def test_all_sets_are_there_and_the_slowest_is_last():
    assert len(tables.DATA) == len(set(tables.DATA)) == 22
    assert set(tables.DATA) <= set(datasets.NAMES)
    assert tables.DATA[-1] == "fashion-mnist"
    given = {("bupa", 6): 2, ("segment", 16): 5, ("wdbc", 30): 10, ("bupa", 4): 2, ("wine", 13): 10}
    assert {key: tables.dimensions(*key) for key in given} == given


def test_a_row_has_ours_and_pca_of_the_same_split(tmp_path, capsys):
    how = ["--data", "wine", "--seeds", "1", "--threads", "1", "--output", str(tmp_path)]
    tables.main([*how, "--params", QUICK])
    (row,) = json.loads((tmp_path / "tables.json").read_text())["rows"]
    wine = split(load("wine"), 1)
    pca = PCA(10, random_state=1).fit(wine.train)
    codes = [pca.transform(rows) for rows in (wine.train, wine.test)]
    error = np.square(pca.inverse_transform(codes[1]) - wine.test).mean()
    assert row["pca_error"] == pytest.approx(error, rel=1e-5)
    assert row["error_ratio"] == pytest.approx(row["error"] / error, rel=1e-5)
    knn = KNeighborsClassifier(5).fit(codes[0], wine.y_train).score(codes[1], wine.y_test)
    assert row["pca_knn_accuracy"] == pytest.approx(knn)
    white = [part / np.sqrt(pca.explained_variance_) for part in codes]
    knn = KNeighborsClassifier(5).fit(white[0], wine.y_train).score(white[1], wine.y_test)
    assert row["pca_knn_accuracy_whitened"] == pytest.approx(knn)
    measured = metrics.embedding_metrics(
        codes[0], wine.y_train, wine.test, codes[1], wine.y_test, 5, 1
    )
    for key in ("trustworthiness", "distance_correlation"):  # as `compare` has them
        assert row[f"pca_{key}"] == pytest.approx(measured[key].value)
    assert (row["d"], row["n_train"], row["params"]) == (10, 133, {"max_iter": 3})
    assert row["fit_seconds"] > row["pca_fit_seconds"] > 0.0
    assert "| wine | 10 |" in capsys.readouterr().out


def test_resume_measures_what_is_not_there(folder, tmp_path, monkeypatch):
    asked = []

    def measure(data, method, seed, params, now):
        asked.append((data.name, method, seed, params))
        return made_up(data.name, seed=seed, method=method)

    monkeypatch.setattr(tables, "measure", measure)
    how = ["--data", "wine", "bupa", "--data-dir", str(folder), "--output", str(tmp_path)]
    how += ["--threads", "1"]
    tables.main([*how, "--seeds", "0"])
    tables.main([*how, "--seeds", "0", "1", "--resume"])
    assert [(name, seed) for name, _, seed, _ in asked] == [
        ("bupa", 0),
        ("wine", 0),
        ("bupa", 1),
        ("wine", 1),
    ]
    tables.main([*how, "--seeds", "0", "--resume", "--method", "VAE", "--params", QUICK])
    assert asked[4:] == [(name, "VAE", 0, {"max_iter": 3}) for name in ("bupa", "wine")]
    rows = json.loads((tmp_path / "tables.json").read_text())["rows"]
    assert len(rows) == 6


def made_up(data, ratio=0.5, behind=0.0, seed=0, method="HEBAE"):
    row = {"data": data, "seed": seed, "method": method, "d": 2, "error_ratio": ratio}
    row |= {"fit_seconds": 2.0} | {f"pca_{key}": 0.75 for key in tables.SCORES.values()}
    return row | dict.fromkeys(tables.SCORES.values(), 0.75 - behind)


def test_summary_says_whether_targets_hold():
    rows = [made_up("a", 0.25), made_up("a", 0.75, seed=1), made_up("b", 1.0, behind=0.0625)]
    lines = tables.summary([*rows, made_up("b", 9.0, method="VAE")])
    assert "| a | 2 | 0.500 | +0.000 | +0.000 | +0.000 |" in lines
    assert "| b | 2 | 1.000 | -0.062 | -0.062 | -0.062 |" in lines
    assert "| largest error ratio | 1.02 | 1.000 (b) | yes |" in lines
    assert "| geometric mean of error ratios | 0.7 | 0.707 | no |" in lines
    assert "| data sets above 1.02 | 0 | 0 of 2 (0%) | yes |" in lines
    assert "| mean gain of k-NN | -0.005 | -0.0312 | no |" in lines


def test_pages_say_how_to_make_what_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "RESULTS", tmp_path)
    line = "Not measured yet: `python -m benchmarks time-to-quality`."
    assert pages.section("time-to-quality", time_to_quality.summary) == [line]
    document = {"environment": {"cores": 2}, "rows": [made_up("a"), made_up("a", seed=1)]}
    (tmp_path / "tables.json").write_text(json.dumps(document))
    made = "Run `python -m benchmarks tables` to repeat this. Measured with cores 2, seeds 0, 1."
    assert pages.section("tables", tables.summary)[-1] == made


def test_shorter_fits_are_shares_of_the_automatic_one(folder, tmp_path, monkeypatch, capsys):
    trained = []

    def ours(name, rows, **params):
        def fit(epochs):
            trained.append((epochs, params["batch_size"], len(rows)))
            return SimpleNamespace(
                n_iter_=11 if epochs == "auto" else epochs,
                transform=lambda rows: rows,
                inverse_transform=lambda codes: codes + 0.5,
            )

        return fit

    monkeypatch.setattr(work, "ours", ours)
    monkeypatch.setattr(time_to_quality, "LEVELS", {"bupa": (0.3, 0.2)})
    given = [
        "--threads",
        "1",
        "--rows",
        "40",
        "--methods",
        "HEBAE",
        "PCA",
        "--batch-sizes",
        "16",
        "64",
    ]
    where = ["--data", "bupa", "--data-dir", str(folder), "--output", str(tmp_path)]
    monkeypatch.setattr(time_to_quality, "clock", lambda threads: partial(next, count()))
    time_to_quality.main([*where, *given])
    rows = json.loads((tmp_path / "time_to_quality.json").read_text())["rows"]
    epochs = [1, "auto", 6, 3, 2]
    assert trained == [(n, size, 40) for size in (16, 64) for n in epochs]
    assert [row["epochs"] for row in rows[:4]] == [11, 6, 3, 2]
    assert [row["method"] for row in rows] == ["HEBAE"] * 8 + ["PCA"]
    assert {row["quality"] for row in rows[:8]} == {0.25}
    printed = capsys.readouterr().out
    assert "| bupa | 40 | HEBAE, 64 | 0.3 | 1 | 0.2 | - | 0.25 | 1 |" in printed
    assert rows[8]["quality"] < 1e-6  # PCA of a table of rank two


def test_peers_train_on_so_many_rows(monkeypatch):
    trained = []
    monkeypatch.setattr(time_to_quality, "fit_of", lambda *how: trained.append)
    monkeypatch.setattr(time_to_quality, "quality", lambda model, data: 1.0)
    data = SimpleNamespace(train=np.zeros((60_000, 1)))
    rows = list(time_to_quality.measure("pythae", data, {}, partial(next, count())))
    assert trained == [1, 1, 4, 14]
    assert [row["epochs"] for row in rows] == [1, 4, 14]


def test_counts_are_judged_by_their_likelihood():
    rows = np.ones((5, 3), dtype=np.float32)
    labels = np.zeros(5)
    cells = datasets.Table(rows, rows, labels, labels, 5, "negative_binomial", name="pbmc_3tech")
    model = SimpleNamespace(log_likelihood=lambda rows, n_draws: np.array([-1.0, -3.0]))
    assert time_to_quality.quality(model, cells) == -2.0
    assert "PCA" not in time_to_quality.methods(cells)
    fits = [
        {"data": "pbmc_3tech", "n_train": 5, "method": "HEBAE", "seconds": s, "quality": q}
        for s, q in ((4.0, -610.0), (2.0, -616.0), (1.0, -700.0))
    ]
    how = {"batch_size": None, "learning_rate": None}
    line = time_to_quality.summary([{**row, **how} for row in fits])[-1]
    assert line == "| pbmc_3tech | 5 | HEBAE | -618.5 | 2 | -614.5 | 4 | -610 | 4 |"
