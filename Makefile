# Every target works as the first command after a clone; python3, make and g++ are enough.
#
#   PY=python3.12     the interpreter a new environment is made with
#   VENV=path         use this environment (made where it is missing) instead of .venv
#   TORCH=...         what to install as torch where it is missing: a version, a wheel file

PY ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH ?= $(shell grep '^torch==' constraints.txt)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TESTED := $(VENV)/.constraints.txt
INPUTS := pyproject.toml constraints.txt

export MPLBACKEND ?= Agg

.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: help quickstart test lint format types layers docs wheel bench studies oldest clean

help: ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

quickstart: $(VENV)/.ok ## install, then sample from the bundled model and show what a plan gains
	$(BIN)/isocline quickstart

test: $(VENV)/.ok-dev ## all tests but the slow ones, with the examples in docstrings and pages
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

lint: $(VENV)/.ok-dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.ok-dev ## let ruff rewrite what it can
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

types: $(VENV)/.ok-dev ## mypy
	$(BIN)/mypy

layers: $(VENV)/.ok-dev ## imports go downwards only
	$(BIN)/lint-imports

docs: $(VENV)/.ok-docs ## build and run the pages into docs/_build/html
	rm -rf docs/_build
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html
	$(BIN)/python tools/check_docs.py docs/_build/html

wheel: $(VENV)/.ok-dev ## build the wheel and use it from outside the tree
	$(BIN)/python tools/smoke_wheel.py

bench: $(VENV)/.ok-dev ## the short form of every benchmark
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do \
	   if grep -q -e '"--quick"' $$script; then short=--quick; else short=; fi; \
	   echo "== $$script $$short"; $(BIN)/python $$script $$short; done

studies: $(VENV)/.ok-dev ## the short form of every study; an error where a claim fails
	@set -e; for script in $$(grep -l __main__ studies/*.py); do \
	   echo "== $$script --quick"; OMP_NUM_THREADS=1 $(BIN)/python $$script --quick; done

oldest: $(VENV)/.ok-dev ## the tests of diffusers with the oldest version that is supported
	@test -d build/oldest/diffusers || $(PIP) --no-deps --target build/oldest \
	   diffusers==0.30.0 transformers==4.44.2 tokenizers==0.19.1 huggingface_hub==0.24.7
	PYTHONPATH=build/oldest HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 \
	   tests/plans/export/test_diffusers_export.py tests/recipes/test_from_diffusers.py tests/recipes/test_text_pipelines.py

clean: ## remove what was built; the environment stays
	rm -rf build dist docs/_build docs/api docs/auto_examples docs/methods.md docs/sg_execution_times.rst
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

# Three stamps: the library, its developers' tools, the tools for the pages.
# torch comes first and alone, and the version found then binds the rest: nothing later can exchange it.

$(VENV)/.ok: $(INPUTS)
	@test -x $(BIN)/python || { echo "creating $(VENV)"; $(PY) -m venv $(VENV); }
	@$(BIN)/python -c 'import torch' 2>/dev/null || { echo "installing $(TORCH) (about a minute)"; $(PIP) '$(TORCH)'; }
	@{ grep -v '^torch==' constraints.txt; \
	   $(BIN)/python -c 'from importlib.metadata import version as v; print("torch==" + v("torch").split("+")[0])'; } > $(TESTED)
	@echo "installing isocline into $(VENV)"
	@$(PIP) -c $(TESTED) -e .
	@touch $@

$(VENV)/.ok-dev: $(VENV)/.ok
	@echo "installing the developers' tools into $(VENV)"
	@$(PIP) -c $(TESTED) -e '.[dev]'
	@touch $@

$(VENV)/.ok-docs: $(VENV)/.ok-dev
	@echo "installing the tools for the pages into $(VENV)"
	@$(PIP) -c $(TESTED) -e '.[docs]'
	@touch $@
