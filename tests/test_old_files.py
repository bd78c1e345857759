"""Model files of earlier versions answer as they did, and earlier versions read ours."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import skhebae
from skhebae import HEBAETransformer, NoveltyDetector
from skhebae.exceptions import ModelFileError
from skhebae.files import read_document, write_document
from skhebae.objectives import VAEObjective
from tests.old_files import FOLDERS, answers_of, unpack_table

EXPECTED = {
    (folder.name, name): entry
    for folder in FOLDERS
    for name, entry in json.loads((folder / "expected.json").read_text()).items()
}

#: The last commit of version 0.1.0.
LAST_OF_0_1 = "79f9298accd9d33491775c3bee16781ae20d5610"

#: Networks and their derivatives are computed in single precision, whose relative error is 6e-8.
#: Processors and releases of torch sum in different orders, which makes it about 1e-6 in a code
#: and ten times that in a score, a sum over features divided by small noise variances. What a
#: change of meaning alters, it alters by more than 1e-4.
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


def load(folder, name, entry):
    path = Path(__file__).parent / folder / f"{name}.skhebae"
    factories = {}
    if name == "custom":
        factories["objective"] = VAEObjective
    if name == "own-encoder":
        (script,) = path.parent.glob("make_*.py")
        spec = importlib.util.spec_from_file_location(script.stem, script)
        make = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(make)
        factories["encoder"] = make.own_encoder
    return getattr(skhebae, entry["class"]).load(path, **factories)


def assert_close_frames(found, expected):
    assert found.dtypes.tolist() == expected.dtypes.tolist()
    for name, column in found.items():
        if column.dtype.kind == "f":
            assert_allclose(column, expected[name], **CLOSE, err_msg=name)
        else:
            pd.testing.assert_series_equal(column, expected[name], check_index=False)


@pytest.mark.parametrize(("folder", "name"), EXPECTED)
def test_files_answer_as_they_did(folder, name):
    entry = EXPECTED[folder, name]
    model = load(folder, name, entry)
    answers = answers_of(model, unpack_table(entry["rows"]), entry["sides"])
    assert answers.keys() == entry["answers"].keys()
    for method, expected in entry["answers"].items():
        found = answers[method]
        if "array" not in expected:
            assert_close_frames(found, unpack_table(expected))
        elif method in ("predict", "p_values"):  # ranks
            assert_array_equal(found, expected["array"])
        else:
            assert_allclose(found, expected["array"], **CLOSE, err_msg=method)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "name"), [key for key in EXPECTED if key[1] not in ("custom", "own-encoder")]
)
def test_files_can_be_saved_again(tmp_path, folder, name):
    """What is read from an old file and saved by this version is the same model."""
    entry = EXPECTED[folder, name]
    rows, sides = unpack_table(entry["rows"]), entry["sides"]
    model = load(folder, name, entry)
    model.save(tmp_path / "again")
    again = type(model).load(tmp_path / "again")
    found_again = answers_of(again, rows, sides)
    for method, answer in answers_of(model, rows, sides).items():
        found = found_again[method]
        if isinstance(answer, pd.DataFrame):
            pd.testing.assert_frame_equal(found, answer)
        else:
            assert_array_equal(found, answer)


def test_fitting_goes_on_from_an_old_file():
    folder, name = "files_of_0_1", "hebae"
    model = load(folder, name, EXPECTED[folder, name])
    rows = unpack_table(EXPECTED[folder, name]["rows"])
    before = model.fitted_.encode(rows, None)
    model.partial_fit(rows)
    assert model.n_iter_ == 7
    assert np.abs(model.transform(rows) - before).max() > 1e-4


def test_a_newer_format_is_refused_by_name(tmp_path):
    """A file whose format version is raised says so, and does not look damaged."""
    document = read_document(Path(__file__).parent / "files_of_0_1" / "hebae.skhebae")
    assert document["version"] == 2
    write_document(tmp_path / "newer", {**document, "version": 3})
    with pytest.raises(ModelFileError, match=r"format version 3, .* reads 1 to 2\. Upgrade"):
        HEBAETransformer.load(tmp_path / "newer")


@pytest.fixture(scope="module")
def package_0_1(tmp_path_factory):
    """Folder with the package as it was in version 0.1.0, from the history of the repository."""
    root = Path(__file__).parents[1]
    git = ("git", "-C", str(root))
    try:
        archive = subprocess.run(
            [*git, "archive", LAST_OF_0_1, "skhebae"], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("the repository's history is not here, and with it version 0.1.0")
    folder = tmp_path_factory.mktemp("package")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(folder, filter="data")
    return folder


@pytest.mark.slow
def test_version_0_1_reads_files_of_today(tmp_path, package_0_1, table, brief):
    """Both write format version 2; whoever raises it ends this test."""
    HEBAETransformer(**brief).fit(table).save(tmp_path / "HEBAETransformer")
    NoveltyDetector(HEBAETransformer(**brief), random_state=0).fit(table).save(
        tmp_path / "NoveltyDetector"
    )
    np.save(tmp_path / "rows.npy", table[:5])
    code = (
        "import sys, numpy as np, skhebae\n"
        "print(skhebae.__version__)\n"
        "X = np.load('rows.npy')\n"
        "for name in ('HEBAETransformer', 'NoveltyDetector'):\n"
        "    np.save(name + '.npy', getattr(skhebae, name).load(name).score_samples(X))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(package_0_1)}
    ran = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout.split() == ["0.1.0"]
    for name in ("HEBAETransformer", "NoveltyDetector"):
        model = getattr(skhebae, name).load(tmp_path / name)
        assert_allclose(np.load(tmp_path / f"{name}.npy"), model.score_samples(table[:5]), **CLOSE)
