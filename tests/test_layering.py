"""Each level of the package imports only from levels below it, or its own room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "skhebae"
LEVELS = {
    "exceptions": 0,
    "files": 0,
    "aggregate": 0,
    "divergences": 0,
    "finite_sample": 0,
    "likelihoods": 0,
    "networks": 0,
    "noise": 0,
    "processes": 1,
    "information": 1,
    "model": 1,
    "data": 2,
    "objectives": 2,
    "engine": 3,
    "estimators": 4,
    "diagnostics": 5,
    "plotting": 5,
    "tl": 5,
    "pp": 6,
}
SINGLE_CELL = {"anndata", "scanpy"}
OPTIONAL = SINGLE_CELL | {"matplotlib", "pandas", "polars", "tqdm", "skops", "annbatch"}


def modules():
    return sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def room(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0].removesuffix(".py")


def imports(path):
    """Names imported at run time, whether at the top or in a function."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_upward_import(path):
    for name in imports(path):
        if name.startswith("skhebae."):
            target = name.split(".")[1]
            same_room = target == room(path)
            assert same_room or LEVELS[target] < LEVELS[room(path)], f"{path} imports {name}"


def test_every_room_has_a_level():
    assert {room(path) for path in modules()} == set(LEVELS)


def test_private_scikit_learn_names_in_one_module():
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in modules()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("sklearn")
        and (
            any(part.startswith("_") for part in node.module.split("."))
            or any(alias.name.startswith("_") for alias in node.names)
        )
    }
    assert users == {"estimators/_sklearn.py"}


def test_estimators_hold_no_network_and_objectives_no_table():
    for path in modules():
        names = set(imports(path))
        if room(path) in ("objectives", "model", "divergences", "likelihoods", "networks"):
            assert not any(name.startswith("sklearn") for name in names), path


def test_import_loads_nothing_optional():
    # torch or scikit-learn may load tqdm or pandas themselves; single cell and plots they do not.
    code = (
        "import sys, torch, sklearn.mixture, sklearn.preprocessing; without_us = set(sys.modules)\n"
        "import skhebae; print(*set(sys.modules) - without_us)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    ours = {name.split(".")[0] for name in loaded}
    assert not ours & OPTIONAL
    assert ours <= {"skhebae", "safetensors", *sys.stdlib_module_names}
