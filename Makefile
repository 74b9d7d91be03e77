# `make` lists the targets. PYTHON picks the interpreter (3.11 or newer). TORCH_INDEX=URL takes torch from that index
# first: the CPU wheel index named on PyTorch's install page saves some gigabytes of CUDA libraries.
PYTHON ?= python3
TORCH_INDEX ?=
export PYTHON TORCH_INDEX

BIN := .venv/bin

.PHONY: help demo test lint format typecheck lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) --no-deps torch)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed ## train on the digits, verify, serve, and print an answer of each kind (ONCE=1: then stop)
	$(BIN)/python deploy/demo.py

test: lint typecheck ## check style and types, then run every test
	deploy/redis.sh
	$(BIN)/pytest $(ARGS)

lint: .venv/installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: .venv/installed ## check the types
	$(BIN)/mypy

lock: ## pin every version again, after a change of pyproject.toml's dependencies
	deploy/lock.sh

clean: ## remove the environment, caches and demo models
	rm -rf .venv .duet .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
