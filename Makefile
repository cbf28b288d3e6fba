# Everything a person or CI runs. Each target sets up what it needs: only Python >= 3.11 and a package index are required.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := .tools/bin/uv
BIN := .venv/bin
export UV_PYTHON_DOWNLOADS := never
# Trust what the system trusts, as pip does: behind a company's proxy uv's own list of authorities is not enough.
export UV_SYSTEM_CERTS := true
# The demo and the tests start dozens of Python processes: compiled modules are kept, or each compiles them all anew.
unexport PYTHONDONTWRITEBYTECODE
export PATH := $(CURDIR)/$(BIN):$(PATH)
PROJECTS := pyproject.toml uv.lock protos/gen/python/pyproject.toml clients/python/pyproject.toml $(wildcard services/*/pyproject.toml)

.PHONY: help setup demo up down test test-real tools lint lint-api format gen bench clean

help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Penstock needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "setting up uv $(UV_VERSION)"
	@$(PYTHON) -m venv .tools || { echo "could not make a virtual environment; on Debian: apt-get install python3-venv"; exit 1; }
	@.tools/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.synced: $(UV) $(PROJECTS)
	@echo "installing Penstock and its tools into .venv"
	@$(UV) sync --quiet --frozen --all-packages --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')"
	@touch $@

setup: .venv/.synced ## Install everything into .venv

gen: setup ## Regenerate code from protos/ into protos/gen/python
	@$(BIN)/python deploy/gen/generate.py

lint: setup ## ruff, mypy strict, import-linter, buf lint, buf breaking, regeneration diff
	@deploy/lint.sh

format: setup ## Format code and contracts
	@$(BIN)/ruff check --fix-only --quiet . || true
	@$(BIN)/ruff format .
	@$(BIN)/buf format -w

test: setup ## Unit, contract, integration and end-to-end tests
	@$(BIN)/pytest -m "not real"

tools: ## Build or install the real servers and tools of test-real (TOOL=name: only that one)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Penstock needs Python 3.11 or newer; try: make PYTHON=python3.12 tools"; exit 1; }
	@$(PYTHON) -m deploy.tools $(TOOL)

lint-api: ## Google's api-linter over the contracts
	@$(PYTHON) -m deploy.tools --quiet api-linter
	@$(PYTHON) -m deploy.tools.contracts

test-real: setup tools lint-api ## Tests on real servers: Consul, Kubernetes, S3, registry, databases, Slurm, collector
	@$(BIN)/pytest -m real

demo: setup ## The main job on real input, from training to a routed prediction
	@$(BIN)/python -m deploy.demo

up: setup ## Start the three services on this machine and leave them running
	@$(BIN)/penstock up

down: setup ## Stop what `make up` started
	@$(BIN)/penstock down

bench: setup ## Benchmarks against hand-written baselines, as ratios
	@$(BIN)/python -m bench

clean: ## Remove what the targets made
	@rm -rf .venv .tools .mypy_cache .ruff_cache .pytest_cache .penstock
