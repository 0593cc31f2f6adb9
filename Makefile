# Every target makes what it needs: on a fresh machine `make train` is the first command one types.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
NANOGPT_DIR ?=
# uv installs where it is there, pip elsewhere; `make UV= ...` keeps to pip and its configuration.
UV ?= $(shell command -v uv 2>/dev/null)
MAKE_VENV = $(if $(UV),$(UV) venv --quiet --seed --python $(PYTHON),$(PYTHON) -m venv)
INSTALL = $(if $(UV),$(UV) pip install --quiet --python $(BIN)/python,$(BIN)/python -m pip install --quiet --disable-pip-version-check)
# The package index that torch comes from. Empty: PyTorch's index of CPU builds on a Linux machine without an NVIDIA GPU,
# if that index answers within some seconds, and the usual one elsewhere.
TORCH_INDEX_URL ?=
CPU_INDEX := https://download.pytorch.org/whl/cpu
ANSWERS := timeout 5 $(PYTHON) -c "import urllib.request; urllib.request.urlopen('$(CPU_INDEX)/torch/', timeout=3)" 2>/dev/null

.DEFAULT_GOAL := help
.PHONY: help install setup train test check format bench bench-paths bench-generate bench-gpu curve classics faults mutants audit sbom dashboard workspace clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

install: $(STAMP) ## make .venv and install what training needs, as pinned

setup: $(DEV_STAMP) ## the same, and what tests and checks need

# torch first and alone: the other packages then take the build that is there.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else f"miniGPT needs Python 3.11, 3.12 or 3.13, not {v.major}.{v.minor}: make PYTHON=python3.12 ...")'
	@echo "Installing the dependencies into $(VENV); this happens once."
	@test -x $(BIN)/python || $(MAKE_VENV) $(VENV)
	@index='$(TORCH_INDEX_URL)'; \
	if [ -z "$$index" ] && [ "$$(uname)" = Linux ] && ! command -v nvidia-smi >/dev/null && ! ls /dev/nvidia* >/dev/null 2>&1 && $(ANSWERS); then \
		index='$(CPU_INDEX)'; \
		echo "No NVIDIA GPU here: torch is the CPU build of $$index (for the one with CUDA: TORCH_INDEX_URL=https://pypi.org/simple)"; \
	fi; \
	$(INSTALL) $${index:+--no-deps --index-url "$$index"} "$$(grep '^torch==' constraints.txt)"
	@$(INSTALL) -c constraints.txt -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	@echo "Installing the tools of the tests into $(VENV); this happens once."
	@$(INSTALL) -c constraints.txt -e '.[test,tensorboard]'
	@touch $@

train: $(STAMP) ## train on Tiny Shakespeare: make train ARGS="model=small"
	@$(BIN)/python src/train.py $(if $(or $(findstring data=,$(ARGS)),$(findstring data.path=,$(ARGS)),$(findstring resume=,$(ARGS)),$(findstring debug=,$(ARGS))),,$$($(BIN)/python -m minigpt.synthetic_fallback)) $(ARGS)

test: $(DEV_STAMP) ## run the tests (5 to 11 minutes on two cores)
	@$(BIN)/python -m pytest

check: $(DEV_STAMP) ## check style and types, also as on Windows
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/basedpyright && $(BIN)/basedpyright --pythonplatform Windows

format: $(DEV_STAMP) ## fix style
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(STAMP) ## speed, beside nanoGPT: make bench NANOGPT_DIR=../nanoGPT
	@$(BIN)/python -m benchmarks.speed --nanogpt "$(NANOGPT_DIR)"

bench-paths: $(STAMP) ## speed of what is chosen for this machine, and when busy
	@$(BIN)/python -m benchmarks.fast_paths $(ARGS)

bench-generate: $(STAMP) ## speed of generation: a batch, with and without the cache
	@$(BIN)/python -m benchmarks.generation $(ARGS)

bench-gpu: $(STAMP) ## speed on a CUDA GPU, beside nanoGPT with NANOGPT_DIR=...
	@$(BIN)/python -m benchmarks.gpu --nanogpt "$(NANOGPT_DIR)" $(ARGS)

curve: $(STAMP) ## time to nanoGPT's loss, and docs/curve.png (10 minutes)
	@$(INSTALL) -c constraints.txt -e '.[docs]'
	@$(BIN)/python -m benchmarks.time_to_loss --nanogpt "$(NANOGPT_DIR)" $(ARGS)
	@$(BIN)/python docs/plot_curve.py

classics: $(STAMP) ## train and draw what docs/classics.md has (30 minutes)
	@$(INSTALL) -c constraints.txt -e '.[docs]'
	@$(BIN)/python -m benchmarks.classics $(ARGS)

faults: $(DEV_STAMP) ## cause faults: kill -9, full disks, ... (15 minutes)
	@$(BIN)/python -m benchmarks.faults

mutants: $(DEV_STAMP) ## count the small bugs that the tests notice (half an hour)
	@$(BIN)/python -m benchmarks.mutants $(ARGS)

audit: $(TOOLS)/.installed ## check the pinned versions for known vulnerabilities
	@$(TOOLS)/bin/pip-audit --progress-spinner off --disable-pip --no-deps -r constraints.txt

sbom: $(DEV_STAMP) $(TOOLS)/.installed ## the software bill of materials: build/sbom.json
	@mkdir -p build
	@$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --pyproject pyproject.toml -o build/sbom.json
	@echo written to build/sbom.json

# These look at the environment and must not be a part of it.
$(TOOLS)/.installed:
	@$(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit==2.10.1 cyclonedx-bom==7.5.0
	@touch $@

dashboard: $(STAMP) ## the losses of the newest runs, in the terminal
	@$(BIN)/python -m minigpt.dashboard logs

workspace: $(STAMP) ## save a view of a W&B project: PROJECT=me/minigpt
	@$(INSTALL) -c constraints.txt -e '.[workspace]'
	@$(BIN)/python -m minigpt.wandb_workspace "$(PROJECT)"

clean: ## remove the environment and caches; runs and texts stay
	rm -rf $(VENV) $(TOOLS) .pytest_cache .ruff_cache build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
