"""Every command in docs/guide/command-line.md runs, and says what the page shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from skhebae.cli import main
from tests.cli_tables import write_all

pytest.importorskip("pandas")
pytest.importorskip("anndata")
pytest.importorskip("pyarrow")

PAGE = Path(__file__).parents[1] / "docs" / "guide" / "command-line.md"

#: A fit of a moment, whose numbers are not those of the page.
BRIEF = ["--epochs", "2", "--set", "hidden_layer_sizes=(4,)"]


def commands():
    """Return the commands of the page, each with the lines that it writes."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", PAGE.read_text(), flags=re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def without_numbers(line):
    """Return a line of CSV as its number of fields, anything else as it is."""
    return line if line.startswith("skhebae:") else line.count(",")


@pytest.mark.slow
def test_commands_of_the_page(tmp_path, monkeypatch, capsys):
    write_all(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = commands()
    assert {shlex.split(line)[1] for line, _ in done} == {
        "fit", "transform", "impute", "sample", "score", "denoise", "card"
    }  # fmt: skip
    for line, expected in done:
        program, *arguments = shlex.split(line)
        assert program == "skhebae"
        fails = any("error:" in text for text in expected)
        brief = BRIEF if arguments[0] == "fit" else []
        status = main([*arguments, *brief])
        assert (status != 0) == fails, line
        said = capsys.readouterr()
        lines = [t for t in said.err.splitlines() if "warning: training stopped" not in t]
        lines += said.out.splitlines()
        assert list(map(without_numbers, lines)) == list(map(without_numbers, expected)), line
        if expected and said.out:
            assert said.out.splitlines()[0] == expected[0]


@pytest.mark.parametrize("text", ["patients.csv", "codes.csv", "scores.csv", "strange.csv"])
def test_tables_of_the_page_have_their_columns(text):
    headers = {
        "patients.csv": "patient,age,sex,ward,pressure,seen,smoker\n",
        "codes.csv": "patient,hebaetransformer0,hebaetransformer1\n",
        "scores.csv": "patient,score\n",
        "strange.csv": "patient,score,p_value,is_novel\n",
    }
    assert f"```text\n{headers[text]}P000," in PAGE.read_text()
