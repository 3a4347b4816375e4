# `make help` lists the targets. Every target does its own set-up and may be run again.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
LOCK ?= requirements.lock
VENV := .venv
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Loading weights and data from a hub at run time is never what a stage wants.
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

$(VENV)/installed: $(LOCK) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q --disable-pip-version-check -c $(LOCK) uv torch
	$(VENV)/bin/uv pip install -q --python $(VENV)/bin/python -r $(LOCK)
	$(VENV)/bin/uv pip install -q --python $(VENV)/bin/python --no-deps -e .
	touch $@

.PHONY: help setup demo ui lint test test-all bench docs lock clean-work
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

setup: $(VENV)/installed  ## create the virtual environment from the lock

demo: setup  ## the whole lineage with profile small: about 16 minutes on two cores
	alto profile small
	dvc repro
	alto sync
	alto report
	alto results

ui: setup  ## Dagster and MLflow on loopback
	alto ui

lint: setup  ## format, lint, import directions, types
	ruff format --check .
	ruff check .
	lint-imports --no-logo
	mypy

test: lint  ## everything but the slow tier, at most 15 minutes
	pytest -m "not slow" -n 2 --dist loadfile

test-all: lint  ## everything
	pytest -n 2 --dist loadfile

BENCHMARKS := prepare training_step losses reading many_masks grpo_step sft_step questions_per_image evaluation
bench: setup  ## speed against the published procedures: 15 minutes, into docs/performance.md
	for name in $(BENCHMARKS); do python -m tests.benchmarks.$$name --write || exit 1; done

docs: setup  ## the documentation as a site, in .work/site
	sphinx-build -q -W --keep-going -b html docs .work/site
	@echo "open .work/site/index.html"

lock: setup  ## resolve the dependencies anew into both lock files
	uv pip compile -q pyproject.toml --extra dev --python-version 3.11 --no-header --no-annotate -o requirements-cuda.lock
	grep -vE '^(cuda-|nvidia-|triton)' requirements-cuda.lock > requirements.lock
