"""The benchmark of strange rows: its tasks, its measures and its verdicts."""

from __future__ import annotations

import time

import numpy as np
import pytest

from benchmarks import novelty
from benchmarks.novelty import OURS, PEER, SCORES, Task, claims, left_out, outliers, targets


def row(kind, method, auroc, **more):
    return {"kind": kind, "data": "made", "novel": "n", "seed": 0, "method": method} | {
        "auroc": auroc,
        "ap": auroc,
        **more,
    }


@pytest.fixture
def folder(tmp_path):
    """An outlier set of 80 rows near a plane and 10 rows off it."""
    rng = np.random.RandomState(0)
    rows = rng.standard_normal((90, 2)) @ rng.standard_normal((2, 5))
    rows[80:] += 3.0 * rng.standard_normal((10, 5))
    (tmp_path / "outliers").mkdir()
    np.savez(tmp_path / "outliers" / "1_plane.npz", X=rows, y=np.arange(90) >= 80)
    return tmp_path


def test_half_of_the_inliers_train_and_all_others_are_scored(folder):
    assert novelty.outlier_sets(folder) == ["1_plane"]
    ((novel, task),) = outliers(folder, "1_plane", seed=0)
    assert novel == "outliers"
    assert task.train.shape == (40, 5)
    assert task.test.shape == (50, 5)
    assert task.is_novel.sum() == 10
    np.testing.assert_allclose(task.train.mean(axis=0), 0.0, atol=1e-12)
    np.testing.assert_allclose(task.train.std(axis=0), 1.0)
    # Another seed trains on other rows.
    ((_, other),) = outliers(folder, "1_plane", seed=1)
    assert not np.array_equal(task.train, other.train)


def test_each_kind_is_novel_once_and_never_in_the_fit():
    labels = np.repeat(["a", "b", "c"], 20)
    rows = np.arange(60.0)[:, None]
    seen = {}
    for kind, task in left_out(rows, labels, "gaussian", seed=0, most=60):
        assert not (labels[task.train[:, 0].astype(int)] == kind).any()
        np.testing.assert_array_equal(labels[task.test[:, 0].astype(int)] == kind, task.is_novel)
        assert len(task.train) == 32
        assert len(set(task.train[:, 0]) | set(task.test[:, 0])) == 60
        seen[kind] = task
    assert list(seen) == ["a", "b", "c"]


def test_peers_find_what_is_far_off_and_nothing_in_noise():
    """The measures have a positive and a negative control."""
    rng = np.random.RandomState(0)
    train, test = rng.standard_normal((300, 4)), rng.standard_normal((300, 4))
    is_novel = np.arange(300) < 100
    for name, method in novelty.PEERS.items():
        blind = novelty.measure_peer(method, Task(train, test, is_novel), 0, time.process_time)
        far = test + 9.0 * is_novel[:, None]
        found = novelty.measure_peer(method, Task(train, far, is_novel), 0, time.process_time)
        assert abs(blind["auroc"] - 0.5) < 0.1, name
        assert found["auroc"] > 0.99, name


@pytest.mark.slow
def test_a_run_measures_every_score_and_resumes(folder, tmp_path, capsys):
    command = ["--kinds", "outliers", "--data-dir", str(folder), "--seeds", "0"]
    command += ["--output", str(tmp_path), "--resume"]
    novelty.main(command)
    first = capsys.readouterr().out
    results = novelty.Results(tmp_path / "novelty.json", resume=True)
    methods = {row["method"]: row for row in results.rows}
    assert set(methods) >= {OURS, *(f"score: {score}" for score in SCORES), *novelty.PEERS}
    assert methods[OURS]["auroc"] > 0.9
    assert methods[OURS]["bytes"] < 1_000_000
    novelty.main(command)
    again = capsys.readouterr().out
    assert again in first  # the summary only: nothing was measured twice


def test_targets_say_met_or_missed():
    rows = [
        row("outliers", OURS, 0.88, false_alarms=0.05, found=0.5),
        row("outliers", PEER, 0.86),
        row("cells", OURS, 0.89),
        *(row("cells", method, 0.85) for method in novelty.ON_PCA),
        row("speed", OURS, 0.0, score_seconds=0.05, bytes=2_000_000),
    ]
    verdicts = {line[0]: line[-1] for line in targets(rows)}
    assert list(verdicts.values()) == ["met", "met", "met", "missed", "met", "missed"]


def test_claims_hold_partly_or_not_by_rule():
    rows = [
        row("images", f"score: {score}", 0.7) | {"novel": novel}
        for score in SCORES
        for novel in "ab"
    ]
    rows += [row("images", method, 0.9) for method in novelty.OF_KIND["images"]]
    for of in rows:
        if of["method"] == "score: divergence":
            of["auroc"] = 0.4
        if of["method"] == "score: reconstruction" and of["novel"] == "b":
            of["auroc"] = 0.45
        if of["method"] == "score: reconstruction_error":
            of["auroc"] = 0.3
    assert [line[-1] for line in claims(rows)] == [
        "partly",
        "does not",
        "holds",
        "holds",
        "does not",
    ]
