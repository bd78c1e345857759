"""Run what README.md quotes, and put the output into it: example, demo, comparison, picture."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import tables
from benchmarks.pages import DOCS, fill, load

ROOT = DOCS.parent
PICTURES = ("digits.png",)


def run(*arguments: str) -> str:
    """Return the standard output of a Python process."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def quoted(output: str) -> list[str]:
    """Return output as a block of text."""
    return ["```", output.strip(), "```"]


def main() -> None:
    """Fill the README, and draw its picture."""
    readme = ROOT / "README.md"
    example = r"<!-- example -->\n(```python\n(.*?)```)"
    ((block, code),) = re.findall(example, readme.read_text(), re.DOTALL)
    with tempfile.TemporaryDirectory() as folder:
        demo = run("examples/quickstart.py", "--output", folder).split("\nFigures:")[0]
        for name in PICTURES:
            shutil.copy(Path(folder) / name, DOCS / "images" / name)
    fill(
        readme,
        example=[block, "", *quoted(run("-c", code))],
        demo=quoted(demo),
        # The targets, without the sets.
        tables=tables.summary(load("tables")[1])[-8:],
    )
