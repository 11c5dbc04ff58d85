# Each target does its own set-up: a virtual environment in .venv, made once for each content of pyproject.toml.
PYTHON ?= python3
JOBS ?= 2

ifeq ($(OS),Windows_NT)
BIN := .venv/Scripts
else
BIN := .venv/bin
endif
PY := $(BIN)/python

# Named by content, not by time: a fresh checkout of the same file needs no new install and no network.
STAMP := .venv/installed-$(shell cksum < pyproject.toml | tr ' \t' '--')
HOUSE := tests/test_layering.py tests/test_packaging.py tests/test_public_api.py tests/test_size_budget.py
TINY := $(wildcard tests/test_tiny.py)

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench clean format

help:
	@echo "make demo    train on real digits, eagerly and compiled (under a minute)"
	@echo "make test    the tests (without slow, gpu and nightly)"
	@echo "make check   format, lint, types, layering, packaging, public names, sizes, smoke test"
	@echo "make bench   graphnn beside the peers that are installed"
	@echo "make format  rewrite the files in the house format"
	@echo "make clean   remove what these targets made"

setup: $(STAMP)

demo: $(STAMP)
	$(PY) examples/digits.py

test: $(STAMP)
	$(PY) -m pytest -n $(JOBS) -m "not slow and not gpu and not nightly"

check: $(STAMP)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) tests/typing_links.py
	$(PY) -m pytest -q $(HOUSE) $(TINY)

bench: $(STAMP)
	$(PY) benchmarks/run.py

format: $(STAMP)
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

clean:
	rm -rf .venv .typing build dist graphnn.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# After the first time setuptools is in .venv, so that a changed pyproject.toml needs no network either.
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check

$(STAMP):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "graphnn needs Python 3.11 or newer, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install a newer Python, then name it: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PY) -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  $(PYTHON) -m venv --clear .venv || { rm -rf .venv; \
	  echo "'$(PYTHON) -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@{ ls .venv/installed-* && $(PIP_INSTALL) --no-build-isolation --editable '.[dev]'; } >/dev/null 2>&1 || \
	  { echo "Installing graphnn and its tools into .venv"; $(PIP_INSTALL) --editable '.[dev]'; }
	@rm -f .venv/installed-*
	@touch $@
