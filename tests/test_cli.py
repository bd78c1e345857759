"""Files in, files out: each command on each format, equal to what Python gives."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer, WAETransformer, tl
from skhebae.cli import main
from tests.cli_tables import make_patients, write_all

pd = pytest.importorskip("pandas")
ad = pytest.importorskip("anndata")
pytest.importorskip("pyarrow")

FIT = ["--epochs", "3", "--components", "2", "--set", "hidden_layer_sizes=(8,)", "--quiet"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Tables, and models fitted to them."""
    path = tmp_path_factory.mktemp("cli")
    write_all(path)
    for table, model in (("patients.csv", "model"), ("patients.parquet", "of_parquet")):
        assert main(["fit", str(path / table), "-o", str(path / model), *FIT]) == 0
    numbers = make_patients()[["age", "pressure"]].astype(float)
    numbers.to_csv(path / "numbers.csv", index=False)
    assert main(["fit", str(path / "numbers.csv"), "-o", str(path / "of_numbers"), *FIT]) == 0
    cells = ["fit", str(path / "cells.h5ad"), "--batch-key", "batch", "-o", str(path / "of_cells")]
    assert main([*cells, *FIT]) == 0
    return path


@pytest.fixture(autouse=True)
def here(folder, monkeypatch):
    monkeypatch.chdir(folder)


def run(*arguments):
    assert main([str(argument) for argument in arguments]) == 0


def as_read(names=("age", "sex", "ward", "pressure", "seen", "smoker")):
    frame = make_patients()[list(names)]
    return (
        frame.astype({"sex": object, "ward": object})
        .where(frame.notna(), None)
        .astype({"age": "Int64", "pressure": float, "seen": "datetime64[ns]", "smoker": "boolean"})
    )


def test_codes_of_a_csv_file_are_those_of_python(folder, tmp_path):
    run("transform", "model", "patients.csv", "-o", tmp_path / "codes.csv")
    codes = pd.read_csv(tmp_path / "codes.csv", index_col="patient")
    params = {"max_iter": 3, "hidden_layer_sizes": (8,), "random_state": 0}
    with pytest.warns(UserWarning, match="max_iter"):
        model = HEBAETransformer(2, **params).fit(as_read())
    np.testing.assert_allclose(codes, model.transform(as_read()), rtol=1e-4, atol=1e-5)
    assert list(codes.columns) == list(model.get_feature_names_out())
    assert list(codes.index) == list(make_patients()["patient"])
    stored = HEBAETransformer.load("model")
    assert stored.verbose == 0
    assert (codes.to_numpy(np.float32) == stored.transform(as_read())).all()


@pytest.mark.parametrize("model", ["model", "of_parquet"])
def test_formats_of_tables_are_one_table(model, tmp_path, capsys):
    frame = make_patients()
    frame.to_csv(tmp_path / "german.csv", index=False, sep=";", decimal=",")
    frame.to_csv(tmp_path / "tabs.tsv.gz", index=False, sep="\t", na_rep="?")
    frame.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig")
    frame.to_csv(tmp_path / "wide.csv", index=False, encoding="utf-16")
    other_order = frame[frame.columns[::-1]].assign(more=1)
    other_order.to_parquet(tmp_path / "other.parquet")
    codes = {}
    for table in ["german.csv", "tabs.tsv.gz", "bom.csv", "wide.csv", "other.parquet"]:
        run("transform", model, tmp_path / table, "-o", tmp_path / "codes.parquet", "--force",
            "--missing", "?")  # fmt: skip
        codes[table] = pd.read_parquet(tmp_path / "codes.parquet")
        assert codes[table].index.name == "patient"
        assert codes[table].to_numpy().dtype == np.float32
    for table in codes:
        pd.testing.assert_frame_equal(codes[table], codes["bom.csv"])
    assert "ignored: 'more'" in capsys.readouterr().err


def test_codes_that_look_like_numbers_stay_text(tmp_path):
    frame = make_patients()[:5].assign(age=pd.NA, ward="02")
    frame.to_csv(tmp_path / "gaps.csv", index=False)
    run("transform", "model", tmp_path / "gaps.csv", "-o", tmp_path / "codes.csv")
    expected = as_read()[:5].assign(age=pd.array([pd.NA] * 5, dtype="Int64"), ward="02")
    codes = pd.read_csv(tmp_path / "codes.csv", index_col=0)
    model = HEBAETransformer.load("model")
    np.testing.assert_array_equal(codes.to_numpy(np.float32), model.transform(expected))


def test_impute_keeps_what_is_there(tmp_path):
    run("impute", "model", "patients.csv", "-o", tmp_path / "filled.csv")
    before, after = (
        pd.read_csv(path, dtype=str) for path in ("patients.csv", tmp_path / "filled.csv")
    )
    assert list(before.columns) == list(after.columns)
    assert after.notna().all().all()
    there = before.notna().to_numpy()
    pressure = before.columns.get_loc("pressure")
    same = before.to_numpy() == after.to_numpy()
    same[:, pressure] = before["pressure"].astype(float) == after["pressure"].astype(float)
    assert same[there].all()
    assert after["age"].str.fullmatch(r"\d+").all()
    assert set(after["ward"]) == {"01", "02", "03"}
    model = HEBAETransformer.load("model")
    expected = model.impute(as_read())["pressure"]
    np.testing.assert_allclose(after["pressure"].astype(float), expected, rtol=1e-6)


def test_impute_numbers_and_draws(tmp_path):
    model = HEBAETransformer.load("of_numbers")
    table = pd.read_csv("numbers.csv")
    run("impute", "of_numbers", "numbers.csv", "--draws", 3, "--seed", 5, "-o", tmp_path / "d.csv")
    drawn = pd.read_csv(tmp_path / "d.csv")
    assert list(drawn.columns) == ["draw", "age", "pressure"]
    expected = model.impute(table, n_draws=3, random_state=5)
    for draw, copy in enumerate(expected, start=1):
        found = drawn[drawn["draw"] == draw].drop(columns="draw")
        np.testing.assert_allclose(found, copy, rtol=1e-6)
    assert drawn["age"].nunique() > table["age"].nunique()


def test_sample_of_a_table(tmp_path, capsys):
    run("sample", "model", 30, "--given", "sex=F", "--given", "age=40", "-o", tmp_path / "new.csv")
    rows = pd.read_csv(tmp_path / "new.csv", dtype={"ward": str})
    model = HEBAETransformer.load("model")
    expected = model.sample(30, random_state=0, given={"sex": "F", "age": 40})
    assert set(rows["sex"]) == {"F"}
    assert set(rows["age"]) == {40}
    assert list(rows["ward"]) == list(expected["ward"])
    np.testing.assert_allclose(rows["pressure"], expected["pressure"].astype(float))
    run("sample", "of_numbers", 2, "--mean", "--seed", 1)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "age,pressure"
    expected = HEBAETransformer.load("of_numbers").sample(2, random_state=1, noise=False)
    np.testing.assert_allclose(np.array([line.split(",") for line in lines[1:]], float), expected)


def test_score_and_novelty(tmp_path):
    run("score", "of_numbers", "numbers.csv", "-o", tmp_path / "s.tsv")
    table = pd.read_csv("numbers.csv")
    scores = pd.read_csv(tmp_path / "s.tsv", sep="\t")["score"]
    expected = HEBAETransformer.load("of_numbers").score_samples(table)
    assert (scores.to_numpy(np.float32) == expected).all()
    run("fit", "numbers.csv", "--novelty", "--method", "vae", "-o", tmp_path / "detector", *FIT)
    run("score", tmp_path / "detector", "numbers.csv", "-o", tmp_path / "n.parquet")
    found = pd.read_parquet(tmp_path / "n.parquet")
    detector = NoveltyDetector.load(tmp_path / "detector")
    assert type(detector.autoencoder_) is VAETransformer
    np.testing.assert_array_equal(found["p_value"], detector.p_values(table))
    np.testing.assert_array_equal(found["is_novel"], detector.predict(table) == -1)


def test_columns_weights_and_types_of_a_fit(tmp_path, capsys):
    frame = make_patients().assign(empty=None, weight=np.arange(120) % 3, number=np.arange(120))
    frame.to_csv(tmp_path / "more.csv", index=False)
    options = [option for option in FIT if option != "--quiet"]
    run("fit", tmp_path / "more.csv", "-o", tmp_path / "m", "--drop", "sex,ward", "--weight",
        "weight", "--text", "smoker", "--likelihood", "age=gaussian", "--method", "wae",
        *options)  # fmt: skip
    said = capsys.readouterr().err
    assert "'patient' has a different text in nearly every row" in said
    assert "'empty' is left out" in said
    assert "'number' numbers the rows" in said
    model = WAETransformer.load(tmp_path / "m")
    columns = {column.name: column for column in model.fitted_.columns.items}
    assert list(columns) == ["age", "pressure", "seen", "smoker", "number"]
    assert columns["age"].family == "gaussian"
    assert columns["smoker"].levels == ["False", "True"]
    assert model.command_line_["index"] == "patient"
    run("transform", tmp_path / "m", tmp_path / "more.csv", "--index", "number")
    assert capsys.readouterr().out.startswith("number,waetransformer0,")


def test_card(tmp_path, capsys):
    run("card", "model", "patients.csv")
    assert capsys.readouterr().out == HEBAETransformer.load("model").card(as_read())
    run("card", "of_cells", "-o", tmp_path / "card.md")
    text = (tmp_path / "card.md").read_text()
    assert text.startswith("# ")
    assert text == HEBAETransformer.load("of_cells").card()


@pytest.mark.parametrize("backed", [[], ["--backed"]], ids=["memory", "backed"])
def test_cells(tmp_path, backed, capsys):
    cells, model = ad.read_h5ad("cells.h5ad"), HEBAETransformer.load("of_cells")
    tl.project(cells, model)
    tl.score(cells, model)
    tl.denoise(cells, model)
    for command in ("transform", "score", "denoise"):
        run(command, "of_cells", "cells.h5ad", "-o", tmp_path / f"{command}.h5ad", *backed)
    written = ad.read_h5ad(tmp_path / "transform.h5ad")
    np.testing.assert_array_equal(written.obsm["X_hebae"], cells.obsm["X_hebae"])
    assert (written.X != cells.X).nnz == 0
    written = ad.read_h5ad(tmp_path / "score.h5ad")
    np.testing.assert_array_equal(written.obs["hebae_score"], cells.obs["hebae_score"])
    written = ad.read_h5ad(tmp_path / "denoise.h5ad")
    expected = cells.layers["hebae_denoised"]
    np.testing.assert_array_equal(written.layers["hebae_denoised"], expected)
    run("transform", "of_cells", "cells.h5ad", *backed)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "cell,hebaetransformer0,hebaetransformer1"
    assert lines[1].split(",")[0] == "cell0"
    run("denoise", "of_cells", "cells.h5ad", "--batch", "average", "-o", tmp_path / "d.parquet")
    tl.denoise(cells, model, batch="average")
    found = pd.read_parquet(tmp_path / "d.parquet")
    assert list(found.columns) == list(cells.var_names)
    np.testing.assert_array_equal(found, cells.layers["hebae_denoised"])


def test_genes_are_found_by_name_and_cells_sampled(tmp_path, capsys):
    cells = ad.read_h5ad("cells.h5ad")
    cells[:, ::-1][:, :18].copy().write_h5ad(tmp_path / "fewer.h5ad")
    run("transform", "of_cells", tmp_path / "fewer.h5ad", "-o", tmp_path / "c.csv")
    assert "2 of the model's 20 genes are not in var_names" in capsys.readouterr().err
    assert len(pd.read_csv(tmp_path / "c.csv")) == 100
    run("sample", "of_cells", 7, "--batch", "day1", "-o", tmp_path / "new.h5ad")
    drawn = ad.read_h5ad(tmp_path / "new.h5ad")
    expected = tl.sample(HEBAETransformer.load("of_cells"), 7, batch="day1")
    assert (drawn.X != expected.X).nnz == 0
    assert list(drawn.obs["batch"]) == ["day1"] * 7


@pytest.mark.slow
def test_as_a_process(folder, tmp_path):
    command = [sys.executable, "-m", "skhebae"]
    table = (folder / "new.csv").read_text()
    done = subprocess.run(
        [*command, "transform", "model", "-", "-o", "-"],
        input=table, cwd=folder, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("patient,hebaetransformer0,hebaetransformer1\nP000,")
    assert len(done.stdout.splitlines()) == 21
    assert done.stderr == ""


def test_first_lines(tmp_path, monkeypatch, capsys):
    """Names of rows as pandas and R write them, and a file without names of columns."""
    monkeypatch.chdir(tmp_path)
    rows = [f"{i % 7},{i % 5}.25" for i in range(12)]
    files = {
        "pandas.csv": [",x,y", *(f"r{i},{row}" for i, row in enumerate(rows))],
        "r.csv": ['"x","y"', *(f'"r{i}",{row}' for i, row in enumerate(rows))],
        "bare.csv": rows,
        "years.csv": ["2023,2024", *rows],
    }
    for name, lines in files.items():
        (tmp_path / name).write_text("\n".join(lines) + "\n")
    options = {"bare.csv": ["--no-header"], "years.csv": ["--header"]}
    names = {"bare.csv": ["column_1", "column_2"], "years.csv": ["2023", "2024"]}
    scores = []
    for name in files:
        run("fit", name, *FIT, *options.get(name, []))
        model = name.replace(".csv", ".skhebae")
        assert list(HEBAETransformer.load(model).feature_names_in_) == names.get(name, ["x", "y"])
        capsys.readouterr()
        run("score", model, name, *options.get(name, []))
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == ("score" if name in names else "row,score")
        assert name in names or lines[1].startswith("r0,")
        scores.append([line.split(",")[-1] for line in lines[1:]])
    assert len(scores[0]) == 12
    assert scores == [scores[0]] * 4


def test_dates_with_points_and_text_of_many_values(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 366, 120), unit="D")
    frame = pd.DataFrame(
        {
            "size": rng.normal(size=120).round(3),
            "visit": days.strftime("%d.%m.%Y"),
            "version": [f"{number % 60}.13.2020" for number in range(120)],  # no months
        }
    )
    frame.loc[3, "visit"] = None
    frame.to_csv("t.csv", index=False)
    assert main(["fit", "t.csv", "-o", "m", "--epochs", "1", "--components", "2"]) == 0
    said = capsys.readouterr().err
    assert "column 'visit' is read as dates, day before month." in said
    assert "column 'version' is read as text with 60 different values, such as '0.13.2020'." in said
    assert main(["impute", "m", "t.csv", "-o", "filled.csv"]) == 0
    filled = pd.read_csv("filled.csv")
    observed = frame["visit"].notna()
    expected = pd.to_datetime(frame["visit"][observed], format="%d.%m.%Y")
    assert (pd.to_datetime(filled["visit"])[observed] == expected).all()
    assert "2024-01-01" <= filled["visit"][3] <= "2024-12-31"
    frame.loc[5, "visit"] = "32.01.2024"
    frame.to_csv("bad.csv", index=False)
    assert main(["transform", "m", "bad.csv"]) == 1
    assert "column 'visit' has '32.01.2024' in row 6" in capsys.readouterr().err


def test_decoded_means_need_a_file(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    counts = rng.poisson(3.0, (60, 12)).astype(np.float32)
    cells = ad.AnnData(counts, layers={"counts": counts})
    cells.write_h5ad("c.h5ad")
    fit = ["fit", "c.h5ad", "-o", "m", "--epochs", "1", "--components", "2", "--layer", "counts"]
    assert main(fit) == 0
    assert main(["denoise", "m", "c.h5ad"]) == 2
    assert "-o FILE is required" in capsys.readouterr().err
    del cells.layers["counts"]
    cells.write_h5ad("raw.h5ad")
    assert main(["transform", "m", "raw.h5ad"]) == 1  # the layer of the fit is not there
    assert main(["transform", "m", "c.h5ad", "-o", "a.csv"]) == 0
    assert main(["transform", "m", "raw.h5ad", "--layer", "X", "-o", "b.csv"]) == 0
    pd.testing.assert_frame_equal(pd.read_csv("a.csv"), pd.read_csv("b.csv"))
