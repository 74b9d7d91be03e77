"""Damage, and what Duet says and does about it: models, Redis, deadlines."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

pytestmark = [pytest.mark.server, pytest.mark.slow]

PATIENCE = 60
SEEDS = 60  # requests in a phase, each with a seed of its own, so that none is answered by memory alone


@pytest.fixture
def damaged(model_store: Path, tmp_path: Path) -> Path:
    """A copy of the model store where one byte of the classifier's graph is another; its home."""
    shutil.copytree(model_store / "models", tmp_path / "models")
    [graph] = tmp_path.glob("models/digits-cnn/*/classify.onnx")
    raw = bytearray(graph.read_bytes())
    raw[len(raw) // 2] ^= 1
    graph.chmod(0o644)
    graph.write_bytes(raw)
    return tmp_path


def test_a_flipped_byte_in_a_model_stops_readiness_and_names_the_file(serve: Any, damaged: Path) -> None:
    with serve("allinone", home=damaged, ready=False) as server, httpx.Client(base_url=server.url) as client:
        # It answers before it has looked at the models.
        detail = "starting"
        while detail.startswith("starting"):
            probe = client.get("/readyz")
            detail = probe.json()["detail"]
        assert probe.status_code == 503
        assert "classify.onnx" in detail
        assert "digits-cnn" in detail
        routes = {
            "/classify": {"images": [[[0] * 28] * 28]},
            "/generate": {"count": 1},
            "/v2/models/digits-cnn/infer": {},
            "/v2/models/digits-vae/infer": {"parameters": {"seed": 1}},
        }
        for route, body in routes.items():
            answer = client.post(route, json=body)
            assert (answer.status_code, answer.json()["detail"]) == (503, detail)
            assert answer.headers["retry-after"] == "1"
        assert client.get("/v2/health/ready").status_code == 503
        assert client.get("/livez").status_code == 200
        assert client.get("/v2/health/live").status_code == 200
        assert "duet_ready 0.0" in client.get("/metrics").text
        assert "classify.onnx" in server.log.read_text()


async def ask(url: str, seeds: range) -> Counter[int]:
    """The statuses of requests that need the cache, native and V2, eight at a time."""
    gate = asyncio.Semaphore(8)
    async with httpx.AsyncClient(base_url=url, timeout=PATIENCE) as client:

        async def one(seed: int) -> int:
            async with gate:
                if seed % 2:
                    return (await client.post("/generate", json={"seed": seed, "count": 2})).status_code
                body = {"parameters": {"seed": seed, "count": 2}}
                return (await client.post("/v2/models/digits-vae/infer", json=body)).status_code

        return Counter(await asyncio.gather(*map(one, seeds)))


def is_ready(url: str) -> bool:
    return httpx.get(f"{url}/readyz").status_code == 200


def redis_results(url: str) -> dict[str, float]:
    """Items looked up in Redis, by result."""
    found = {}
    for line in httpx.get(f"{url}/metrics").text.splitlines():
        if line.startswith("duet_cache_requests_total{") and 'tier="redis"' in line:
            found[line.split('result="')[1].split('"')[0]] = float(line.split()[-1])
    return found


async def test_redis_absent_at_start_costs_no_request(serve: Any) -> None:
    with serve("generation", DUET_REDIS_URL="redis://127.0.0.1:1/0") as server:
        assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        assert redis_results(server.url)["unavailable"] > 0
        assert is_ready(server.url)


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "hung"])
async def test_redis_killed_or_hung_while_serving_costs_no_request(
    serve: Any, redis_server: Any, blow: signal.Signals
) -> None:
    with serve("generation", DUET_REDIS_URL=redis_server.url) as server:
        assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        assert redis_results(server.url).get("unavailable", 0) == 0
        during = asyncio.create_task(ask(server.url, range(1000, 1000 + 5 * SEEDS)))
        await asyncio.sleep(0.1)
        redis_server.process.send_signal(blow)
        assert await during == {200: 5 * SEEDS}
        assert await ask(server.url, range(2000, 2000 + SEEDS)) == {200: SEEDS}
        assert redis_results(server.url)["unavailable"] > 0
        assert is_ready(server.url)
        assert "Redis does not answer" in server.log.read_text()


async def test_redis_that_comes_back_is_used_again(serve: Any, redis_server: Any) -> None:
    with serve("generation", DUET_REDIS_URL=redis_server.url, DUET_CACHE_MEMORY_BYTES="0") as server:
        assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        redis_server.process.send_signal(signal.SIGSTOP)
        assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        redis_server.process.send_signal(signal.SIGCONT)
        hits = redis_results(server.url).get("hit", 0)
        while redis_results(server.url).get("hit", 0) == hits:
            assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        assert "Redis answers again" in server.log.read_text()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/generate", {"count": 256, "seed": 7}),
        ("/v2/models/digits-vae/infer", {"parameters": {"count": 256, "seed": 7}}),
    ],
)
def test_a_slow_request_with_a_deadline_of_a_millisecond_is_504(allinone_url: str, path: str, body: Any) -> None:
    answer = httpx.post(allinone_url + path, json=body, headers={"X-Request-Timeout-Ms": "1"}, timeout=PATIENCE)
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:duet:problem:deadline-exceeded"
    assert "X-Request-Timeout-Ms" in answer.json()["detail"]


def test_no_request_is_answered_after_its_deadline(allinone_url: str) -> None:
    """By the server's own account of its stages, which begin after the deadline was set."""
    statuses, late = Counter[int](), []
    body = {"parameters": {"seed": 7, "count": 128}}
    with httpx.Client(base_url=allinone_url, timeout=PATIENCE) as client:
        for deadline_ms in np.geomspace(1, 1000, 200):
            headers = {"X-Request-Timeout-Ms": f"{deadline_ms}", "Cache-Control": "no-store"}
            answer = client.post("/v2/models/digits-gan/infer", json=body, headers=headers)
            statuses[answer.status_code] += 1
            if answer.status_code == 200:
                stages = [part.split(";dur=") for part in answer.headers["server-timing"].split(", ")]
                spent = {name: float(milliseconds) for name, milliseconds in stages}
                if spent["parse"] + spent["queue"] + spent["compute"] > deadline_ms:
                    late.append((deadline_ms, spent))
    assert late == []
    assert set(statuses) == {200, 504}
