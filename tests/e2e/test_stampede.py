"""Many ask three replicas the same at once: each computes it once at most, and all together once if it is expensive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import chain
from typing import Any

import httpx
import numpy as np
import pytest
import redis

from loadtests.bench.stampede import CHEAP, DEAR, asks, computed, orphaned, stampede, strike, wait_for_leases
from tests.conftest import RedisServer, start_redis

pytestmark = [pytest.mark.server, pytest.mark.slow]

REPLICAS, REQUESTS = 3, 30


@pytest.fixture(scope="module")
def shared_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with start_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def replicas(serve: Any, shared_redis: RedisServer) -> Iterator[list[Any]]:
    """Classifiers that share a Redis, once all of them have seen that an explanation is worth a lease."""
    with ExitStack() as stack:
        servers = [
            stack.enter_context(serve("classification", DUET_REDIS_URL=shared_redis.url, DUET_THREADS="1"))
            for _ in range(REPLICAS)
        ]
        wait_for_leases([port(each) for each in servers], "digits-cnn")
        yield servers


def port(server: Any) -> int:
    number = httpx.URL(server.url).port
    assert number is not None
    return number


def question(operation: str) -> bytes:
    image = np.random.default_rng().integers(0, 256, (1, 1, 28, 28), np.uint8)
    return asks(operation, image).raw("127.0.0.1")


@pytest.mark.parametrize(("operation", "in_all"), [(CHEAP, REPLICAS), (DEAR, 1)])
async def test_equal_requests_at_once_are_computed_once(replicas: list[Any], operation: str, in_all: int) -> None:
    ports = [port(each) for each in replicas]
    before = [computed(each, operation) for each in ports]
    answers = list(chain(*await stampede(ports, question(operation), REQUESTS)))
    assert [status for status, _ in answers] == [200] * REQUESTS
    assert len({body for _, body in answers}) == 1
    counts = [computed(each, operation) - known for each, known in zip(ports, before, strict=True)]
    assert max(counts) == 1
    assert 1 <= sum(counts) <= in_all


async def test_a_replica_that_dies_while_it_computes_does_not_hold_up_the_others(
    replicas: list[Any], shared_redis: RedisServer
) -> None:
    """It is the last test of these replicas, for it kills one of them."""
    ports = [port(each) for each in replicas]
    before = [computed(each, DEAR) for each in ports[1:]]
    with redis.Redis.from_url(shared_redis.url) as client:
        orphans = await orphaned(
            ports,
            question(DEAR),
            REQUESTS,
            computing=lambda: any(client.scan_iter("duet:*:lease")),
            strike=partial(strike, replicas[0].process.pid),
        )
    killed, *others = ([status for status, _ in answers] for answers in orphans)
    assert set(killed) == {0}
    assert others == [[200] * (REQUESTS // REPLICAS)] * (REPLICAS - 1)
    assert len({body for answers in orphans[1:] for _, body in answers}) == 1
    counts = [computed(each, DEAR) - known for each, known in zip(ports[1:], before, strict=True)]
    assert max(counts) == 1
