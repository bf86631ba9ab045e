# `make repro` runs the whole pipeline, `make test` the checks and tests; both set up .venv first.
#
#   PYTHON=python3.12          the interpreter to build .venv with (3.11 or newer)
#   TORCH_INDEX=URL            a further index to find torch in, e.g. https://download.pytorch.org/whl/cpu; the plain one gives
#                              the build for this platform (on Linux x86-64 that is the one for NVIDIA GPUs)

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

# Commands run with .venv, whatever environment is active.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export LEANFACE_PYTHON := $(CURDIR)/$(BIN)/python
# DVC hands its commands to the login shell, which may be none at all, and asks for the user's name and home, which a
# container's user may lack.
export SHELL := /bin/sh
export LOGNAME ?= $(shell id -un 2>/dev/null || id -u)
export HOME ?= $(CURDIR)/.cache/home
# Threads that wait for work must sleep: spinning ones take the cores from other processes.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: setup repro test test-fast lint docs mlflow clean help

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

setup: $(STAMP)  ## Set up .venv only, with everything that LeanFace can use here

repro: $(STAMP)  ## Run every stage that is due, from faces to reports/report.html
	$(BIN)/python -m dvc repro
	@echo && $(BIN)/python -P -m leanface gate --show

# A worker per core, with a thread each. A module's tests stay in one worker, which makes its fixtures once; modules start in
# their order, in which the longest, the pipeline's and the sweeps', come first (tests/conftest.py).
test: export OMP_NUM_THREADS = 1
test: lint docs  ## Check style, spelling, types, import layers and documentation, then run the tests
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadscope --no-loadscope-reorder

lint: $(STAMP)  ## Style, spelling, types and import layers only
	$(BIN)/ruff check
	$(BIN)/codespell
	$(BIN)/pyright
	$(BIN)/lint-imports

test-fast: export OMP_NUM_THREADS = 1
test-fast: $(STAMP)  ## Run the unit tests alone
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadscope tests/unit

docs: $(STAMP)  ## Build the documentation as a site in build/site, warnings as errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

mlflow: $(STAMP)  ## Deliver what waits, and show the runs in MLflow's pages at the address that it prints
	$(BIN)/leanface track --ui

clean:  ## Remove .venv and tool caches; data, models, reports and recorded runs stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .import_linter_cache build src/*.egg-info

$(STAMP): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" >/dev/null || { echo "No $(PYTHON) here: install Python 3.11 or newer, or name one: make PYTHON=..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "LeanFace needs Python 3.11 or newer, got $$("$(PYTHON)" --version); name another: make PYTHON=python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments: install its venv module (Debian, Ubuntu: apt install python3-venv)" >&2; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(PIP) install -q -c constraints.txt torch $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
	$(PIP) install -q -c constraints.txt -e '.[test,engines]'
	@touch $@
