"""What goes wrong is one line on stderr that names the cause, and an exit status."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from skhebae import HEBAETransformer
from skhebae.cli import main

pd = pytest.importorskip("pandas")
ad = pytest.importorskip("anndata")
pytest.importorskip("pyarrow")

#: Files by name, as bytes.
FILES = {
    "t.csv": "x,y,kind\n" + "".join(f"{i % 7},{i % 5}.5,{'ab'[i % 2]}\n" for i in range(30)),
    "new.csv": "x,y,kind\n1,2.5,a\n",
    "few.csv": "x,kind\n1,a\n",
    "words.csv": "x,y,kind\nmany,2.5,a\n",
    "empty.csv": "",
    "header.csv": "x,y,kind\n",
    "ragged.csv": "x,y\n1,2\n1,2,3\n",
    "long.csv": "x,y\n1,2,3,4\n1,2,3,4\n",
    "twins.csv": "x,x\n1,2\n3,4\n",
    "nameless.csv": "x,,y\n1,2,3\n3,4,5\n",
    "numbers.csv": "1,2\n3,4\n5,6\n",
    "latin.csv": "käse;b\n1;2\n3;4\n".encode("latin-1"),
    "names.csv": "who\n" + "".join(f"name {i}\n" for i in range(20)),
    "weights.csv": "x,w\n1,2\n3,\n4,1\n",
    "binary.csv": b"PK\x03\x04\0\0\0",
    "junk.csv.gz": b"junk",
    "junk.parquet": b"junk",
    "junk.h5ad": b"junk",
    "junk": b"junk",
    "there.csv": "x\n1\n",
    "t.xlsx": b"PK",
}

USAGE, FAILED = 2, 1

#: Command line, exit status, and what the line says.
ERRORS = [
    ("", USAGE, "required: command"),
    ("frobnicate", USAGE, "invalid choice: 'frobnicate'"),
    ("fit", USAGE, "required: table"),
    ("fit t.csv --frob", USAGE, "--frob"),
    ("fit nothing.csv", FAILED, "'nothing.csv' does not exist"),
    ("fit .", FAILED, "'.' is a folder"),
    ("fit t.xlsx", USAGE, "suffix '.xlsx'. Use .csv"),
    ("fit junk", USAGE, "no suffix. Use .csv"),
    ("fit t.csv -o m.csv", USAGE, "must name a model file"),
    ("fit - ", USAGE, "-o FILE is required"),
    ("fit t.csv -o model", FAILED, "'model' exists. Pass --force"),
    ("fit t.csv -o no/m", FAILED, "Create it first"),
    ("fit t.csv -o .", FAILED, "is a folder. Name a file"),
    (
        "fit t.csv -o m --drop z",
        USAGE,
        "--drop: no column 'z'. The known ones are 'x', 'y', 'kind'",
    ),
    ("fit t.csv -o m --columns x,kin", USAGE, "Did you mean 'kind'?"),
    ("fit t.csv -o m --index z", USAGE, "--index: no column 'z'"),
    ("fit t.csv -o m --weight z", USAGE, "--weight: no column 'z'"),
    ("fit weights.csv -o m --weight w", FAILED, "the weight column 'w' has missing values"),
    ("fit t.csv -o m --drop x,y,kind", FAILED, "no column left to fit to"),
    ("fit names.csv -o m --quiet", FAILED, "no column left to fit to"),
    ("fit t.csv -o m --components 0", USAGE, "neither a whole number"),
    ("fit t.csv -o m --components many", USAGE, "neither a whole number"),
    ("fit t.csv -o m --epochs 1.5", USAGE, "not a whole number"),
    ("fit t.csv -o m --seed -1", USAGE, "--seed"),
    ("fit t.csv -o m --device gpu", FAILED, "device='gpu'"),
    ("fit t.csv -o m --method pca", USAGE, "invalid choice: 'pca'"),
    ("fit t.csv -o m --likelihood normal", USAGE, "--likelihood 'normal' is not one of gaussian"),
    ("fit t.csv -o m --likelihood x=normal", FAILED, "'normal' is no family"),
    ("fit t.csv -o m --likelihood x=gaussian --likelihood auto", USAGE, "not as both"),
    ("fit t.csv -o m --set alpha=1", USAGE, "no parameter 'alpha'"),
    ("fit t.csv -o m --set batch_size", USAGE, "no parameter"),
    ("fit t.csv -o m --set batch_size=1", FAILED, "'batch_size' parameter"),
    ("fit t.csv -o m --layer counts", USAGE, "--layer is for .h5ad files"),
    ("fit c.h5ad -o m --weight w", USAGE, "--weight is for tables"),
    ("fit c.h5ad -o m --layer counts", FAILED, "layer='counts' is not in adata.layers"),
    ("fit c.h5ad -o m --batch-key day", FAILED, "batch_key='day' is not a column of obs"),
    ("fit c.h5ad -o m --novelty", USAGE, "--novelty is for tables"),
    (
        "fit t.csv -o m --novelty --checkpoint c",
        USAGE,
        "--checkpoint cannot be combined",
    ),
    ("fit t.csv -o m --checkpoint junk", FAILED, "'junk'"),
    ("fit t.csv -o m --separator ;;", USAGE, "not one character"),
    ("fit t.csv -o m --encoding klingon", USAGE, "--encoding 'klingon' is not known"),
    ("fit empty.csv -o m", FAILED, "'empty.csv' is empty"),
    ("fit header.csv -o m", FAILED, "no rows below its header"),
    ("fit ragged.csv -o m", FAILED, "Expected 2 fields in line 3, saw 3"),
    ("fit long.csv -o m", FAILED, "more fields than the first line"),
    ("fit twins.csv -o m", FAILED, "several columns with the same name: 'x'"),
    ("fit nameless.csv -o m", FAILED, "no name for column 2"),
    ("fit numbers.csv -o m", FAILED, "Pass --no-header"),
    ("fit latin.csv -o m", FAILED, "not text in UTF-8. Pass --encoding"),
    ("fit binary.csv -o m", FAILED, "'binary.csv' is not a text file"),
    ("fit junk.csv.gz -o m", FAILED, "'junk.csv.gz' is not a readable gzip file"),
    ("fit junk.parquet -o m", FAILED, "'junk.parquet' is not a readable Parquet file"),
    ("fit junk.h5ad -o m", FAILED, "'junk.h5ad' is not a readable .h5ad file"),
    ("transform nothing t.csv", FAILED, "'nothing' is not there"),
    ("transform junk t.csv", FAILED, "'junk' is not a readable model file"),
    ("transform cut t.csv", FAILED, "'cut' is not a readable model file"),
    ("transform t.csv model", USAGE, "the model comes first"),
    ("transform t.csv new.csv", FAILED, "The model comes first, then the table."),
    ("transform model c.h5ad", FAILED, "'model' was fitted to a table"),
    ("transform of_cells t.csv", FAILED, "'of_cells' was fitted to an .h5ad file"),
    ("transform model t.csv -o codes.xlsx", USAGE, "the output 'codes.xlsx' has the suffix"),
    ("transform model t.csv -o codes.h5ad", USAGE, "must end in .csv, .tsv or .parquet"),
    ("transform model t.csv -o there.csv", FAILED, "'there.csv' exists. Pass --force"),
    ("transform model few.csv", FAILED, "lacks 1 of the model's 3 columns: 'y'"),
    ("score model words.csv", FAILED, "column 'x' has 'many' in row 1, which is not a number"),
    ("score of_array few.csv", FAILED, "2 columns, and the model was fitted to 3 without names"),
    ("impute of_cells c.h5ad", FAILED, "skhebae denoise"),
    ("impute model t.csv --draws 0", USAGE, "--draws: '0' is not a whole number"),
    ("denoise model t.csv", FAILED, "For a table use impute"),
    ("sample model", USAGE, "required: n_rows"),
    ("sample model 0", USAGE, "'0' is not a whole number of at least 1"),
    ("sample model 3 --given kind", USAGE, "not of the form COLUMN=VALUE"),
    ("sample model 3 --given z=1", USAGE, "--given: no column 'z'"),
    (
        "sample model 3 --given kind=c",
        USAGE,
        "'kind' had no 'c' in the fit. The known ones are 'a', 'b'.",
    ),
    ("sample model 3 --given x=old", USAGE, "'old' is not a value of the column 'x'"),
    ("sample model 3 --batch a", USAGE, "no --batch"),
    ("sample of_cells 3", USAGE, "--batch is required. Pass one of p, q, or average"),
    ("sample of_cells 3 --batch r", FAILED, "'r'"),
    ("sample of_cells 3 --batch p --given g=1", USAGE, "--given is for models of tables"),
    (
        "denoise of_cells c.h5ad --backed -o c.h5ad --force",
        USAGE,
        "is the file that --backed reads",
    ),
    ("card junk", FAILED, "'junk' is not a readable model file"),
    ("card of_cells c.h5ad", FAILED, "card scores the rows of tables"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("errors")
    for name, content in FILES.items():
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    counts = np.random.default_rng(0).poisson(3.0, size=(20, 5)).astype(np.float32)
    obs = pd.DataFrame({"batch": ["p", "q"] * 10}, index=[f"c{i}" for i in range(20)])
    ad.AnnData(counts, obs=obs).write_h5ad(path / "c.h5ad")
    fit = ["--epochs", "2", "--set", "hidden_layer_sizes=()", "--quiet"]
    assert main(["fit", str(path / "t.csv"), "-o", str(path / "model"), *fit]) == 0
    cells = ["fit", str(path / "c.h5ad"), "-o", str(path / "of_cells"), "--batch-key", "batch"]
    assert main([*cells, *fit]) == 0
    HEBAETransformer(2, hidden_layer_sizes=()).fit(counts[:, :3]).save(path / "of_array")
    (path / "cut").write_bytes((path / "model").read_bytes()[:-10])
    return path


@pytest.mark.parametrize(("line", "status", "what"), ERRORS, ids=[e[0] or "-" for e in ERRORS])
def test_errors_are_one_line(folder, monkeypatch, capsys, line, status, what):
    monkeypatch.chdir(folder)
    before = {name: (folder / name).stat().st_mtime_ns for name in os.listdir(folder)}
    assert main(line.split()) == status
    done = capsys.readouterr()
    errors = [text for text in done.err.splitlines() if not text.startswith("skhebae: note: ")]
    assert len(errors) == 1, done.err
    assert errors[0].startswith("skhebae: error: ")
    assert what in errors[0]
    assert done.out == ""
    # Nothing is written or left behind.
    assert before == {name: (folder / name).stat().st_mtime_ns for name in os.listdir(folder)}


def test_traceback_on_request(folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(ValueError, match="device='gpu'"):
        main(["fit", "t.csv", "-o", "m", "--device", "gpu", "--traceback"])


def test_an_error_of_ours_says_how_to_see_more(folder, monkeypatch, capsys):
    def fail(*_, **__):
        raise RuntimeError("no such case")

    monkeypatch.chdir(folder)
    monkeypatch.setattr("skhebae.cli.commands.load_model", fail)
    assert main(["card", "model"]) == 1
    expected = "skhebae: error: RuntimeError: no such case. --traceback shows where.\n"
    assert capsys.readouterr().err == expected


def test_a_package_that_is_not_installed(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert main(["score", "model", "junk.parquet"]) == 1
    assert "needs pyarrow" in (said := capsys.readouterr().err)
    assert "pip install 'skhebae[cli]'" in said


def test_warnings_are_lines(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (tmp_path / "new.csv").write_text("kind,y,x\nc,1.5,2\n")
    assert main(["transform", "model", str(tmp_path / "new.csv"), "--quiet"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("skhebae: warning: X has categories that the rows of fit did not")
    arguments = ["fit", "t.csv", "-o", str(tmp_path / "m"), "--epochs", "1", "--progress"]
    assert main(arguments) == 0
    said = capsys.readouterr().err
    assert "skhebae: warning: training stopped at --epochs before the loss had settled" in said
    assert "epoch" in said


def test_an_output_is_overwritten_only_by_force(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    path = tmp_path / "codes.csv"
    path.write_text("mine")
    assert main(["transform", "model", "t.csv", "-o", str(path)]) == 1
    assert path.read_text() == "mine"
    assert main(["transform", "model", "t.csv", "-o", str(path), "--force"]) == 0
    assert path.read_text().startswith("hebaetransformer0,")
    assert os.listdir(tmp_path) == ["codes.csv"]


def test_interrupted(folder, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.chdir(folder)
    monkeypatch.setattr("skhebae.HEBAETransformer.fit", stop)
    arguments = ["fit", "t.csv", "-o", str(tmp_path / "m"), "--checkpoint", "c"]
    assert main(arguments) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == (
        "skhebae: interrupted: nothing was written. The same command resumes from the checkpoint."
    )
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_a_process_has_the_status(folder):
    command = [sys.executable, "-m", "skhebae", "score", "model", "nothing.csv"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "skhebae: error: 'nothing.csv' does not exist.\n"
    assert done.stdout == ""


@pytest.mark.slow
def test_a_reader_that_stops_is_no_error(folder):
    command = [sys.executable, "-m", "skhebae", "sample", "model", "20000"]
    with subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"x,y,kind\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


def test_version_and_help(capsys):
    import skhebae

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"skhebae {skhebae.__version__}\n"
    assert main(["fit", "--help"]) == 0
    assert "--likelihood [COLUMN=]FAMILY" in capsys.readouterr().out
