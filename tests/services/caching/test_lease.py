"""Replicas agree through Redis on who computes, and none of them waits for one that is gone."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
from redis.asyncio import Redis

from services.caching.cache import Cache
from services.caching.lease import Values, compute_under_lease
from services.caching.memory import MemoryTier
from services.caching.redis import LEASE, RedisTier
from services.call import Call
from services.errors import InferenceFailed
from services.telemetry import metrics

# A `RedisServer` of the conftest: port, process, url; and `Squares` of the folder's.
RedisServer = Squares = Any

pytestmark = pytest.mark.server

LONG = 60  # seconds in which whatever does not hang is done, and that a lease of these tests never reaches


@asynccontextmanager
async def replica(server: RedisServer) -> AsyncIterator[RedisTier]:
    tier = RedisTier(server.url, timeout_seconds=1.0, ttl_seconds=1000)
    await tier.start()
    try:
        end = time.monotonic() + LONG / 2
        while tier.round_trip is None:  # a busy machine is no outage
            assert time.monotonic() < end
            await asyncio.sleep(0.1)
        yield tier
    finally:
        await tier.close()


@pytest.fixture
async def two(redis_server: RedisServer) -> AsyncIterator[tuple[RedisTier, RedisTier]]:
    async with replica(redis_server) as one, replica(redis_server) as other:
        yield one, other


@pytest.fixture
async def caches(two: tuple[RedisTier, RedisTier]) -> tuple[Cache, Cache]:
    one, other = two
    return Cache(MemoryTier(2**20), one), Cache(MemoryTier(2**20), other)


@pytest.fixture
async def dear(make_squares: Callable[..., Squares]) -> Squares:
    """An operation that replicas agree on: 10 s an item, as far as the cache knows."""
    return make_squares(item_seconds=10.0)


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


class Worker:
    """One replica's side of `compute_under_lease`: computes upper case, remembers what it computed and what came."""

    def __init__(self, redis: RedisTier) -> None:
        self.redis = redis
        self.computed: list[str] = []
        self.arrived: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.entered = asyncio.Event()

    async def compute(self, keys: Sequence[str]) -> Values:
        self.computed += keys
        self.entered.set()
        await self.gate.wait()
        return {key: key.upper().encode() for key in keys}

    def arrive(self, values: Values) -> Values:
        self.arrived += values
        return values

    async def ask(self, *keys: str, seconds: float = LONG, patience: float = LONG) -> list[bytes]:
        found = await asyncio.wait_for(
            compute_under_lease(self.redis, keys, self.compute, self.arrive, seconds=seconds, patience=patience),
            LONG / 2,
        )
        return [found[key] for key in keys]


@pytest.fixture
async def workers(two: tuple[RedisTier, RedisTier]) -> tuple[Worker, Worker]:
    return Worker(two[0]), Worker(two[1])


async def leases(client: Redis) -> set[str]:
    return {key.decode().removesuffix(LEASE) for key in await client.keys(f"*{LEASE}")}


async def released(client: Redis) -> None:
    """Until nobody holds a lease, which writes behind the answer see to."""
    end = time.monotonic() + LONG / 2
    while await leases(client):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)


def count(result: str) -> float:
    return float(metrics.CACHE_REQUESTS.labels("lease", result).count)


async def test_one_computes_and_the_other_gets_it(workers: tuple[Worker, Worker], client: Redis) -> None:
    before, (one, other) = count("won"), workers
    one.gate.clear()
    leader = asyncio.create_task(one.ask("a", "b"))
    await one.entered.wait()
    follower = asyncio.create_task(other.ask("a", "b"))
    await asyncio.sleep(0.05)
    assert await leases(client) == {"a", "b"}
    one.gate.set()
    assert await leader == await follower == [b"A", b"B"]
    assert (one.computed, other.computed, other.arrived) == (["a", "b"], [], ["a", "b"])
    assert count("won") - before == 2
    await released(client)


async def test_each_computes_what_the_other_does_not(workers: tuple[Worker, Worker], client: Redis) -> None:
    one, other = workers
    one.gate.clear()
    first = asyncio.create_task(one.ask("a", "b"))
    await one.entered.wait()
    second = asyncio.create_task(other.ask("b", "c"))
    await other.entered.wait()
    one.gate.set()
    assert (await first, await second) == ([b"A", b"B"], [b"B", b"C"])
    assert (one.computed, other.computed) == (["a", "b"], ["c"])
    await released(client)


async def test_two_that_wait_for_each_other_both_get_answers(workers: tuple[Worker, Worker], client: Redis) -> None:
    one, other = workers
    keys = [f"key{number}" for number in range(40)]
    both = await asyncio.gather(one.ask(*keys), other.ask(*reversed(keys)))
    assert both[0] == both[1][::-1] == [key.upper().encode() for key in keys]
    assert sorted(one.computed + other.computed) == sorted(keys)
    await released(client)


async def test_what_is_there_already_is_taken_and_not_computed(workers: tuple[Worker, Worker], client: Redis) -> None:
    await client.set("a", b"there")
    assert await workers[0].ask("a", "b") == [b"there", b"B"]
    assert workers[0].computed == ["b"]
    await released(client)


async def test_a_leader_that_died_holds_others_up_no_longer_than_its_lease(
    workers: tuple[Worker, Worker], client: Redis
) -> None:
    one, other = workers
    assert (await one.redis.lease(["a"], 0.3))[0] == {"a"}  # and nothing more is heard of it
    assert await other.ask("a") == [b"A"]
    assert other.computed == ["a"]
    assert await client.get("a") == b"A", "it took the lease over, and what it computed is for all"
    await released(client)


async def test_a_leader_that_is_cancelled_hands_over(workers: tuple[Worker, Worker], client: Redis) -> None:
    one, other = workers
    one.gate.clear()
    leader = asyncio.create_task(one.ask("a"))
    await one.entered.wait()
    follower = asyncio.create_task(other.ask("a"))
    await asyncio.sleep(0.02)
    assert other.computed == []
    leader.cancel()
    assert await follower == [b"A"]
    assert leader.cancelled()
    assert other.computed == ["a"]
    await released(client)


async def test_nobody_waits_for_others_beyond_their_patience(workers: tuple[Worker, Worker], client: Redis) -> None:
    one, other = workers
    await one.redis.lease(["a"], LONG)
    for patience in (0.05, 0.0, -1.0):
        assert await other.ask("a", patience=patience) == [b"A"]
    assert other.computed == ["a"] * 3
    assert await leases(client) == {"a"}, "it is not theirs to give back"


async def test_nobody_waits_longer_than_a_lease_of_their_own_would_hold(workers: tuple[Worker, Worker]) -> None:
    one, other = workers
    await one.redis.lease(["a"], LONG)
    assert await other.ask("a", seconds=0.05) == [b"A"]
    assert other.computed == ["a"]


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
async def test_without_redis_everybody_computes(
    workers: tuple[Worker, Worker], redis_server: RedisServer, fault: signal.Signals
) -> None:
    one, other = workers
    redis_server.process.send_signal(fault)
    assert await asyncio.gather(one.ask("a"), other.ask("a")) == [[b"A"], [b"A"]]
    assert (one.computed, other.computed) == (["a"], ["a"])


async def test_a_redis_that_goes_while_somebody_waits_means_compute(
    workers: tuple[Worker, Worker], redis_server: RedisServer
) -> None:
    one, other = workers
    await one.redis.lease(["a"], LONG)
    follower = asyncio.create_task(other.ask("a"))
    await asyncio.sleep(0.02)
    redis_server.process.kill()
    assert await follower == [b"A"]
    assert other.computed == ["a"]


async def test_replicas_compute_an_expensive_answer_once_in_all(
    caches: tuple[Cache, Cache], dear: Squares, client: Redis
) -> None:
    one, other = caches
    assert one.estimate(dear.subject).leases
    dear.gate.clear()
    asked = [asyncio.create_task(dear.ask(cache, 7)) for cache in (one, other) for _ in range(50)]
    await dear.entered.wait()
    await asyncio.sleep(0.1)
    dear.gate.set()
    assert await asyncio.wait_for(asyncio.gather(*asked), LONG) == [[49]] * 100
    assert dear.batches == [[7]]
    await released(client)
    dear.subject.layout.check(await client.get(dear.key(7)) or b"")


async def test_what_another_replica_computed_meanwhile_is_a_hit(
    caches: tuple[Cache, Cache], dear: Squares, client: Redis
) -> None:
    one, other = caches
    dear.gate.clear()
    leader = asyncio.create_task(dear.ask(one, 7))
    await dear.entered.wait()
    call = Call()
    follower = asyncio.create_task(dear.ask(other, 7, call=call))
    await asyncio.sleep(0.05)
    dear.gate.set()
    assert await asyncio.gather(leader, follower) == [[49], [49]]
    assert call.cache_status == "hit; hits=1/1"
    assert (await dear.ask(other, 7), dear.batches) == ([49], [[7]]), "it is in the follower's memory"


async def test_cheap_answers_are_not_agreed_on(caches: tuple[Cache, Cache], squares: Squares, client: Redis) -> None:
    cache = caches[0]
    squares.item_seconds = 1e-9
    assert not cache.estimate(squares.subject).leases
    await client.config_resetstat()
    await squares.ask(cache, 7)
    assert await client.dbsize() == 0


async def test_a_replica_whose_model_fails_gives_its_lease_back(
    caches: tuple[Cache, Cache], make_squares: Callable[..., Squares], client: Redis
) -> None:
    failing, working = make_squares(item_seconds=10.0, poison=7), make_squares(item_seconds=10.0)
    failing.gate.clear()
    leader = asyncio.create_task(failing.ask(caches[0], 7))
    await failing.entered.wait()
    follower = asyncio.create_task(working.ask(caches[1], 7))
    await asyncio.sleep(0.02)
    failing.gate.set()
    with pytest.raises(InferenceFailed, match="7 is poison"):
        await leader
    assert await asyncio.wait_for(follower, LONG / 2) == [49]
    await released(client)


async def test_a_request_that_is_cancelled_gives_its_lease_back(
    caches: tuple[Cache, Cache], dear: Squares, client: Redis
) -> None:
    dear.gate.clear()
    leader = asyncio.create_task(dear.ask(caches[0], 7))
    await dear.entered.wait()
    assert await leases(client) == {dear.key(7)}
    leader.cancel()
    await released(client)
    dear.gate.set()
    assert await asyncio.wait_for(dear.ask(caches[1], 7), LONG / 2) == [49]


async def test_a_replica_that_died_is_outlived(
    redis_server: RedisServer, dear: Squares, client: Redis, caches: tuple[Cache, Cache]
) -> None:
    async with AsyncExitStack() as stack:
        dying = await stack.enter_async_context(replica(redis_server))
        assert (await dying.lease([dear.key(7)], 0.4))[0] == {dear.key(7)}
    assert await asyncio.wait_for(dear.ask(caches[1], 7), LONG / 2) == [49]
    assert dear.batches == [[7]]


async def test_a_request_leaves_itself_time_to_compute(caches: tuple[Cache, Cache], dear: Squares) -> None:
    """Somebody else holds the lease, but waiting for them would leave less than computing takes."""
    await caches[0]._redis.lease([dear.key(7)], LONG)  # type: ignore[union-attr]
    call = Call(deadline=time.monotonic() + 10.0)  # of which computing takes all
    assert await asyncio.wait_for(dear.ask(caches[1], 7, call=call), LONG / 2) == [49]
    assert dear.batches == [[7]]


async def test_a_damaged_value_is_computed_anew_under_a_lease(
    caches: tuple[Cache, Cache], dear: Squares, client: Redis
) -> None:
    await client.set(dear.key(7), b"damaged")
    assert await asyncio.wait_for(dear.ask(caches[0], 7), LONG / 2) == [49]
    assert dear.batches == [[7]]
    await released(client)
