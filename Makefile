# `make` lists the targets. PYTHON picks the interpreter (3.11 or newer), PORT where demo and serve listen. TORCH_INDEX=URL
# takes PyTorch from that index; otherwise uv chooses the build for this machine.
PYTHON ?= python3
PORT ?=
BASE ?=
TORCH_INDEX ?=
export PYTHON PORT TORCH_INDEX
# Containers often set it. uv leaves packages uncompiled: every process would compile PyTorch again, which takes ten seconds.
unexport PYTHONDONTWRITEBYTECODE

BIN := .venv/bin
MINUTES ?= 30

.PHONY: help demo serve test nightly loadtest drill plan lint format typecheck docs monitoring bench bench-cache bench-capacity \
	bench-drift bench-generate bench-memory bench-neighbours bench-overload bench-rollout bench-slow bench-soak bench-start \
	bench-traces bench-plan bench-peers images image-test render manifests-scan lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/%.installed: deploy/install.py pyproject.toml deploy/requirements/%.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed; Duet needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) deploy/install.py $*

.PRECIOUS: .venv/%.installed

demo: .venv/train.installed ## train on the digits, verify, serve, and print an answer of each kind (ONCE=1: then stop)
	@$(BIN)/python -m deploy.demo

serve: .venv/serve.installed ## serve the models of the store; the ones that come along, where it is empty
	@$(BIN)/duet serve allinone $(if $(PORT),--port $(PORT))

test: lint typecheck ## check style and types, then run every test but the nightly ones
	deploy/redis.sh
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

nightly: .venv/dev.installed ## run the tests that take minutes
	deploy/redis.sh
	$(BIN)/pytest -m nightly $(ARGS)

lint: .venv/dev.installed ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: .venv/dev.installed ## fix style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

typecheck: .venv/dev.installed ## check the types
	$(BIN)/mypy

docs: .venv/dev.installed ## build the documentation into build/docs, a site that needs no network
	$(BIN)/python -m sphinx -q -W --keep-going -n -d build/doctrees docs build/docs
	@echo "Open build/docs/index.html in a browser."

monitoring: .venv/dev.installed ## make alerting rules and dashboards of deploy/monitoring/slo.yaml
	$(BIN)/python -m deploy.monitoring

loadtest: .venv/dev.installed ## load the three services, started here, and say whether they met their objectives
	$(BIN)/python -m loadtests.load $(ARGS)

drill: .venv/dev.installed ## cause faults under load: which alerts come, after how long (needs Redis, Prometheus, DUET_DATA_DIR)
	$(BIN)/pytest -m nightly -s tests/deploy/monitoring/test_drill.py $(ARGS)

plan: .venv/dev.installed ## replicas, price, spike, loss of a zone and Redis by load, simulated (ARGS='--rates 1e5 --price 0.02')
	$(BIN)/python -m loadtests.capacity plan $(ARGS)

bench-plan: .venv/dev.installed ## measure what plans are made of, and the runs that they are compared with
	$(BIN)/python -m loadtests.capacity measure $(ARGS)

bench: .venv/dev.installed ## ratios to stock BentoML, bare uvicorn and ONNX Runtime (ARGS='--baseline FOLDER': to a tree; needs wrk)
	$(BIN)/python -m loadtests.bench $(ARGS)

bench-cache: .venv/dev.installed ## what the cache is worth, stampedes, its memory, faults of Redis (needs redis-server)
	$(BIN)/python -m loadtests.bench.cache $(ARGS)
	$(BIN)/python -m loadtests.bench.stampede $(ARGS)
	$(BIN)/python -m loadtests.bench.cache_memory $(ARGS)
	$(BIN)/python -m loadtests.bench.faults $(ARGS)

bench-capacity: .venv/dev.installed ## capacity of each service on one core: five searches in steps of the load test
	$(BIN)/python -m loadtests.bench.capacity $(ARGS)

bench-generate: .venv/dev.installed ## samples a second by count and format, beside the graph alone (needs wrk)
	$(BIN)/python -m loadtests.bench.generate $(ARGS)

bench-drift: .venv/dev.installed ## false alarms of the detector of drift, the time to right ones and their ends, simulated
	$(BIN)/python -m loadtests.bench.drift $(ARGS)

bench-overload: .venv/dev.installed ## what happens above capacity
	$(BIN)/python -m loadtests.bench.overload $(ARGS)

bench-memory: .venv/dev.installed ## what each kind of load takes of memory, which the limits of the pods follow from
	$(BIN)/python -m loadtests.bench.memory $(ARGS)

bench-neighbours: .venv/dev.installed ## dear requests beside cheap ones, the worst bodies, slow uploads
	$(BIN)/python -m loadtests.bench.neighbours $(ARGS)

bench-rollout: .venv/dev.installed ## rolling restarts and a model change behind haproxy and nginx: failed requests
	$(BIN)/python -m loadtests.rollout.restart $(ARGS)
	$(BIN)/python -m loadtests.rollout.change $(ARGS)

bench-slow: .venv/dev.installed ## a thousand slow connections of each kind: when they are closed, memory, whom they delay
	$(BIN)/python -m loadtests.bench.slow $(ARGS)

bench-soak: .venv/dev.installed ## memory and latency over MINUTES (30)
	$(BIN)/python -m loadtests.bench.soak --minutes $(MINUTES) $(ARGS)

bench-start: .venv/dev.installed ## seconds until `duet serve` is ready, and its memory then
	$(BIN)/python -m loadtests.bench.start $(ARGS)

bench-traces: .venv/dev.installed ## what traces cost, and a collector that fails (ARGS='--baseline FOLDER'; needs wrk)
	$(BIN)/python -m loadtests.bench.traces $(ARGS)

bench-peers: .venv/dev.installed ## MLServer, LitServe, Ray Serve and Triton beside Duet (needs wrk; installs them below .duet)
	$(BIN)/python -m loadtests.bench.peers $(ARGS)
	$(BIN)/python -m loadtests.bench.peers.tritonserver $(ARGS)

render: .venv/dev.installed ## print the Kubernetes objects of OVERLAY, or what is wrong with them (needs kubectl)
	@$(BIN)/python -m deploy.manifests $(OVERLAY)

manifests-scan: .venv/dev.installed ## scan the objects of every overlay with checkov, the Containerfiles with hadolint (installs both)
	$(BIN)/pytest -m nightly tests/manifests/test_scan.py $(ARGS)

images: .venv/dev.installed ## build the container images on BASE, an image by digest (ARGS: which, platforms; needs buildah, skopeo)
	@$(BIN)/python -m deploy.image "$(BASE)" $(ARGS)

image-test: .venv/dev.installed ## build images, run them with the limits of their pods, push them (needs root, buildah, runc)
	$(BIN)/pytest -m nightly -s tests/images $(ARGS)

lock: .venv/dev.installed ## pin every version again, after a change of pyproject.toml's dependencies
	$(BIN)/python deploy/lock.py

clean: ## remove the environment, caches and demo models
	rm -rf .venv .duet .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
