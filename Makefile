# `make help` lists the targets; `make demo` runs everything once.
# pip compiles no bytecode: most of what it installs is never imported, and compiling it takes a minute. So Python must keep
# what it compiles: otherwise every process of `make demo` compiles PyTorch and its Triton again.
# You may set PYTHON, VENV, PIP_FLAGS and CONFIG. On a machine without a GPU, PyTorch's CPU index in PIP_FLAGS saves 3 GB.

.DEFAULT_GOAL := help
SHELL := /bin/bash
# The packaged Triton, which the demo and the tests serve with, needs one of these Pythons.
PYTHON ?= $(shell for name in python3.11 python3.12; do command -v $$name && break; done)
VENV ?= .venv
PIP_FLAGS ?=
unexport PYTHONDONTWRITEBYTECODE
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check $(PIP_FLAGS) --constraint constraints.txt
# With an NVIDIA card the demo uses TensorRT.
comma := ,
DEMO_EXTRAS := client,serve,triton,export$(if $(wildcard /dev/nvidiactl),$(comma)tensorrt)
CONFIG ?= configs/miniature.yaml
SECONDS_EACH ?= 60

.PHONY: help demo serve test test-fast test-card test-fresh test-long ship-check check fuzz audit clean

help: ## Print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.installed-demo ## Build and serve CONFIG (the miniature), generate out/demo.png, stop; print the time of each step
	@$(BIN)/intaglio demo $(CONFIG)

serve: $(VENV)/.installed-demo ## Build CONFIG and serve it until Ctrl-C
	@$(BIN)/intaglio build $(CONFIG)
	@exec $(BIN)/intaglio serve $(CONFIG)

test: $(VENV)/.installed-dev ## Run the tests but for those of the other targets below, in two processes (15 minutes)
	@$(BIN)/python -m pytest -n 2

test-fast: $(VENV)/.installed-dev ## Run the tests that are not marked slow
	@$(BIN)/python -m pytest -m "not slow and not fresh and not long and not ship"

test-card: $(VENV)/.installed-dev ## Run the suite that needs an NVIDIA card, Triton and TensorRT-RTX (9 minutes)
	@$(BIN)/python -m pytest -rs --timeout=600 tests/card

test-fresh: $(VENV)/.installed-dev ## Install the wheel into new environments and run it there (8 minutes)
	@$(BIN)/python -m pytest -m fresh tests/fresh

test-long: $(VENV)/.installed-dev ## Run the tests that take long and that few changes touch, in two processes (13 minutes)
	@$(BIN)/python -m pytest -n 2 -m long

ship-check: $(VENV)/.installed-ship ## Build and run the CPU image, run servers behind Envoy, check the Kubernetes overlays, alerts and dashboards (12 minutes)
	@$(BIN)/python -m pytest -m ship -rs --timeout=900 tests/docker

check: $(VENV)/.installed-dev ## Format, lint, types, imports between rooms, fast tests
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(MAKE) --no-print-directory test-fast

fuzz: $(VENV)/.installed-fuzz ## Fuzz what reads bytes of others, SECONDS_EACH (60) for each of nine targets
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS_EACH)

audit: $(VENV)/.installed-audit ## Look up known weaknesses of the installed packages, where the network allows it
	@$(BIN)/python -m tests.audit

clean: ## Remove builds, outputs and caches; the virtual environment stays
	rm -rf build out dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -exec rm -rf {} +

# A stamp says what was installed from which pyproject.toml: nothing is installed twice.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or 3.12 here; install one, or make demo PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed-demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing intaglio[$(DEMO_EXTRAS)] (once)"
	@$(PIP) --editable ".[$(DEMO_EXTRAS)]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing intaglio[dev] (once)"
	@$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.installed-demo

$(VENV)/.installed-ship: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing intaglio[ship] (once)"
	@$(PIP) --editable ".[ship]"
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed-demo

$(VENV)/.installed-fuzz: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing intaglio[fuzz] (once)"
	@$(PIP) --editable ".[fuzz]"
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed-demo

$(VENV)/.installed-audit: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing intaglio[audit] (once)"
	@$(PIP) --editable ".[audit]"
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed-demo
