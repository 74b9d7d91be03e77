"""A model is trained anew: nobody gets an answer of the old one, though both use the same Redis."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest
import redis
from onnx import numpy_helper

from services.caching.keys import namespace
from services.inference.bundle import Bundle, load, seal
from services.inference.session import Session
from training.data.digits import load_digits

pytestmark = [pytest.mark.server, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
NAME = "digits-cnn"
PATIENCE = 60
LIFETIME_MS = 3_600_000  # DUET_CACHE_TTL_SECONDS by default, within ten percent
IMAGES = load_digits().test.images[:32]


def successor(old: Bundle, directory: Path) -> Bundle:
    """A bundle of the same name with other weights."""
    shutil.copytree(old.path, directory, ignore=shutil.ignore_patterns("model.yaml"))  # the store's
    graph = directory / old.manifest.graphs["classify"].file
    model = onnx.load(graph)
    for weights in model.graph.initializer:
        if weights.data_type == onnx.TensorProto.FLOAT and len(weights.dims) == 2:  # what spoke for a class, against it
            weights.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weights), weights.name))
    for path in (graph, directory / "manifest.json"):
        path.chmod(0o644)
    onnx.save(model, graph)
    return seal(directory, old.manifest)


@dataclass(frozen=True)
class Retrained:
    """A store with two versions of one model."""

    home: Path
    old: Bundle
    new: Bundle


@pytest.fixture(scope="module")
def store(model_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Retrained:
    home = tmp_path_factory.mktemp("retrained")
    shutil.copytree(model_store / "models" / NAME, home / "models" / NAME)
    [manifest] = home.glob(f"models/{NAME}/*/manifest.json")
    old = load(manifest.parent)
    new = successor(old, tmp_path_factory.mktemp("successor") / "bundle")
    duet(home, "models", "import", str(new.path))
    different = np.abs(direct(old) - direct(new)).max(axis=1)
    assert different.min() > 1e-4, "both answer the same, so nothing stale could be seen"
    return Retrained(home, old, new)


def duet(home: Path, *words: str, **settings: str) -> None:
    environment = os.environ | {"BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True"} | settings
    subprocess.run([sys.executable, "-m", "training", *words], env=environment, cwd=ROOT, check=True)


def direct(bundle: Bundle) -> np.ndarray:
    """Probabilities [N,10] by the graph itself."""
    return Session(bundle.graph_path("classify")).run({"images": IMAGES})["probabilities"]


def asked(url: str, model: str, cached: str) -> np.ndarray:
    """Probabilities [N,10] by the server; `cached` is the X-Cache that they must come with."""
    body = {"images": IMAGES.tolist(), "top_k": 10, "model": model}
    answer = httpx.post(f"{url}/classify", json=body, timeout=PATIENCE)
    assert answer.status_code == 200
    assert answer.headers["x-cache"] == cached
    found = np.zeros((len(IMAGES), 10), np.float32)
    for row, prediction in zip(found, answer.json()["predictions"], strict=True):
        for each in prediction["top"]:
            row[each["index"]] = each["probability"]
    return found


def assert_of(bundle: Bundle, probabilities: np.ndarray) -> None:
    np.testing.assert_allclose(probabilities, direct(bundle), rtol=0, atol=1e-5)


MISS, HIT = f"miss; hits=0/{len(IMAGES)}", f"hit; hits={len(IMAGES)}/{len(IMAGES)}"


@pytest.fixture
def shared(redis_server: Any) -> dict[str, str]:
    """Settings of servers that ask one Redis about everything, and remember nothing themselves."""
    return {
        "DUET_REDIS_URL": redis_server.url,
        "DUET_REDIS_ADMISSION": "always",
        "DUET_CACHE_MEMORY_BYTES": "0",
    }


@pytest.fixture
def client(redis_server: Any) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        yield client


def held(client: redis.Redis, bundle: Bundle) -> list[bytes]:
    """The keys in a bundle's namespace."""
    return list(client.scan_iter(namespace(bundle.digest) + "*"))


def wait_for(client: redis.Redis, bundle: Bundle) -> None:
    """Answers are written behind the answer."""
    end = time.monotonic() + PATIENCE
    while len(held(client, bundle)) < len(IMAGES):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_retrained_model_never_gives_the_answers_of_the_one_before(
    serve: Any, store: Retrained, shared: dict[str, str], client: redis.Redis
) -> None:
    old, new = store.old, store.new
    tag = f"{NAME}:{old.version}"
    with serve("classification", home=store.home, DUET_MODELS=tag, **shared) as server:
        assert_of(old, asked(server.url, NAME, MISS))
        wait_for(client, old)
        assert_of(old, asked(server.url, NAME, HIT))
    with serve("classification", home=store.home, DUET_MODELS=NAME, **shared) as server:  # the newest
        assert_of(new, asked(server.url, NAME, MISS))
        wait_for(client, new)
        assert_of(new, asked(server.url, NAME, HIT))

        # The old answers are still there, but not for ever, and can be given back sooner.
        assert len(held(client, old)) == len(IMAGES)
        assert all(0 < client.pttl(key) <= 1.1 * LIFETIME_MS for key in held(client, old))
        duet(store.home, "cache", "flush", "--model", tag, DUET_REDIS_URL=shared["DUET_REDIS_URL"])
        assert held(client, old) == []
        assert_of(new, asked(server.url, NAME, HIT))


def test_both_versions_side_by_side_answer_their_own(
    serve: Any, store: Retrained, shared: dict[str, str], client: redis.Redis
) -> None:
    tags = {bundle.digest: f"{NAME}:{bundle.version}" for bundle in (store.old, store.new)}
    with serve("classification", home=store.home, DUET_MODELS=",".join(tags.values()), **shared) as server:
        for status in (MISS, HIT, HIT):
            for bundle in (store.old, store.new):
                assert_of(bundle, asked(server.url, tags[bundle.digest], status))
                wait_for(client, bundle)
