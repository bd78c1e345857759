"""What is released: distributions, their metadata, extras, types, and what names the version."""

from __future__ import annotations

import datetime as dt
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
from importlib.metadata import PathDistribution, version
from pathlib import Path
from zipfile import Path as ZipPath
from zipfile import ZipFile

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import skhebae
from tests.smoke import EXTRAS, Environment, extras_of

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OPTIONAL = PROJECT["optional-dependencies"]
RECIPE = yaml.safe_load((ROOT / "conda" / "recipe.yaml").read_text())

#: Names that conda-forge has for packages of other names on PyPI.
CONDA_NAMES = {"torch": "pytorch", "matplotlib": "matplotlib-base"}


def read_readme():
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    return setup.describe, (ROOT / "README.md").read_text()


def as_conda(requirement):
    parsed = Requirement(requirement)
    return f"{CONDA_NAMES.get(parsed.name, parsed.name)} {parsed.specifier}"


# What says the same in several places


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    newest = re.search(
        r"(?m)^## \[(\d+\.\d+\.\d+)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text()
    )
    assert citation["version"] == newest[1] == RECIPE["context"]["version"]
    assert citation["date-released"] == dt.date.fromisoformat(newest[2])
    # After a release the package may be ahead, as in 0.3.0.dev0.
    assert Version(skhebae.__version__) >= Version(newest[1])
    assert citation["license"] == PROJECT["license"] == RECIPE["about"]["license"]
    assert RECIPE["about"]["summary"] == PROJECT["description"]
    assert (ROOT / RECIPE["about"]["license_file"]).exists()


def test_classifiers_name_what_the_suite_runs_on():
    pythons = [
        found[1]
        for name in PROJECT["classifiers"]
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", name))
    ]
    oldest = PROJECT["requires-python"].removeprefix(">=")
    assert oldest in pythons
    assert RECIPE["context"]["python_min"] == oldest
    assert [name for name in PROJECT["classifiers"] if name.startswith("Operating")] == [
        "Operating System :: POSIX :: Linux"
    ]


def test_conda_recipe_asks_for_what_pyproject_does():
    run = RECIPE["requirements"]["run"]
    assert run[0] == "python >=${{ python_min }}"
    assert sorted(run[1:]) == sorted(map(as_conda, PROJECT["dependencies"]))
    optional = {
        as_conda(item)
        for extra in ("anndata", "cli", "plot")
        for item in OPTIONAL.get(extra, [])
        if not item.startswith("skhebae")
    }
    assert optional <= set(RECIPE["requirements"]["run_constraints"])
    scripts = {f"{name} = {where}" for name, where in PROJECT.get("scripts", {}).items()}
    assert scripts <= set(RECIPE["build"]["python"]["entry_points"])
    built_by = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert set(map(as_conda, built_by)) <= set(RECIPE["requirements"]["host"])


def test_conda_recipe_renders():
    rattler_build = pytest.importorskip("rattler_build", reason="py-rattler-build is not installed")
    recipe = rattler_build.Stage0Recipe.from_file(str(ROOT / "conda" / "recipe.yaml"))
    (variant,) = recipe.render(rattler_build.VariantConfig())
    assert variant.recipe.package.name == "skhebae"
    assert str(variant.recipe.package.version) == RECIPE["context"]["version"]
    python = f"python >={RECIPE['context']['python_min']}"
    assert str(variant.recipe.requirements.run[0]) == python


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-oldest.txt"])
def test_pins_cover_what_is_declared(name):
    lines = (ROOT / name).read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    pins = {canonicalize_name(package): pin for package, pin in pins.items()}
    # `make test-oldest` installs the extra `test`, and thus all but the documentation.
    extras = OPTIONAL if name == "constraints.txt" else {**OPTIONAL, "docs": []}
    declared = [*PROJECT["dependencies"], *(item for extra in extras.values() for item in extra)]
    for requirement in map(Requirement, declared):
        package = canonicalize_name(requirement.name)
        if package != "skhebae":
            assert requirement.specifier.contains(pins[package]), requirement


def test_every_extra_is_checked_and_in_all():
    assert set(OPTIONAL) <= set(EXTRAS)
    (everything,) = map(Requirement, OPTIONAL["all"])
    assert set(OPTIONAL) - {"all"} <= everything.extras


def test_long_description_has_no_links_into_the_repository():
    describe, readme = read_readme()
    text = describe(readme)
    prose = re.sub(r"(?ms)^```.*?^```$", "", text)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose) + re.findall(
        r"<[a-z]+\b[^>]*(?:href|src|srcset)=\"([^\"]+)", prose
    )
    assert all(target.startswith("https://") for target in targets)
    for code in re.findall(r"(?ms)^```.*?^```$", readme):
        assert code in text
    example = "See [the *guide*](docs/guide.md) and [us](https://x.org/a).\n\n![a plot](b.png)\n"
    assert describe(example) == "See the *guide* and [us](https://x.org/a).\n\n"
    assert describe("[![badge](https://x.org/b.svg)](docs/c.md)") == (
        "![badge](https://x.org/b.svg)"
    )
    assert describe(
        '<img src="a.png"> <a href="docs/b.md">b</a> <a href="https://x.org">x</a>'
    ) == (' b <a href="https://x.org">x</a>')
    block = "```\nrows[0](x)\n```"
    assert describe(f"[a](b)\n{block}\n") == f"a\n{block}\n"


# Distributions


@pytest.fixture(scope="module")
def distributions(tmp_path_factory):
    """Sdist and wheel, built from a copy of the repository."""
    folder = tmp_path_factory.mktemp("release")
    hidden = shutil.ignore_patterns(
        ".git", ".venv*", ".*_cache", ".hypothesis", ".benchmarks", "__pycache__", "*.egg-info",
        "build", "dist", "cache", "_build", "demo_output",
    )  # fmt: skip
    shutil.copytree(ROOT, folder / "source", ignore=hidden)
    # The registry is not needed where what builds is here, in a release that knows SPDX licences.
    isolation = ["--no-isolation"] if Version(version("setuptools")) >= Version("77") else []
    command = [sys.executable, "-m", "build", *isolation, "--outdir", str(folder / "dist")]
    ran = subprocess.run(
        [*command, str(folder / "source")], capture_output=True, text=True, cwd=folder
    )
    if ran.returncode and isolation == []:
        pytest.skip(f"cannot build without a registry: {ran.stdout[-500:]}{ran.stderr[-500:]}")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (sdist,) = (folder / "dist").glob("*.tar.gz")
    (wheel,) = (folder / "dist").glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_wheel_holds_the_package_and_nothing_else(distributions):
    _, wheel = distributions
    names = ZipFile(wheel).namelist()
    info = f"skhebae-{skhebae.__version__}.dist-info/"
    ours = {str(path.relative_to(ROOT)) for path in (ROOT / "skhebae").rglob("*.py")}
    assert {name for name in names if not name.startswith(info)} == ours | {"skhebae/py.typed"}
    assert f"{info}licenses/LICENSE" in names
    metadata = PathDistribution(ZipPath(wheel, info)).metadata
    assert metadata["License-Expression"] == "BSD-3-Clause"
    assert metadata["Requires-Python"] == PROJECT["requires-python"]
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert metadata.get_payload().startswith("# skhebae")
    assert extras_of(wheel) == [name for name in EXTRAS if name in OPTIONAL]


@pytest.mark.slow
def test_sdist_builds_and_tests(distributions, tmp_path):
    sdist, _ = distributions
    with tarfile.open(sdist) as files:
        files.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    tracked = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files"], capture_output=True, text=True
    ).stdout.split("\n")
    # Of what the repository holds, the sdist lacks what only a checkout has a use for.
    lacking = {name for name in tracked if name and not (folder / name).exists()}
    lacking = {name for name in lacking if (ROOT / name).exists()}
    assert lacking <= {".gitignore", ".pre-commit-config.yaml"}
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    tests = ["tests/test_old_files.py", "tests/test_finite_sample.py"]
    ran = subprocess.run(
        [*command, *tests], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout


@pytest.mark.slow
def test_package_index_would_take_it(distributions):
    pytest.importorskip("twine", reason="twine is not installed")
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, distributions)]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout


# The wheel in an empty environment


@pytest.mark.slow
def test_wheel_works_in_an_empty_environment(distributions, tmp_path):
    """First without extras, then with one after the other.

    What an extra is for fails without it, with a message that names it. One test, since two could
    run in two workers, each with an installation of its own.
    """
    environment = Environment(tmp_path, distributions[1], ROOT / "constraints.txt")
    try:
        environment.pip("download", "--quiet", "--no-deps", "--dest", "probe", "threadpoolctl")
    except RuntimeError as error:
        pytest.skip(f"pip reaches no registry: {str(error)[-300:]}")
    environment.install()
    environment.check_core()
    for name in EXTRAS:
        if name in OPTIONAL:
            environment.check_extra(name)


# Types, as somebody sees them who installs the package

USER = """
from typing import Any, assert_type

import numpy as np
from numpy.typing import NDArray

import skhebae
from skhebae import HEBAEImputer, HEBAETransformer, NoveltyDetector, VAETransformer
from skhebae.diagnostics import LatentReport, latent_report

X: NDArray[np.float64] = np.ones((20, 3))
model = HEBAETransformer(2, hidden_layer_sizes=(4,), reg_weight=2.0, max_iter="auto")
assert_type(model, HEBAETransformer)
assert_type(model.fit(X, batch=["a"] * 20), HEBAETransformer)
assert_type(model.transform(X), NDArray[np.float32])
assert_type(model.fit_transform(X), NDArray[np.float32])
assert_type(model.score_samples(X), NDArray[np.float32])
assert_type(model.score(X), float)
assert_type(model.inverse_transform(model.transform(X)), Any)  # a frame for frames
assert_type(model.sample(3, random_state=0), Any)
assert_type(model.n_components_, int)
assert_type(model.history_, dict[str, list[float]])
model.save("model")
assert_type(VAETransformer.load("model"), VAETransformer)
assert_type(latent_report(model, X), LatentReport)
detector = NoveltyDetector(VAETransformer(beta=0.5), alpha=0.1)
assert_type(detector.fit(X), NoveltyDetector)
assert_type(detector.p_values(X), NDArray[np.float64])
assert_type(HEBAEImputer(model).fit(X), HEBAEImputer)
assert_type(skhebae.__version__, str)
"""

MISUSES = {
    'HEBAETransformer(n_components="ten")': "arg-type",
    "HEBAETransformer(2, (4,))": "call-arg",  # other parameters go by name
    "HEBAETransformer(hidden_layers=(4,))": "call-arg",
    "VAETransformer(reg_weight=1.0)": "call-arg",
    "HEBAETransformer().sample(latent='prio')": "arg-type",
    "HEBAETransformer().fit()": "call-arg",
    "HEBAETransformer().transfrom([[1.0]])": "attr-defined",
    "NoveltyDetector(alpha='small')": "arg-type",
}


@pytest.fixture(scope="module")
def run_mypy(distributions, tmp_path_factory):
    """Return a function that runs mypy --strict on a text, with the wheel and without our settings.

    The wheel is in an environment of its own, since mypy looks for `py.typed` where packages are
    installed; what the package depends on is that of this environment.
    """
    pytest.importorskip("mypy")
    folder = tmp_path_factory.mktemp("types")
    venv.create(folder / "environment")
    (packages,) = (folder / "environment").glob("lib/python*/site-packages")
    ZipFile(distributions[1]).extractall(packages)
    (packages / "dependencies.pth").write_text(f"{Path(pytest.__file__).parents[1]}\n")

    def run(text):
        (folder / "user.py").write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull]
        python = ["--python-executable", str(folder / "environment" / "bin" / "python")]
        return subprocess.run(
            [*command, *python, "user.py"], cwd=folder, capture_output=True, text=True
        ).stdout

    return run


@pytest.mark.slow
def test_public_api_has_types_outside(run_mypy):
    """One test, since the second run of mypy in a folder takes a tenth of the first."""
    assert run_mypy(USER) == "Success: no issues found in 1 source file\n"
    head = "from skhebae import HEBAETransformer, NoveltyDetector, VAETransformer\n"
    found = run_mypy(head + "\n".join(MISUSES))
    for line, code in enumerate(MISUSES.values(), 2):
        assert re.search(rf"(?m)^user\.py:{line}: error: .*\[{code}\]", found), (line, found)
    assert found.count("error:") == len(MISUSES)
