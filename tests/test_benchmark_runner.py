"""Processes of the benchmarks: what they report, and what a run survives; results and pages."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from benchmarks import pages, runner
from benchmarks.results import Results

JOBS = """
import os, sys, time

def works(spec, report):
    report("first", {"half": True})
    return {**spec, "variables": dict(os.environ)}

def raises(spec, report):
    report("second", {"kept": 1})
    raise ArithmeticError("two\\nlines")

def dies(spec, report):
    report("second", {"kept": 1})
    sys.stderr.write("out of memory\\n\\n")
    os._exit(7)

def hangs(spec, report):
    report("second", {"kept": 1})
    time.sleep(600)
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Run a function of `JOBS` in processes of its own."""
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def start(name, specs=({},), **how):
        folder = tmp_path / name
        folder.mkdir()
        return runner.run(f"jobs:{name}", specs, folder, threads=3, **how)

    return start


def test_rows_come_back_in_the_order_of_specifications(jobs, tmp_path):
    rows = jobs("works", [{"rank": 0}, {"rank": 1}])
    assert [row["rank"] for row in rows] == [0, 1]
    assert rows[1]["folder"] == str(tmp_path / "works" / "1")
    assert runner.result(rows) == rows[0]


def test_a_process_has_its_threads_before_imports(jobs):
    (row,) = jobs("works")
    for library in ("OMP", "MKL", "OPENBLAS", "NUMBA"):
        assert row["variables"][f"{library}_NUM_THREADS"] == "3"
    assert Path(row["variables"]["PYTHONPATH"].split(os.pathsep)[0]) == runner.ROOT
    assert row["variables"]["CUDA_VISIBLE_DEVICES"] == ""


def test_an_exception_is_the_error_of_its_stage(jobs):
    (row,) = jobs("raises")
    assert row == {"kept": 1, "error": "second: ArithmeticError: two lines"}
    with pytest.raises(RuntimeError, match="the process failed: second: Arith"):
        runner.result([{}, row])


def test_a_crash_is_an_error_with_its_last_line(jobs):
    (row,) = jobs("dies")
    assert row == {"kept": 1, "error": "second: ended with code 7: out of memory"}


def test_a_limit_of_a_stage_keeps_the_rest(jobs):
    (row,) = jobs("hangs", limits={"second": 0.01})
    assert row == {"kept": 1, "error": "second: no end after 0.01 s"}


def test_an_optional_stage_may_fail(jobs):
    (row,) = jobs("hangs", limits={"second": 0.01}, optional=("second",))
    assert row == {"kept": 1, "errors": {"second": "no end after 0.01 s"}}


def test_a_process_that_never_reports_fails_at_its_start(tmp_path):
    process = runner.start([sys.executable, "-S", "-c", "raise SystemExit(7)"], tmp_path, 1)
    row = runner.finish(process, tmp_path, {})
    assert row == {"error": "start: ended with code 7: no output"}


def test_importing_the_runner_imports_no_package(tmp_path):
    code = (
        "import sys, benchmarks.runner, pathlib; print(*sys.modules, file=open('modules.txt', 'w'))"
    )
    process = runner.start(
        [sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r}); {code}"], tmp_path, 1
    )
    process.wait()
    modules = (tmp_path / "modules.txt").read_text().split()
    assert "json" in modules
    assert not {"numpy", "torch", "sklearn"} & set(modules)


def test_results_keep_what_is_there_and_replace_what_is_newer(tmp_path, capsys):
    path = tmp_path / "new" / "some.json"
    results = Results(path, ("data", "seed"), threads=7)
    results.add({"data": "a", "seed": 0, "version": 1, "metrics": {}, "seconds": 1.23456})
    results.add({"data": "a", "seed": 1, "version": 1})
    assert capsys.readouterr().out.splitlines()[0].endswith("'version': 1, 'seconds': 1.2346}")
    again = Results(path, ("data", "seed"), resume=True)
    assert again.has(data="a", seed=1)
    assert not again.has(data="a", seed=1, version=2)
    again.add({"data": "a", "seed": 0, "version": 2})
    assert [row["version"] for row in again.rows] == [2, 1]
    document = json.loads(path.read_text())
    assert document["rows"] == again.rows
    assert {"processor", "torch", "skhebae"} <= document["environment"].keys()
    assert Results(path).rows == []


def test_pages_keep_what_is_written_by_hand(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a -->\nold\n<!-- /a -->\nbetween\n<!-- b --><!-- /b -->\nafter\n")
    pages.fill(page, a=["new", "lines"], b=["more"])
    expected = (
        "before\n<!-- a -->\nnew\nlines\n<!-- /a -->\nbetween\n<!-- b -->\nmore\n<!-- /b -->\n"
    )
    assert page.read_text() == expected + "after\n"
    with pytest.raises(ValueError, match=r"page.md has no part between <!-- c -->"):
        pages.fill(page, c=[])
    pages.fill(tmp_path / "new.md", a=["made"])
    assert "<!-- a -->\nmade\n<!-- /a -->" in (tmp_path / "new.md").read_text()


def test_provenance_names_machine_and_seeds():
    (_, line) = pages.made_by("paper", {"cores": 2}, [{"seed": 1}, {"seed": 0}, {"seed": None}])
    assert (
        line
        == "Run `python -m benchmarks paper` to repeat this. Measured with cores 2, seeds 0, 1."
    )


def test_table_marks_the_best_and_averages_seeds():
    rows = [
        {"method": method, "seed": seed, "knn_accuracy": value, "fit_seconds": seconds}
        for method, seed, value, seconds in (
            ("A", 0, 0.5, 1.0),
            ("A", 1, 0.7, 3.0),
            ("B", 0, 0.5, 4.0),
        )
    ]
    columns = (
        ("k-NN", pages.number("knn_accuracy"), "{:.3f}", True),
        ("fit s", pages.number("fit_seconds"), "{:.1f}", False),
        ("missing", pages.number("none"), "{:.1f}", False),
    )
    lines = pages.table_of_methods(rows, columns)
    assert lines[0] == "| method | seeds | k-NN | fit s |"
    assert lines[2] == "| A | 2 | **0.600 ± 0.141** | **2.0 ± 1.4** |"
    assert lines[3] == "| B | 1 | 0.500 | 4.0 |"
    assert pages.valid({"value": 1.0, "valid": False}) is pages.valid(None) is None
