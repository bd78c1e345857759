# `make demo` and `make test` need only Python >= 3.11, make and a package registry.
PYTHON ?= python3
BIN := .venv/bin
# The thread count every command here is run with; two cores is what CI has.
export OMP_NUM_THREADS ?= 2

# Two workers of one thread each. A worker done with its tests takes over some of the other's.
TEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: demo test test-slow test-all test-busy test-oldest lint bench speed docs clean
.DEFAULT_GOAL := demo

# Pinned by constraints.txt. torch goes first: an unpinned one drags in gigabytes.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[test]'
	touch $@

# The oldest releases that pyproject.toml allows, in an environment of their own. On Linux torch
# then comes with CUDA: 3 GB to download. To renew the file, with no release later than a month
# after the latest of those:
#   uv pip compile pyproject.toml --extra test --resolution lowest-direct --python-version 3.11 \
#     --exclude-newer 2025-01-15 --no-header --no-annotate --no-emit-package skhebae \
#     --output-file constraints-oldest.txt
.venv-oldest/installed: pyproject.toml constraints-oldest.txt
	test -x .venv-oldest/bin/python || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints-oldest.txt --editable '.[test]'
	touch $@

demo: .venv/installed  ## the main job on data that ships with the dependencies
	$(BIN)/python examples/quickstart.py --output demo_output

test: .venv/installed  ## the tests for every change
	$(TEST)

test-slow: .venv/installed  ## the tests that take too long for that
	$(TEST) -m slow

test-all: .venv/installed  ## all tests, and hypothesis draws new examples
	HYPOTHESIS_PROFILE=random $(TEST) -m ""

test-busy: .venv/installed  ## `make test` beside two processes that never rest
	spinning=; trap 'kill $$spinning' EXIT; trap 'exit 130' INT TERM; \
	for i in 1 2; do while :; do :; done & spinning="$$spinning $$!"; done; \
	$(TEST)

test-oldest: .venv-oldest/installed  ## `make test` with the oldest dependencies, on Python 3.11
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -q -n 2 --dist worksteal

lint: .venv/installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed  ## rerun the benchmarks behind the tables in the docs
	for name in compare tables missing tilted tabular single-cell speed time-to-quality profile gpu scale \
	  distributed regularisation gap disentangle novelty; do \
	  $(BIN)/python -m benchmarks $$name || exit 1; done
	$(BIN)/python -m benchmarks paper --data fashion-mnist --resume
	for name in reproduction table readme; do $(BIN)/python -m benchmarks $$name || exit 1; done

speed: .venv/installed  ## our own speed, against that of the last such run
	$(BIN)/python -m pytest -q benchmarks/own --benchmark-autosave --benchmark-compare \
	  --benchmark-columns=min,median,rounds

docs: .venv/installed  ## the site with its gallery, in docs/_build/html; open index.html there
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[docs]'
	MPLBACKEND=agg $(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

clean:
	rm -rf .venv .venv-oldest .pytest_cache .mypy_cache .ruff_cache .hypothesis demo_output \
	  docs/_build docs/api docs/auto_examples
