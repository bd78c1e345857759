# `make demo` and `make test` need only Python >= 3.11, make and a package registry.
PYTHON ?= python3
BIN := .venv/bin
# The thread count every command here is run with; two cores is what CI has.
export OMP_NUM_THREADS ?= 2

.PHONY: demo test test-all lint bench speed docs clean
.DEFAULT_GOAL := demo

# Pinned by constraints.txt. torch goes first: an unpinned one drags in gigabytes.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[test]'
	touch $@

demo: .venv/installed  ## the main job on data that ships with the dependencies
	$(BIN)/python examples/quickstart.py --output demo_output

test: .venv/installed  ## the test suite, as CI runs it
	$(BIN)/python -m pytest -q

test-all: .venv/installed  ## the slow tests too
	$(BIN)/python -m pytest -q -m ""

lint: .venv/installed  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/installed  ## rerun the benchmarks behind the tables in the docs
	for name in compare single-cell speed profile gpu scale distributed; do \
	  $(BIN)/python -m benchmarks $$name || exit 1; done
	$(BIN)/python -m benchmarks paper --data fashion-mnist --resume
	for name in reproduction table readme; do $(BIN)/python -m benchmarks $$name || exit 1; done

speed: .venv/installed  ## our own speed, against that of the last such run
	$(BIN)/python -m pytest -q benchmarks/own --benchmark-autosave --benchmark-compare \
	  --benchmark-columns=min,median,rounds

docs: .venv/installed  ## the pages and the reference, in docs/_build/html
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[docs]'
	$(BIN)/python -m sphinx -q -W --keep-going docs docs/_build/html

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis demo_output
