"""Each level of the package imports only from levels below it, or its own room."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "skhebae"
LEVELS = {
    "_sklearn": 0,
    "conformal": 0,
    "divergences": 0,
    "exceptions": 0,
    "files": 0,
    "markup": 0,
    "finite_sample": 0,
    "noise": 0,
    "process": 0,
    "novelty": 6,
    "quadrature": 0,
    "tilted": 0,
    "distributed": 1,
    "networks": 1,
    "prior": 1,
    "tilted_prior": 2,
    "code_map": 2,
    "linear_fill": 1,
    "data": 2,
    "information": 2,
    "likelihoods": 3,
    "model": 4,
    "objectives": 5,
    "imputation": 6,
    "posterior": 5,
    "training": 6,
    "variational": 6,
    "fitted": 7,
    "estimators": 8,
    "diagnostics": 9,
    "plotting": 10,
    "tl": 9,
    "pp": 10,
    "cli": 11,
    "__main__": 12,
}
#: Rooms that read fitted values, and have no business with their insides.
READERS = {"diagnostics", "plotting", "tl", "pp", "cli"}
#: Nobody but the likelihoods themselves asks which of them a likelihood is.
FAMILIES = {
    "BinnedLikelihood",
    "CategoricalLikelihood",
    "CircularLikelihood",
    "MixedLikelihood",
    "MixedScaling",
    "QuantileLikelihood",
    "StudentTLikelihood",
    "BernoulliLikelihood",
    "CountLikelihood",
    "CountScaling",
    "GaussianLikelihood",
    "NegativeBinomialLikelihood",
    "PoissonLikelihood",
    "ZeroInflatedNegativeBinomialLikelihood",
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
    assert users == {"_sklearn.py"}


def test_objectives_and_networks_know_no_table_and_no_estimator():
    for path in modules():
        names = set(imports(path))
        if room(path) in ("objectives", "model", "posterior", "prior", "divergences", "networks"):
            assert not any(name.startswith("sklearn") for name in names), path


def test_estimators_hold_no_tensor_mathematics():
    for path in modules():
        if room(path) == "estimators":
            used = {
                ast.unparse(node)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("torch.")
            }
            # Of torch, the type of a table that users may pass, and the device of a loaded model.
            assert used <= {"torch.Tensor", "torch.strided", "torch.bfloat16", "torch.device"}, path


def test_only_likelihoods_ask_which_likelihood_it_is():
    for path in modules():
        if room(path) != "likelihoods":
            names = {
                name
                for node in ast.walk(ast.parse(path.read_text()))
                for name in ([node.id] if isinstance(node, ast.Name) else [])
                + ([node.attr] if isinstance(node, ast.Attribute) else [])
            }
            assert not names & FAMILIES, path


def test_readers_use_public_names_only():
    for path in modules():
        if room(path) in READERS:
            private = {
                ast.unparse(node)
                for node in ast.walk(ast.parse(path.read_text()))
                if isinstance(node, ast.Attribute)
                and node.attr.startswith("_")
                and not node.attr.startswith("__")
                and ast.unparse(node.value) not in ("self", "cls", "report", "display")
            }
            assert not private, path


MISSPELT = """
from skhebae.estimators import HEBAETransformer
from skhebae.fitted import parameter, with_parameters

@with_parameters
class Mine(HEBAETransformer):
    mine: float = parameter(float, default=1.0)

    def misspelt(self) -> object:
        return self._modle, self.no_such_method(3)

Mine(3, mine=2.0, row_share=0.1, alpha=1)
Mine(3).fitted_.lattent_mean
Mine(3).fitted_.latent_mean
"""


@pytest.mark.slow
def test_a_type_checker_finds_misspelt_attributes(tmp_path):
    """scikit-learn has no types: as `Any`, its base classes would hide every mistake."""
    path = tmp_path / "misspelt.py"
    path.write_text(MISSPELT)
    command = [sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(path)]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=False)
    for name in ("_modle", "no_such_method", "alpha", "lattent_mean"):
        assert f'"{name}"' in done.stdout, done.stdout
    assert "Found 4 errors" in done.stdout, done.stdout


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
    # Of numpy, the types: torch loads the rest.
    assert ours <= {"skhebae", "safetensors", "numpy", *sys.stdlib_module_names}
