# Every target makes what it needs: on a fresh machine `make train` is the first command one types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
STAMP := $(VENV)/.installed
NANOGPT_DIR ?=

.DEFAULT_GOAL := help
.PHONY: help setup train test check format bench bench-gpu classics faults audit sbom dashboard clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(STAMP) ## make .venv and install the pinned dependencies, unless that is done

# torch first and alone: the other packages then take the build that is there.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"miniGPT needs Python 3.11, 3.12 or 3.13, not {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	@echo "Installing the dependencies into $(VENV); this happens once."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,tensorboard]'
	@touch $(STAMP)

train: $(STAMP) ## train on Tiny Shakespeare; options: make train ARGS="model=small"
	@$(BIN)/python src/train.py $(if $(or $(findstring data=,$(ARGS)),$(findstring resume=,$(ARGS)),$(findstring debug=,$(ARGS))),,$$($(BIN)/python -m minigpt.synthetic_fallback)) $(ARGS)

test: $(STAMP) ## run the tests (under five minutes on two cores)
	@$(BIN)/python -m pytest

check: $(STAMP) ## check style and types; and that nothing is used that Windows lacks
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/basedpyright && $(BIN)/basedpyright --pythonplatform Windows

format: $(STAMP) ## fix style
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(STAMP) ## how fast it is, beside a plain loop and nanoGPT: make bench NANOGPT_DIR=../nanoGPT
	@$(BIN)/python -m benchmarks.speed --nanogpt "$(NANOGPT_DIR)"

bench-gpu: $(STAMP) ## the same on a CUDA GPU: make bench-gpu NANOGPT_DIR=../nanoGPT ARGS="--only medium"
	@$(BIN)/python -m benchmarks.gpu --nanogpt "$(NANOGPT_DIR)" $(ARGS)

classics: $(STAMP) ## train every row of the tables of docs/classics.md, and draw its curves (half an hour)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@$(BIN)/python -m benchmarks.classics $(ARGS)

faults: $(STAMP) ## cause faults on purpose: kill -9, full disks, malicious files (10 minutes)
	@$(BIN)/python -m benchmarks.faults

audit: $(TOOLS)/.installed ## check the pinned versions against the advisory database (needs a network)
	@$(TOOLS)/bin/pip-audit --progress-spinner off --disable-pip --no-deps -r constraints.txt

sbom: $(STAMP) $(TOOLS)/.installed ## write the software bill of materials: build/sbom.json (CycloneDX)
	@mkdir -p build
	@$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml -o build/sbom.json
	@echo written to build/sbom.json

# These look at the environment and must not be a part of it.
$(TOOLS)/.installed:
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

dashboard: $(STAMP) ## the curves of all runs, in the terminal
	@$(BIN)/wandb leet logs/wandb/wandb

clean: ## remove the environment and caches; runs and texts stay
	rm -rf $(VENV) $(TOOLS) .pytest_cache .ruff_cache build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
