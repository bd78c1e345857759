"""How many of scikit-learn's estimator checks a method passes with its defaults.

``python -m benchmarks.conformance FOLDER`` is a process of ``compare``, as `benchmarks.cell` is.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

from sklearn.utils import TransformerTags
from sklearn.utils.estimator_checks import estimator_checks_generator

from benchmarks.cell import described, limit_threads, write_json
from benchmarks.methods import METHODS


def count(estimator: Any, report: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Count the checks of scikit-learn's generator that an estimator passes.

    The generator stops at a transformer whose tags do not say that it is one. That is
    `refused`, and the count is then made with tags that say so.
    """
    counted: dict[str, Any] = {"passed": 0, "failed": 0, "skipped": 0, "failures": []}
    refused = None
    try:
        checks = list(estimator_checks_generator(estimator, mark=None))
    except RuntimeError as error:
        refused = described(error)
        tag_as_transformer(type(estimator))
        checks = list(estimator_checks_generator(estimator, mark=None))
    for instance, check in checks:
        report(counted)
        try:
            check(instance)
        except SkipTest:
            counted["skipped"] += 1
        except Exception:
            counted["failed"] += 1
            counted["failures"].append(getattr(check, "func", check).__name__)
        else:
            counted["passed"] += 1
    return counted | {"refused": refused}


def tag_as_transformer(cls: Any) -> None:
    """Let a class, not a subclass that could not be pickled, say what it is."""
    of_class = cls.__sklearn_tags__

    def tags(self: Any) -> Any:
        told = of_class(self)
        told.transformer_tags = TransformerTags()
        return told

    cls.__sklearn_tags__ = tags


def run(spec: dict[str, Any], folder: Path) -> None:
    """Count the checks of one method with its defaults."""

    def report(counted: dict[str, Any], stage: str | None = "conformance") -> None:
        write_json(folder / "document.json", {"stage": stage, "row": counted})

    row: dict[str, Any] = {}
    report(row, "load")
    start = time.perf_counter()
    try:
        reducer = METHODS[spec["method"]](2, "gaussian", 0)
        reducer.load()
        limit_threads(spec["threads"])
        estimator = reducer.estimator()
        row = {"estimator": estimator is not None}
        if estimator is not None:
            row |= count(estimator, lambda counted: report(row | counted))
    except Exception as error:
        row["error"] = described(error)
    row["seconds"] = time.perf_counter() - start
    report(row, None)


def main() -> None:
    """Count for the method that the folder's specification names."""
    folder = Path(sys.argv[1])
    run(json.loads((folder / "spec.json").read_text()), folder)


if __name__ == "__main__":
    main()
