"""Regenerate what the README quotes: the example, the demo, the comparison, the pictures.

``python -m benchmarks.readme`` edits README.md and docs/images in place.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import compare_page
from benchmarks.pages import load

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> str:
    """Return the standard output of a Python process."""
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout


def main() -> None:
    """Run the example and the demo, and put their output into the README."""
    readme = ROOT / "README.md"
    text = readme.read_text()
    example = re.search(r"<!-- example -->\n```python\n(.*?)```", text, re.DOTALL)
    assert example is not None
    output = run("-c", example.group(1)).strip()
    text = re.sub(
        r"(```\n\n```\n).*?(\n```\n<!-- /example -->)",
        rf"\g<1>{output}\g<2>",
        text,
        flags=re.DOTALL,
    )
    with tempfile.TemporaryDirectory() as folder:
        demo = run("examples/quickstart.py", "--output", folder).split("\nFigures:")[0].strip()
        run("examples/diagnose_collapse.py", "--output", folder)
        (ROOT / "docs" / "images").mkdir(exist_ok=True)
        cells = run("examples/single_cell_integration.py", "--output", folder).strip()
        for name in ("digits.png", "collapse_covariance.png", "integration_umap.png"):
            shutil.copy(Path(folder) / name, ROOT / "docs" / "images" / name)
    block = f"<!-- demo -->\n```\n{demo}\n```\n<!-- /demo -->"
    text = re.sub(r"<!-- demo -->.*?<!-- /demo -->", block, text, flags=re.DOTALL)
    block = f"<!-- integration -->\n```\n{cells}\n```\n<!-- /integration -->"
    text = re.sub(r"<!-- integration -->.*?<!-- /integration -->", block, text, flags=re.DOTALL)
    table = "\n".join(compare_page.summary_table(load("compare")[1]))
    block = f"<!-- compare -->\n{table}\n<!-- /compare -->"
    text = re.sub(r"<!-- compare -->.*?<!-- /compare -->", block, text, flags=re.DOTALL)
    readme.write_text(text)


if __name__ == "__main__":
    main()
