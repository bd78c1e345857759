"""Install a wheel into an empty environment, without the repository, and use it.

    python -m build
    python tests/smoke.py dist/skhebae-*.whl --constraint constraints.txt --extras

Nothing of this file is imported there: each check is a program of its own, run in isolated mode
in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import venv
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import NamedTuple
from zipfile import Path as ZipPath

FIT = """
import json, sys
import skhebae
assert "site-packages" in skhebae.__file__, skhebae.__file__
optional = {"anndata", "matplotlib", "pandas", "polars", "pyarrow", "scanpy"} & set(sys.modules)
assert not optional, f"import skhebae imports {sorted(optional)}"

from sklearn.datasets import load_digits
from skhebae import HEBAETransformer
X = load_digits().data / 16
model = HEBAETransformer(10, random_state=0).fit(X[:1200])
error = float(((model.inverse_transform(model.transform(X[1200:])) - X[1200:]) ** 2).mean())
assert error < 0.015, error  # PCA(10): 0.020
model.save("digits.skhebae")
with open("answers.json", "w") as file:
    json.dump([model.transform(X[:5]).tolist(), model.sample(3, random_state=0).tolist()], file)
"""

LOAD = """
import json
from sklearn.datasets import load_digits
from skhebae import HEBAETransformer
model = HEBAETransformer.load("digits.skhebae")
with open("answers.json") as file:
    codes, sample = json.load(file)
assert model.transform(load_digits().data[:5] / 16).tolist() == codes
assert model.sample(3, random_state=0).tolist() == sample
"""

TABLE = """
import csv, math, sys
from pathlib import Path
with open("table.csv", "w", newline="") as file:
    rows = ([i, math.sin(i), i * i % 17, "ab"[i % 2]] for i in range(80))
    csv.writer(file).writerows([["number", "wave", "rest", "kind"], *rows])
import subprocess
script = str(Path(sys.executable).with_name("skhebae"))
def run(*arguments):
    ran = subprocess.run([script, *arguments], capture_output=True, text=True)
    sys.stderr.write(ran.stderr)
    if ran.returncode:
        sys.exit(ran.returncode)
run("--version")
run("fit", "table.csv", "-o", "table.skhebae", "--components", "2", "--epochs", "3")
run("transform", "table.skhebae", "table.csv", "-o", "codes.csv")
assert len(Path("codes.csv").read_text().splitlines()) == 81
"""

PICTURE = """
from skhebae import HEBAETransformer
from skhebae.plotting import LatentDisplay
model = HEBAETransformer.load("digits.skhebae")
from sklearn.datasets import load_digits
LatentDisplay.from_estimator(model, load_digits().data[:200] / 16).figure_.savefig("latent.png")
"""

CELLS = """
import numpy as np
import skhebae
hebae = skhebae.tl.hebae
try:
    import anndata
except ImportError:
    anndata = None
X = np.random.default_rng(0).poisson(3.0, (80, 12)).astype(np.float32)
adata = X if anndata is None else anndata.AnnData(X)
hebae(adata, 2, max_iter="auto", random_state=0)
assert adata.obsm["X_hebae"].shape == (80, 2)
import scanpy
scanpy.pp.neighbors(adata, use_rep="X_hebae")
"""

MEASURES = """
import numpy as np
import prdc, pytest_benchmark, torchmetrics, umap
X = np.random.default_rng(0).normal(size=(60, 4))
assert prdc.compute_prdc(X, X, nearest_k=3)["precision"] == 1.0
assert umap.UMAP(n_neighbors=5, n_epochs=5).fit_transform(X).shape == (60, 2)
"""

PAGES = """
from pathlib import Path
import statsmodels.api
Path("pages").mkdir()
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc", "myst_parser"]
extensions += ["sphinx_design", "sphinx_copybutton", "sphinx_gallery.gen_gallery"]
Path("gallery").mkdir()
Path("gallery/README.rst").write_text("Gallery\\n=======\\n")
Path("gallery/plot_line.py").write_text(
    '\"\"\"\\nA line\\n======\\n\"\"\"\\nimport matplotlib.pyplot as plt\\nplt.plot([1, 2])\\n')
Path("pages/conf.py").write_text(
    f"extensions = {extensions}\\nhtml_theme = 'pydata_sphinx_theme'\\n"
    "myst_enable_extensions = ['dollarmath', 'amsmath', 'colon_fence']\\n"
    "sphinx_gallery_conf = {'examples_dirs': '../gallery', 'gallery_dirs': 'auto'}\\n"
    "numpydoc_show_class_members = False\\n")
Path("pages/index.md").write_text(
    "# Page\\n\\n$x^2$\\n\\n::::{grid}\\n:::{grid-item-card} Card\\ntext\\n:::\\n::::\\n\\n"
    "```{eval-rst}\\n.. autoclass:: skhebae.HEBAETransformer\\n"
    ".. toctree::\\n\\n   auto/index\\n```\\n")
from sphinx.cmd.build import main
assert main(["-q", "pages", "html"]) == 0
text = Path("html/index.html").read_text()
assert "HEBAETransformer" in text and "sd-card" in text
assert Path("html/auto/plot_line.html").exists()
"""

TOOLS = """
import build, dask.array, dcor, hypothesis, ipykernel, mypy, nbclient, numpydoc, pandas, polars
import pyarrow, pytest, selenium, skops, xarray, xdist
import subprocess, sys
subprocess.run([sys.executable, "-m", "ruff", "--version"], check=True)
"""


class Extra(NamedTuple):
    """What an extra is for.

    Attributes
    ----------
    works : str
        Program that needs it.
    names_itself : bool
        Whether that program, run without it, ends in a message that names the extra.
    """

    works: str
    names_itself: bool = False


#: The extras in the order of their installation, each after those that it contains.
EXTRAS = {
    "cli": Extra(TABLE, True),
    "plot": Extra(PICTURE, True),
    "anndata": Extra(CELLS, True),
    "docs": Extra(PAGES),
    "bench": Extra(MEASURES),
    "test": Extra(TOOLS),
    "all": Extra(LOAD),
}


class Environment:
    """An empty environment with a wheel.

    Parameters
    ----------
    folder : Path
        Where it is made, and where programs are run.
    wheel, constraint : Path
    """

    def __init__(self, folder: Path, wheel: Path, constraint: Path | None) -> None:
        self.folder, self.wheel, self.constraint = folder, wheel, constraint
        venv.create(folder / "environment", with_pip=True)
        self.python = folder / "environment" / "bin" / "python"

    def pip(self, *arguments: str) -> None:
        """Run pip."""
        self.call("-m", "pip", *arguments)

    def install(self, extra: str = "") -> None:
        """Install the wheel, with an extra."""
        pins = [] if self.constraint is None else ["--constraint", str(self.constraint)]
        name = f"{self.wheel}[{extra}]" if extra else str(self.wheel)
        self.pip("install", "--quiet", *pins, name)
        self.pip("check")

    def call(self, *arguments: str, fails: bool = False) -> str:
        """Run Python, isolated from the folder and from variables; return its standard error.

        Raises
        ------
        RuntimeError
            With what the program wrote, if it fails, or should and does not.
        """
        variables = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        ran = subprocess.run(
            [str(self.python), "-I", *arguments],
            cwd=self.folder,
            env=variables,
            capture_output=True,
            text=True,
        )
        if fails != bool(ran.returncode):
            what = "did not fail" if fails else "failed"
            raise RuntimeError(f"{arguments[-1]} {what}\n{ran.stdout}\n{ran.stderr}")
        return ran.stderr

    def check_core(self) -> None:
        """Fit, save, and load in another process."""
        self.call("-c", FIT)
        self.call("-c", LOAD)

    def check_extra(self, name: str) -> None:
        """Install an extra and use what it is for."""
        extra = EXTRAS[name]
        if extra.names_itself:
            message = self.call("-c", extra.works, fails=True)
            if f"skhebae[{name}]" not in message:
                raise RuntimeError(
                    f"without the extra {name}, the message does not name it:\n{message}"
                )
        self.install(name)
        self.call("-c", extra.works)


def extras_of(wheel: Path) -> list[str]:
    """Return the extras that a wheel declares, in the order of `EXTRAS`."""
    (info,) = (part for part in ZipPath(wheel).iterdir() if part.name.endswith(".dist-info"))
    declared = PathDistribution(info).metadata.get_all("Provides-Extra") or []
    return sorted(declared, key=[*EXTRAS, *declared].index)


def main() -> None:
    """Run all checks, and print how long each takes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--constraint", type=Path, help="file of pins for pip")
    parser.add_argument("--extras", action="store_true", help="check each extra too")
    given = parser.parse_args()
    constraint = given.constraint.resolve() if given.constraint else None
    with tempfile.TemporaryDirectory() as folder:
        environment = Environment(Path(folder), given.wheel.resolve(), constraint)
        steps = [("install", environment.install, ()), ("core", environment.check_core, ())]
        names = extras_of(given.wheel) if given.extras else []
        steps += [(name, environment.check_extra, (name,)) for name in names]
        for name, step, arguments in steps:
            start = time.perf_counter()
            step(*arguments)
            print(f"{name:10} passed  {time.perf_counter() - start:6.1f} s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
