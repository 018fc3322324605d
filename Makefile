# make setup | demo | test | lint | bench      PYTHON=/path/to/python3.11 make setup   for another interpreter

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
SUITE ?= yaml/suites/demo.yaml

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint bench

help:
	@echo "make setup   a virtual environment in .venv with everything the demo and the tests need"
	@echo "make demo    shards, preview, a small suite and its report from real photos, in ./demo"
	@echo "make test    ruff, mypy, pytest"
	@echo "make lint    ruff and mypy only"
	@echo "make bench   run and report a suite: make bench SUITE=yaml/suites/demo.yaml"

setup: $(STAMP)

$(STAMP): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make setup: need Python 3.11 or newer, found '$(PYTHON)'. Try: make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
# torch and torchvision in one command: resolved apart, pip may pick builds that do not match.
	$(BIN)/python -m pip install --quiet torch torchvision
	$(BIN)/python -m pip install --quiet -e '.[demo,dev]'
# DALI is optional: where it does not install, the OpenCV backend does the work and DALI's tests skip.
	$(BIN)/python -m pip install --quiet -e '.[cuda13]' || \
	  echo "make setup: NVIDIA DALI did not install; going on with the OpenCV backend" >&2
	@touch $@

demo: setup
	$(BIN)/fourfold demo

test: lint
# Whole files to a process: what a file's tests share is made once. One thread each, as there is a process per core.
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: setup
	$(BIN)/fourfold bench run $(SUITE)
	$(BIN)/fourfold bench report $(SUITE)
