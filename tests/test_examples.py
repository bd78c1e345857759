"""The examples run, say what they are meant to say, and draw what they list."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, folder):
    command = [sys.executable, "-W", "error", str(EXAMPLES / name), "--output", str(folder)]
    environment = {**os.environ, "MPLBACKEND": "agg"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment)


@pytest.mark.slow
def test_diagnose_collapse(tmp_path):
    output = run("diagnose_collapse.py", tmp_path).stdout
    healthy, collapsed, hebae = output.split("--- ")[1:4]
    assert "10 of 10" in healthy
    assert "dimensions have collapsed" not in healthy
    assert "dimensions have collapsed" in collapsed
    assert "10 of 10" in hebae
    assert "dimensions have collapsed" not in hebae
    assert len(list(tmp_path.glob("collapse_*.png"))) == 5
    assert not output.endswith("\n\n")


@pytest.mark.slow
def test_quickstart(tmp_path):
    pytest.importorskip("scanpy")
    output = run("quickstart.py", tmp_path).stdout
    assert output.count("HEBAE(10)") == 2
    names = {path.name for path in tmp_path.glob("*.png")}
    assert names == {"codes.png", "digits.png", "covariance.png", "training.png"}
