"""The gallery: its notebooks run, and what they say is true."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import gallery_tables

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
NAMES = sorted(str(path.relative_to(EXAMPLES))[:-3] for path in EXAMPLES.glob("**/plot_*.py"))

CHECKS = dict(gallery_tables.CHECKS)
if importlib.util.find_spec("tests.gallery_cells"):
    CHECKS |= importlib.import_module("tests.gallery_cells").CHECKS

#: Warnings are errors, but for those of the kernel itself, which `PYTHONWARNINGS` would end.
FIRST_CELL = """
import warnings
warnings.simplefilter("error")
for of_kernel in ("ipykernel", "zmq", "tornado", "traitlets", "jupyter_client", "asyncio"):
    warnings.filterwarnings("ignore", module=of_kernel)
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
warnings.filterwarnings("ignore", "FigureCanvasAgg is non-interactive")
"""

#: Runs a notebook in a kernel of this interpreter, whichever others are installed.
RUN = """
import sys
import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
manager = AsyncKernelManager()
manager.kernel_spec.argv[0] = sys.executable
NotebookClient(nbformat.read("book.ipynb", as_version=4), km=manager, timeout=600).execute()
"""


def text_of(name):
    return (EXAMPLES / f"{name}.py").read_text(encoding="utf-8")


def prose_of(name):
    """Return the docstring and the text cells, without inline code."""
    source = text_of(name)
    comments = [line[1:] for line in source.splitlines() if line.startswith("#")]
    prose = "\n".join([ast.get_docstring(ast.parse(source)), *comments])
    return re.sub(r"``.*?``|:\w+:`.*?`", "", prose, flags=re.DOTALL)


def test_there_is_a_gallery():
    assert len(NAMES) >= (14 if (EXAMPLES / "cells").is_dir() else 9)
    for folder in {Path(name).parent for name in NAMES}:
        header = (EXAMPLES / folder / "GALLERY_HEADER.rst").read_text().splitlines()
        assert set(header[1]) == {"-"}
        assert len(header[1]) == len(header[0])
    assert (EXAMPLES / "GALLERY_HEADER.rst").read_text().startswith("Gallery\n=======\n")


@pytest.mark.parametrize("name", NAMES)
def test_form(name):
    source = text_of(name)
    assert name in CHECKS, "Add what the example claims to the checks of the gallery."
    title, line, blank, first, *_ = ast.get_docstring(ast.parse(source)).splitlines()
    assert line == "=" * len(title)
    assert not blank
    assert first
    assert "plt.show()" in source
    assert "# %%\n" in source
    for unwanted in ("argparse", "mpl.use", "matplotlib.use", "__main__", "fetch_", "savefig"):
        assert unwanted not in source
    assert not re.search(r"[\"'](/|~|[A-Z]:\\)", source), "an absolute path"
    assert len(source.splitlines()) <= 150


@pytest.mark.parametrize("name", NAMES)
def test_stated_results_are_checked(name):
    """Percentages and decimals of the prose appear in the code or in the checks."""
    source = text_of(name)
    code = "\n".join(line for line in source.splitlines() if not line.startswith("#"))
    code = code.replace(ast.get_docstring(ast.parse(source)), "") + CHECKS[name]
    for share in re.findall(r"\b(\d+(?:\.\d+)?)(?= ?%)", prose_of(name)):
        known = {share, f"{float(share) / 100:g}", f"{1 - float(share) / 100:g}"}
        numbers = set(re.findall(r"\d+(?:\.\d+)?", code))
        assert known & numbers, f"{share} % is neither in the code nor in the checks"
    prose = re.sub(r"arXiv:\S+|arxiv\.org/\S+", "", prose_of(name))
    for number in re.findall(r"\b\d+\.\d+\b(?! ?%)", prose):
        assert number in code, f"{number} is neither in the code nor in the checks"


def notebook_of(name):
    """Return the notebook that sphinx-gallery offers for download."""
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("sphinx_gallery")
    from sphinx_gallery.gen_gallery import DEFAULT_GALLERY_CONF
    from sphinx_gallery.notebook import jupyter_notebook
    from sphinx_gallery.py_source_parser import split_code_and_text_blocks

    path = str(EXAMPLES / f"{name}.py")
    _, blocks = split_code_and_text_blocks(path)
    made = jupyter_notebook(blocks, dict(DEFAULT_GALLERY_CONF), str(Path(path).parent))
    return nbformat.reads(json.dumps(made), as_version=4)


def test_kinds_of_cells_of_a_notebook():
    cells = notebook_of("tables/plot_digits").cells
    assert {cell.cell_type for cell in cells} == {"markdown", "code"}
    assert "# Compress digits" in cells[0].source
    assert not any(cell.source.startswith("# %%") for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebook(name, tmp_path):
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    nbformat = pytest.importorskip("nbformat")
    book, cell = notebook_of(name), nbformat.v4.new_code_cell
    checks = [cell("assert plt.get_fignums(), 'no figure'"), cell(CHECKS[name])]
    book.cells = [cell(FIRST_CELL), *book.cells, *checks]
    nbformat.write(book, tmp_path / "book.ipynb")
    environment = {
        **os.environ,
        "MPLBACKEND": "agg",
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    # In a process of its own, as the client leaves sockets for the garbage collector to close.
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
