"""Damaged files and killed fits, in short forms of the two commands that look for more."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def run(*arguments):
    """Run a command, and return what it prints as lists of words."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_fuzz(tmp_path):
    lines = run(
        *("tests.fuzz", "--files", "300", "--checkpoints", "100", "--seconds", "3000"),
        *("--seed", "0", "--keep", str(tmp_path / "kept")),
    )
    assert ["files:", "300"] in lines
    assert ["checkpoints:", "100"] in lines
    for kind in (["silently", "different"], ["unnamed", "error"], ["over", "1", "GB"], ["hang"]):
        assert lines.count([*kind, "0"]) == 2
    named = [int(line[-1]) for line in lines if line[:2] == ["named", "error"]]
    assert named[0] > 200
    assert named[1] > 30
    assert list((tmp_path / "kept").iterdir()) == []


def test_kill():
    lines = run("tests.kill", "--rounds", "4", "--kills", "5", "--seed", "0")
    assert lines[1:] == [
        ["4", "rounds", "of", "5", "kills"],
        ["all", "results", "bit-identical,", "nothing", "left", "behind"],
    ]
