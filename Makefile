# `make demo` and `make test` set up everything they need in .venv; only python3 (3.11 or newer) is assumed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test lint notebooks clean

demo: .venv/demo-installed
	$(BIN)/python -m experiments train

test: .venv/test-installed
	$(BIN)/python -m pytest -n 2 --dist loadfile

lint: .venv/test-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

notebooks: .venv/test-installed
	$(BIN)/python notebooks/execute.py

.venv/demo-installed: pyproject.toml
	$(MAKE) .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[experiments]'
	touch $@

.venv/test-installed: pyproject.toml
	$(MAKE) .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[experiments,test]'
	touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

clean:
	rm -rf .venv
