# `make demo` and `make test` set up everything they need in .venv; only python3 (3.11 or newer) is assumed.
PYTHON ?= python3
BIN := .venv/bin
# A worker takes whole files, in the order of collection: tests/conftest.py puts the long ones first.
PYTEST := -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-quick lint docs notebooks package test-matrix clean

demo: .venv/demo-installed
	$(BIN)/python -m experiments train

test: .venv/test-installed
	$(BIN)/python $(PYTEST)

# Without what is marked slow: about two minutes, for the next change.
test-quick: .venv/test-installed
	$(BIN)/python $(PYTEST) -m "not slow"

lint: .venv/lint-installed
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
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[experiments,tests]'
	touch $@

# Pyright reads the types of what the code imports.
.venv/lint-installed: pyproject.toml
	$(MAKE) .venv/test-installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[lint]'
	touch $@

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv

# The site goes to site/; a warning is an error.
docs: .venv/docs-installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

.venv/docs-installed: pyproject.toml
	$(MAKE) .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

# Wheel and sdist into dist/, the wheel into an empty environment, and what an import of it takes.
package: .venv/bin/python
	rm -rf dist .venv-package
	$(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python -m venv .venv-package
	.venv-package/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd dist && env -u PYTHONPATH ../.venv-package/bin/python ../.ci/check_package.py

# Oldest Python with JAX 0.10, a newer one with the newest JAX, and the least versions that pyproject.toml admits, each in
# its own environment. `make test-matrix MATRIX_TESTS=tests/library/test_path.py` runs less, `make matrix-lowest` one of them.
PYTHON311 ?= python3.11
PYTHON313 ?= python3.13
MATRIX_TESTS ?=

test-matrix: matrix-jax010 matrix-newest matrix-lowest

matrix-jax010: MATRIX_PYTHON = $(PYTHON311)
matrix-jax010: MATRIX_PINS = 'jax>=0.10,<0.11'
matrix-newest: MATRIX_PYTHON = $(PYTHON313)
matrix-newest: MATRIX_PINS =
matrix-lowest: MATRIX_PYTHON = $(PYTHON311)
matrix-lowest: MATRIX_PINS = $$(.venv-matrix/lowest/bin/python .ci/lowest.py)

matrix-jax010 matrix-newest matrix-lowest: matrix-%:
	@command -v $(MATRIX_PYTHON) >/dev/null || \
	  { echo "matrix-$*: no $(MATRIX_PYTHON) on the PATH; install it, or give PYTHON311=... or PYTHON313=..." >&2; exit 1; }
	$(MATRIX_PYTHON) -m venv .venv-matrix/$*
	.venv-matrix/$*/bin/python -m pip install --quiet --disable-pip-version-check -e '.[experiments,tests]' $(MATRIX_PINS)
	.venv-matrix/$*/bin/python -m pip list --disable-pip-version-check 2>/dev/null | grep -E '^(jax|jaxlib|optax|flax) '
	.venv-matrix/$*/bin/python $(PYTEST) $(MATRIX_TESTS)

clean:
	rm -rf .venv .venv-package .venv-matrix site dist
