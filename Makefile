# The commands of this project; `make` alone lists them. All they need is make, and Python 3.11 or newer with its venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TYPED := backhaul config tasks workers
ARGS ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# What the caller's shell has active must not reach into our environment.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help:  ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo '  New here? `make demo` shows all of it in two minutes.'

.PHONY: install
install: $(VENV)/.installed  ## Make .venv with backhaul in it
	@echo 'backhaul is in $(BIN); try: $(BIN)/backhaul --help'

.PHONY: install-dev
install-dev: $(VENV)/.installed-dev  ## The same, with what tests and lint need

.PHONY: demo
demo: $(VENV)/.installed  ## Two replicas, a server and all workers at work, offline and online, in two minutes
	@$(BIN)/backhaul demo $(ARGS)

# In their own order, in which the longest come first; a file stays on one process, for its fixtures. More of them than
# most machines have cores: half of the time goes into waiting for others.
.PHONY: test
test: $(VENV)/.installed-dev  ## All tests but chaos and bench; for some of them: make test ARGS="-k gate"
	$(BIN)/pytest -m 'not chaos and not bench' -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

.PHONY: lint
lint: $(VENV)/.installed-dev  ## Style, types, and which module may import which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED:%=-p %)
	$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: $(VENV)/.installed-dev  ## Measure speed and size
	$(BIN)/python -m bench $(ARGS)

.PHONY: chaos
chaos: $(VENV)/.installed-dev  ## The long proofs, with faults
	$(BIN)/pytest -m chaos --timeout 1800 $(ARGS)

.PHONY: lock
lock:  ## Pin what requirements*.in ask for, with hashes (needs uv); to move the pins: make lock ARGS=--upgrade
	@command -v uv >/dev/null || { echo 'make lock needs uv: pip install uv'; exit 1; }
	uv pip compile $(LOCKING) $(ARGS) requirements.in -o requirements.txt
	uv pip compile $(LOCKING) $(ARGS) requirements-dev.in -c requirements.txt -o requirements-dev.txt

LOCKING := --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate

.PHONY: clean
clean:  ## Remove .venv, caches and what was built
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Each stamp stands for a finished step: what was interrupted is done again, and a second make does nothing.

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Backhaul needs Python 3.11 or newer, and $(PYTHON) is not. With another one: make PYTHON=python3.11'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) comes without venv. On Debian and Ubuntu: apt install python3-venv'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made requirements.txt pyproject.toml
	@echo 'Installing into $(VENV); the first time takes a minute.'
	@$(BIN)/pip install --quiet --require-hashes -r requirements.txt
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.txt
	@echo 'Installing what tests and lint need.'
	@$(BIN)/pip install --quiet --require-hashes -r requirements-dev.txt
	@touch $@
