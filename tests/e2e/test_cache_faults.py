"""Every fault of Redis, caused for real under load: no answer fails or differs, and Redis is used again afterwards."""

from __future__ import annotations

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import httpx
import pytest

from loadtests.bench.causes import FAULTS, HEALTHY, Fault, Proxy, killed, misbehaving, stopped
from loadtests.bench.course import course
from loadtests.bench.faults import computed, settings
from loadtests.bench.redis_server import Redis

pytestmark = [pytest.mark.server, pytest.mark.slow]

PATIENCE = 60
TIMEOUT = 0.5  # seconds for a command of Redis: a busy machine must not be taken for one of the faults
MODEL = "digits-vae"
PATIENT = {"DUET_CACHE_MEMORY_BYTES": "0", "DUET_REDIS_TIMEOUT_MS": str(round(1000 * TIMEOUT))}
SEEDS = 60  # requests in a phase, each with a seed of its own
RATE = 40.0  # requests a second
LINES = 4  # of the log: that Redis is left alone and that it is used again, to read and to write


Pair = tuple[Redis, Proxy]
Way = tuple[bool, bool]


def way(fault: Fault) -> Way:
    return fault.proxied, fault.tls


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A Redis and a proxy before it."""
    for program in ("redis-server", "openssl"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed (Debian: apt-get install {program})")
    with closing(Redis(tmp_path_factory.mktemp("redis"))) as redis, closing(Proxy(redis.port)) as proxy:
        yield redis, proxy


@pytest.fixture(scope="module")
def asking(serve: Any, pair: Pair) -> Iterator[dict[Way, Any]]:
    """Servers that ask Redis about everything: directly, through the proxy, and with TLS."""
    with ExitStack() as stack:
        yield {
            way(each): stack.enter_context(serve("generation", **PATIENT, **settings(each, *pair))) for each in HEALTHY
        }


def said(server: Any) -> list[str]:
    return [line for line in server.log.read_text().splitlines() if "[duet.cache]" in line]


@pytest.mark.parametrize("fault", [each for each in FAULTS if not each.at_start], ids=lambda fault: fault.name)
async def test_no_answer_fails_or_differs_and_redis_is_used_again(
    pair: Pair, asking: dict[Way, Any], allinone_url: str, fault: Fault
) -> None:
    server = asking[way(fault)]
    pair[0].client.flushall()
    lines = len(said(server))
    cause = misbehaving(delay=TIMEOUT) if fault.name == "slow by 50 ms" else fault.cause
    seconds = {"before": 0.3, "during": 1.0, "after": 1.0}
    seen = await course(port(server.url), MODEL, cause(*pair), **seconds, rate=RATE, opens=fault.opens)
    assert Counter(answer.status for answer in seen.answers) == {200: len(seen.answers)}
    expected = await computed(port(allinone_url), MODEL, {answer.seed for answer in seen.answers})
    assert [answer.seed for answer in seen.answers if answer.body != expected[answer.seed]] == []
    assert seen.watch.ready
    assert fault.opens in seen.watch.opened | {""}
    assert seen.closed is not None
    assert any(answer.hit for answer in seen.phases[2])
    assert len(said(server)) - lines <= LINES
    assert not any("duet:" in line for line in said(server))  # neither keys nor values


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


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
    with serve("generation", DUET_REDIS_URL="redis://127.0.0.1:1/0", DUET_REDIS_ADMISSION="always") as server:
        assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        assert redis_results(server.url)["unavailable"] > 0
        assert is_ready(server.url)


@pytest.mark.parametrize("cause", [killed, stopped], ids=["killed", "hung"])
async def test_redis_killed_or_hung_while_serving_is_said_once_and_used_when_it_comes_back(
    serve: Any, pair: Pair, cause: Any
) -> None:
    with serve("generation", **PATIENT, **settings(HEALTHY[0], *pair)) as server:
        assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        assert redis_results(server.url).get("unavailable", 0) == 0
        during = asyncio.create_task(ask(server.url, range(1000, 1000 + 5 * SEEDS)))
        await asyncio.sleep(0.1)
        with cause(*pair):
            assert await during == {200: 5 * SEEDS}
            assert await ask(server.url, range(2000, 2000 + SEEDS)) == {200: SEEDS}
            assert redis_results(server.url)["unavailable"] > 0
            assert is_ready(server.url)
            [line] = said(server)
            assert "Redis does not answer" in line
        hits = redis_results(server.url).get("hit", 0)
        while redis_results(server.url).get("hit", 0) == hits:
            assert await ask(server.url, range(SEEDS)) == {200: SEEDS}
        assert "Redis answers again" in said(server)[1]


async def test_a_password_is_rotated_by_replicas_that_restart_one_after_another(serve: Any, pair: Pair) -> None:
    """A second password first, then replicas with it, then the first password goes: all of them share the cache."""
    redis, _ = pair
    replica = partial(serve, "generation", **PATIENT, DUET_REDIS_ADMISSION="always")
    url = f"redis://duet:{{}}@127.0.0.1:{redis.port}/0"
    redis.client.acl_setuser("duet", enabled=True, passwords=["+old"], keys=["duet:*"], categories=["+@all"])
    with replica(DUET_REDIS_URL=url.format("new")) as new:
        with replica(DUET_REDIS_URL=url.format("old")) as old:
            assert await ask(old.url, range(SEEDS)) == {200: SEEDS}
            redis.client.acl_setuser("duet", enabled=True, passwords=["+new"])
            redis.hang_up()
            assert await ask(old.url, range(SEEDS)) == {200: SEEDS}
            assert redis_results(old.url).get("unavailable", 0) == 0
        redis.client.acl_setuser("duet", enabled=True, passwords=["-old"])
        redis.hang_up()
        while redis_results(new.url).get("hit", 0) == 0:  # it began before there was the password that it has
            assert await ask(new.url, range(SEEDS)) == {200: SEEDS}
        assert said(old) == []
        assert is_ready(new.url)
