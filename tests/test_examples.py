"""The examples run, say what they are meant to say, and draw what they list."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from http.client import HTTPException
from pathlib import Path
from urllib.error import URLError

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"

#: scanpy's plots call what matplotlib is about to deprecate.
SCANPY_PLOTS = ("-W", "ignore::PendingDeprecationWarning")


def run(name, folder, *arguments, options=()):
    command = [sys.executable, "-W", "error", *options, str(EXAMPLES / name)]
    command += ["--output", str(folder), *arguments]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


@pytest.mark.slow
def test_quickstart(tmp_path):
    pytest.importorskip("scanpy")
    output = run("quickstart.py", tmp_path).stdout
    assert output.count("HEBAE(10)") == 2
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"codes.png", "digits.png", "covariance.png", "training.png"}


def counts_of_scanpys_cells(path):
    """Counts of the cells that scanpy ships; the log-normalised values are from them."""
    scanpy = pytest.importorskip("scanpy")
    import numpy as np

    adata = scanpy.datasets.pbmc68k_reduced()
    values = np.expm1(adata.raw.X.toarray())
    one = np.where(values > 0, values, np.inf).min(axis=1, keepdims=True)
    counts = adata.raw.to_adata()
    counts.X = type(adata.raw.X)(np.rint(values / one).astype(np.float32))
    counts.obs = counts.obs[["bulk_labels"]].rename(columns={"bulk_labels": "cell_type"})
    counts.uns.clear()
    counts.write_h5ad(path)


@pytest.mark.slow
def test_single_cell_pbmc3k(tmp_path):
    counts_of_scanpys_cells(tmp_path / "cells.h5ad")
    file = ("--file", str(tmp_path / "cells.h5ad"))
    output = run("single_cell_pbmc3k.py", tmp_path, *file, options=SCANPY_PLOTS).stdout
    assert "likelihood: negative_binomial" in output
    assert "140 new cells projected" in output
    right = float(output.split("old ones: ")[1].split()[0])
    assert right > 0.7
    zeros = output.split("among counts: ")[1].split()
    assert float(zeros[0]) == pytest.approx(float(zeros[4]), abs=0.04)  # 560 cells
    assert (tmp_path / "pbmc3k_umap.png").stat().st_size > 10_000


#: What an earlier download has left in scanpy's folder.
LEFT_OVER = {
    "nothing": {},
    "half of one": {"pbmc3k_processed.h5ad": b"\x89HDF\r\n\x1a\n half"},
    "a page that says no": {"pbmc3k_processed.h5ad": b"<html>403</html>"},
}

BLOCKED = """
import runpy, socket, sys, urllib.error, urllib.request
def refuse(*args, **kwargs):
    raise {error}
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
sys.argv = ["single_cell_pbmc3k.py"]
runpy.run_path({script!r}, run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("error", "left"),
    [
        ("socket.gaierror(-3, 'Temporary failure in name resolution')", "nothing"),
        ("ConnectionRefusedError(111, 'Connection refused')", "nothing"),
        ("TimeoutError('timed out')", "nothing"),
        ("TimeoutError('timed out')", "half of one"),
        ("TimeoutError('timed out')", "a page that says no"),
    ],
)
def test_single_cell_pbmc3k_without_network(tmp_path, error, left):
    pytest.importorskip("scanpy")
    (tmp_path / "data").mkdir()
    for name, content in LEFT_OVER[left].items():
        (tmp_path / "data" / name).write_bytes(content)
    script = BLOCKED.format(error=error, script=str(EXAMPLES / "single_cell_pbmc3k.py"))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "pbmc3k_processed" in done.stderr
    assert "--file cells.h5ad" in done.stderr
    assert done.stdout == ""
    assert ("Delete it" in done.stderr) == (left != "nothing")


DISTRIBUTED = ("--rows", "2000", "--hidden", "64", "--minibatch", "200")


@pytest.mark.slow
def test_distributed_fit(tmp_path):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    output = run("distributed_fit.py", tmp_path / "2", *DISTRIBUTED, options=launcher).stdout
    two = json.loads(output)
    one = json.loads(run("distributed_fit.py", tmp_path / "1", *DISTRIBUTED).stdout)
    assert (two["processes"], one["processes"]) == (2, 1)
    assert two["error"] == pytest.approx(one["error"], rel=0.15)
    assert two["score"] == pytest.approx(one["score"], abs=2.0)
    assert {path.name for path in (tmp_path / "2").iterdir()} >= {"digits.model", "digits-2.ckpt"}


@pytest.mark.slow
def test_distributed_fit_compares(tmp_path):
    output = run("distributed_fit.py", tmp_path, "--compare", *DISTRIBUTED).stdout
    rows = {line[:22].strip(): line[22:].split() for line in output.splitlines()[1:]}
    assert list(rows) == ["1 process", "2 processes", "1 process, 2 threads"]
    for fit, total, error, _ in rows.values():
        assert 0.0 < float(fit) < float(total)
        assert float(error) == pytest.approx(float(rows["1 process"][2]), rel=0.15)


@pytest.mark.slow
def test_synthesise_adult(tmp_path):
    pd = pytest.importorskip("pandas")
    import numpy as np

    rng = np.random.default_rng(0)
    age = rng.integers(17, 80, 900)
    rich = rng.random(900) < age / 200
    columns = {
        "age": age,
        "education-num": rng.integers(1, 17, 900),
        "marital-status": rng.choice(["Divorced", "Widowed"], 900),
        "relationship": rng.choice(["Husband", "Wife"], 900),
        "sex": rng.choice(["Female", "Male"], 900),
        "hours-per-week": np.where(rng.random(900) < 0.6, 40, rng.integers(1, 99, 900)),
        "income": np.where(rich, ">50K", "<=50K"),
    }
    pd.DataFrame(columns).to_csv(tmp_path / "adult.csv", index=False)
    file = ("--data", str(tmp_path / "adult.csv"), "--rows", "300")
    output = run("synthesise_adult.py", tmp_path, *file).stdout
    assert "same dtypes: True; numbers within bounds: True; known categories only: True" in output
    share = float(output.split("than to any other real row: ")[1].split("%")[0])
    assert 35 < share < 65
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"adult_columns.png", "adult_pairs.png"}


def test_synthesise_adult_without_its_table(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("adult", EXAMPLES / "synthesise_adult.py")
    adult = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(adult)
    for error in (
        URLError("no route to host"),
        TimeoutError("timed out"),
        HTTPException("cut off"),
    ):

        def no_network(*_, error=error, **__):
            raise error

        monkeypatch.setattr(adult, "fetch_openml", no_network)
        with pytest.raises(SystemExit, match="pass --data FILE") as stopped:
            adult.load(None)
        assert "from OpenML (" in stopped.value.code  # a string, for which the status is 1
        assert "\n" not in stopped.value.code
    with pytest.raises(SystemExit, match=r"Cannot read Adult from .*absent\.csv"):
        adult.load(tmp_path / "absent.csv")


@pytest.mark.slow
def test_synthesise_adult_without_a_network(tmp_path, monkeypatch):
    pytest.importorskip("pandas")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    with pytest.raises(subprocess.CalledProcessError) as failed:
        run("synthesise_adult.py", tmp_path)
    assert failed.value.returncode == 1
    (line,) = failed.value.stderr.splitlines()
    assert "Cannot read Adult from OpenML" in line
    assert "Traceback" not in line
