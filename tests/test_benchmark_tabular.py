"""Rows drawn from mixed tables: measures, rows of results, and what is left out."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest

from benchmarks import mixed_tables, pages, tabular, tabular_measures, tabular_page

pd = pytest.importorskip("pandas")


def birds(n_rows, seed=0):
    """Return a table of three kinds of birds, with a few missing values."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, 3, n_rows)
    frame = pd.DataFrame(
        {
            "species": np.array(["Adelie", "Chinstrap", "Gentoo"], dtype=object)[kind],
            "bill": rng.normal(40.0 + 4.0 * kind, 1.0).round(1),
            "mass": (3500 + 400 * kind + rng.integers(-300, 300, n_rows)).astype(int),
            "sex": np.array(["female", "male"], dtype=object)[rng.integers(0, 2, n_rows)],
        }
    )
    frame.loc[:2, "bill"] = np.nan
    return frame


@pytest.fixture
def folder(tmp_path):
    birds(240).to_csv(tmp_path / "penguins.csv", index=False)
    return tmp_path


@pytest.fixture
def parts(folder):
    return mixed_tables.split(mixed_tables.load("penguins", folder), 0)


def test_splits_are_disjoint_and_the_seed_counts(folder):
    whole = mixed_tables.load("penguins", folder)
    first, second = (mixed_tables.split(whole, seed) for seed in (0, 1))
    assert [len(part) for part in first[:3]] == [80, 80, 80]
    together = pd.concat(first[:3]).sort_values(list(whole.rows)).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        together, whole.rows.sort_values(list(whole.rows)).reset_index(drop=True)
    )
    assert not first.train.equals(second.train)
    assert first.label == "species"


def test_a_table_that_is_nowhere_is_skipped(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(mixed_tables, "find_spec", lambda name: None)
    assert mixed_tables.load("diamonds", tmp_path) is None
    assert "diamonds skipped: no diamonds.csv" in capsys.readouterr().out


@pytest.mark.slow
def test_measures_of_copies_of_real_rows_and_of_nonsense(parts):
    copies = tabular_measures.measure(parts, parts.train, 0)
    assert (copies["nearer_to_training"], copies["distance_to_training"]) == (1.0, 0.0)
    assert copies["levels_lost"] == copies["invalid_values"] == 0
    real = tabular_measures.measure(parts, parts.other, 0)
    assert real["nearer_to_training"] is None
    assert real["distance_ratio"] == 1.0
    assert abs(real["auc_real_or_not"] - 0.5) < 0.15
    assert min(real["auc_gradient_boosting"], real["auc_hist_gradient_boosting"]) > 0.9
    rng = np.random.RandomState(0)  # every column in an order of its own
    shuffled = parts.other.apply(lambda column: column.sample(frac=1, random_state=rng).to_numpy())
    worse = tabular_measures.measure(parts, shuffled, 0)
    assert worse["auc_gradient_boosting"] < real["auc_gradient_boosting"] - 0.2
    assert worse["auc_real_or_not"] > real["auc_real_or_not"]
    nonsense = parts.other.assign(sex="male", mass=parts.other["mass"] + 0.5)
    nonsense.loc[:3, "bill"] = 1000.0
    found = tabular_measures.measure(parts, nonsense, 0)
    assert found["levels_lost"] == 1
    assert found["invalid_values"] >= len(nonsense) + 3
    assert found["auc_real_or_not"] > 0.65


def test_rows_of_few_species_train_no_classifier(parts):
    one = parts.other[parts.other["species"] == "Gentoo"]
    assert tabular_measures.measure(parts, one, 0)["auc_gradient_boosting"] is None


@pytest.mark.slow
def test_a_run_prints_a_table_and_says_what_it_lacks(folder, capsys):
    how = ["--data", "penguins", "--data-dir", str(folder), "--output", str(folder)]
    how += ["--seeds", "0", "--threads", "1"]
    tabular.main([*how, "--methods", "HEBAE", "ARF", tabular.REAL])
    said = capsys.readouterr().out
    lacking = "sdmetrics" not in sys.modules and not _installed("sdmetrics")
    if lacking:
        assert "no column shapes and pair trends: ModuleNotFoundError" in said
    document = json.loads((folder / "tabular.json").read_text())
    assert document["environment"]["threads"] == 1
    rows = {row["method"]: row for row in document["rows"]}
    assert {"HEBAE", tabular.REAL} <= rows.keys()
    assert rows["HEBAE"]["invalid_values"] == 0
    assert rows["HEBAE"]["fit_seconds"] > 0.0
    assert "### penguins: 80 rows, 4 columns, 1 seed\n" in said
    tabular.main([*how, "--methods", "HEBAE", "--resume"])
    assert len(json.loads((folder / "tabular.json").read_text())["rows"]) == len(document["rows"])


def _installed(name):
    from importlib.util import find_spec

    return find_spec(name) is not None


def test_targets_of_adult_are_judged():
    row = {"data": "adult", "method": "HEBAE", "seed": 0, "n_train": 5000, "n_columns": 15}
    good = row | {"column_shapes": 0.98, "nearer_to_training": 0.5}
    assert tabular_page.verdicts([good]) == ["", "Misses on Adult: none."]
    bad = row | {"column_shapes": 0.9, "nearer_to_training": 0.6}
    (_, line) = tabular_page.verdicts([bad])
    assert "column shapes 0.900, not >= 0.97" in line
    assert "near training 0.600, not 0.48 to 0.52" in line
    lines = tabular_page.summary([good])
    assert "| target | >= 0.97 | 0.48 to 0.52 |" in lines
    assert pages.section("nothing", tabular_page.summary)[0].startswith("Not measured yet")
