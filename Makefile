# `make` lists the targets. PYTHON picks the interpreter (3.11 or newer). TORCH_INDEX=URL takes torch from that index
# first: the CPU wheel index named on PyTorch's install page saves some gigabytes of CUDA libraries.
PYTHON ?= python3
TORCH_INDEX ?=
export PYTHON TORCH_INDEX

BIN := .venv/bin
MINUTES ?= 30

.PHONY: help demo test lint format typecheck bench bench-cache bench-drift bench-generate bench-overload bench-soak bench-peers lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(if $(TORCH_INDEX),$(BIN)/pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX) --no-deps torch)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: .venv/installed ## train on the digits, verify, serve, and print an answer of each kind (ONCE=1: then stop)
	$(BIN)/python deploy/demo.py

test: lint typecheck ## check style and types, then run every test
	deploy/redis.sh
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

lint: .venv/installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/installed ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: .venv/installed ## check the types
	$(BIN)/mypy

bench: .venv/installed ## ratios against stock BentoML, bare uvicorn and ONNX Runtime; overhead by stage (needs wrk)
	$(BIN)/python -m loadtests.bench $(ARGS)

bench-cache: .venv/installed ## what the cache is worth, stampedes, its memory, faults of Redis (needs redis-server)
	$(BIN)/python -m loadtests.bench.cache $(ARGS)
	$(BIN)/python -m loadtests.bench.stampede $(ARGS)
	$(BIN)/python -m loadtests.bench.cache_memory $(ARGS)
	$(BIN)/python -m loadtests.bench.faults $(ARGS)

bench-generate: .venv/installed ## samples a second by count and format, beside the graph alone (needs wrk)
	$(BIN)/python -m loadtests.bench.generate $(ARGS)

bench-drift: .venv/installed ## false alarms of the detector of drift and the time to right ones, simulated
	$(BIN)/python -m loadtests.bench.drift $(ARGS)

bench-overload: .venv/installed ## what happens above capacity
	$(BIN)/python -m loadtests.bench.overload $(ARGS)

bench-soak: .venv/installed ## memory and latency over MINUTES (30)
	$(BIN)/python -m loadtests.bench.soak --minutes $(MINUTES) $(ARGS)

bench-peers: .venv/installed ## MLServer, LitServe and Ray Serve beside Duet (needs wrk; installs them below .duet)
	$(BIN)/python -m loadtests.bench.peers $(ARGS)

.PHONY: docs
docs: .venv/installed ## build the documentation into build/docs, a site that needs no network
	$(BIN)/python -m sphinx -q -W --keep-going -n -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html in a browser."

lock: ## pin every version again, after a change of pyproject.toml's dependencies
	deploy/lock.sh

clean: ## remove the environment, caches and demo models
	rm -rf .venv .duet .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
