# `make demo` and `make test` set everything up on first use: a virtual environment, pinned versions, the package.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test quick lint bench docs setup clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/anystride demo $(ARGS)

# Tests run side by side: a thread that waits for another sleeps, instead of taking the processor from it.
test quick: export OMP_WAIT_POLICY := PASSIVE
test: $(READY) lint
	$(BIN)/pytest --numprocesses=auto --dist=worksteal --cov=anystride --cov-report=term --timeout=600 $(ARGS)
	$(BIN)/coverage report --format=total --fail-under=95

quick: $(READY)
	$(BIN)/pytest --numprocesses=auto --dist=worksteal -m 'not slow' --ignore=tests/lab --timeout=600 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/anystride bench $(ARGS)

docs: export PATH := $(CURDIR)/$(BIN):$(PATH)
docs: $(READY)
	$(BIN)/sphinx-build --fail-on-warning --keep-going -b html docs docs/_build/html

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "anystride needs Python 3.10 or later, this is " + sys.version)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[paper,cluster,export,zoo,docs,dev]'
	touch $@

clean:
	rm -rf docs/_build .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage build dist
