"""Memory and Redis behind one cache: what each is asked and given, whatever becomes of the other."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from services.caching.cache import Cache
from services.caching.memory import MemoryTier
from services.caching.redis import RedisTier
from services.caching.values import Layout
from services.call import Call
from services.settings import Settings
from services.telemetry import metrics
from tests.services.caching.redis_faults import RedisServer, written

Squares = Any  # of the folder's conftest

MIB = 2**20


def count(tier: str, result: str) -> float:
    return float(metrics.CACHE_REQUESTS.labels(tier, result).count)


async def test_requests_are_counted_by_tier_and_result(squares: Squares) -> None:
    before = {result: count("memory", result) for result in ("hit", "miss")}
    cache = Cache(MemoryTier(MIB))
    await squares.ask(cache, 1)
    await squares.ask(cache, 1, 2, 3)
    assert {result: count("memory", result) - before[result] for result in before} == {"hit": 1, "miss": 3}


@pytest.mark.server
async def test_what_redis_finds_is_copied_to_memory_and_not_the_other_way_round(
    squares: Squares, tier: RedisTier, client: Redis
) -> None:
    memory = MemoryTier(MIB)
    memory.put({squares.key(1): squares.value(1)})
    tier.keep({squares.key(2): squares.value(2)})
    await written(tier)
    call = Call()
    assert await squares.ask(Cache(memory, tier, admission="always"), 1, 2, call=call) == [1, 4]
    assert call.cache_status == "hit; hits=2/2"
    assert squares.batches == []
    assert set(memory.get([squares.key(1), squares.key(2)])) == {squares.key(1), squares.key(2)}
    assert not await client.exists(squares.key(1))


@pytest.mark.server
async def test_redis_is_asked_only_for_what_memory_lacks(squares: Squares, tier: RedisTier) -> None:
    before = {result: count("redis", result) for result in ("hit", "miss")}
    memory = MemoryTier(MIB)
    memory.put({squares.key(1): squares.value(1)})
    await squares.ask(Cache(memory, tier, admission="always"), 1, 2, 1, 2)
    assert {result: count("redis", result) - before[result] for result in before} == {"hit": 0, "miss": 1}


@pytest.mark.server
async def test_two_replicas_share_answers_through_redis(squares: Squares, tier: RedisTier) -> None:
    one, other = (Cache(MemoryTier(MIB), tier, admission="always") for _ in range(2))
    await squares.ask(one, 1, 2)
    await written(tier)
    call = Call()
    assert await squares.ask(other, 2, 1, 3, call=call) == [4, 1, 9]
    assert squares.batches == [[1, 2], [3]]
    assert call.cache_status == "partial; hits=2/3"
    assert call.age is not None


@pytest.mark.server
async def test_redis_alone_is_a_cache_too(squares: Squares, tier: RedisTier) -> None:
    cache = Cache(None, tier, admission="always")
    await squares.ask(cache, 1)
    await written(tier)
    assert await squares.ask(cache, 1) == [1]
    assert squares.batches == [[1]]


@pytest.mark.server
@pytest.mark.parametrize("admission", ["auto", "never"])
async def test_a_request_that_is_computed_sooner_than_asked_for_leaves_redis_alone(
    squares: Squares, tier: RedisTier, client: Redis, admission: Any
) -> None:
    before = count("redis", "skipped")
    await tier.start()
    assert tier.round_trip is not None
    cache = Cache(None, tier, admission=admission)
    squares.item_seconds = tier.round_trip / 1e4
    for _ in range(2):
        await squares.ask(cache, 1, 2, 3)
    await squares.ask(cache, 1, call=Call(read_cache=False))
    assert count("redis", "skipped") - before == 6
    assert await client.dbsize() == 0
    if admission == "auto":  # the same request is worth asking for where items take longer
        squares.item_seconds = tier.round_trip
        await squares.ask(cache, 1, 2, 3)
        await written(tier)
        assert await client.dbsize() == 3


@pytest.mark.server
@pytest.mark.parametrize("item_seconds", [1e-6, 10.0])
async def test_a_value_over_the_bound_does_not_go_to_redis(
    squares: Squares, tier: RedisTier, client: Redis, item_seconds: float
) -> None:
    await tier.start()
    squares.item_seconds = item_seconds
    cache = Cache(MemoryTier(MIB), tier, admission="always", value_bytes=squares.subject.layout.value_bytes - 1)
    assert await squares.ask(cache, 1) == [1]
    assert await squares.ask(cache, 1, call=Call(read_cache=False)) == [1]
    await written(tier)
    assert await client.keys() == []


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda value: b"",
    "magic alone": lambda value: value[:4],
    "a byte short": lambda value: value[:-1],
    "a byte long": lambda value: value + b"\0",
    "a flipped bit": lambda value: value[:-1] + bytes([value[-1] ^ 1]),
    "another schema": lambda value: b"DUE1" + value[4:],
    "a pickle": lambda value: pickle.dumps({"square": np.array(1)}),
    "other outputs": lambda value: Layout.of({"x": np.zeros((1, len(value) - 12), np.uint8)}).encode(
        {"x": np.frombuffer(value[12:], np.uint8)[None]}
    )[0],
}


@pytest.mark.server
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_value_in_redis_is_a_miss_and_is_replaced(
    squares: Squares, tier: RedisTier, client: Redis, damage: str
) -> None:
    before = count("redis", "corrupt")
    await client.set(squares.key(1), DAMAGE[damage](squares.value(1)))
    memory, call = MemoryTier(MIB), Call()
    assert await squares.ask(Cache(memory, tier, admission="always"), 1, call=call) == [1]
    assert call.cache_status == "miss; hits=0/1"
    assert count("redis", "corrupt") - before == 1
    assert list(memory.get([squares.key(1)])) == [squares.key(1)]
    await written(tier)
    kept = await client.get(squares.key(1))
    if kept is not None:  # deleting and writing may overtake one another
        squares.subject.layout.check(kept)


@pytest.mark.server
async def test_a_damaged_value_is_deleted_where_nothing_takes_its_place(
    squares: Squares, tier: RedisTier, client: Redis
) -> None:
    await client.set(squares.key(13), b"damaged")
    squares.poison = 13
    with pytest.raises(Exception, match="13 is poison"):
        await squares.ask(Cache(None, tier, admission="always"), 13)
    await written(tier)
    assert not await client.exists(squares.key(13))


@pytest.mark.server
async def test_with_redis_frozen_memory_still_answers_and_keeps(
    squares: Squares, hasty: RedisTier, redis_server: RedisServer
) -> None:
    before = count("redis", "unavailable"), count("redis", "unwritten")
    cache = Cache(MemoryTier(MIB), hasty, admission="always")
    await squares.ask(cache, 1)
    redis_server.process.send_signal(signal.SIGSTOP)
    assert await squares.ask(cache, 1, 2) == [1, 4]
    call = Call()
    assert await squares.ask(cache, 2, 1, 3, call=call) == [4, 1, 9]
    assert call.cache_status == "partial; hits=2/3"
    assert squares.batches == [[1], [2], [3]]
    assert count("redis", "unavailable") - before[0] == 2
    assert count("redis", "unwritten") - before[1] == 2


@pytest.mark.server
async def test_settings_make_the_tiers(redis_server: RedisServer, squares: Squares) -> None:
    async def tiers(**settings: Any) -> tuple[bool, bool, str]:
        cache = Cache.from_settings(Settings(**settings))
        await cache.start()
        try:
            return cache._memory is not None, cache._redis is not None, cache.estimate(squares.subject).admission
        finally:
            await cache.close()

    url = redis_server.url
    assert await tiers() == (True, False, "never")
    assert await tiers(redis_url=url) == (True, True, "auto")
    assert await tiers(redis_url=url, redis_admission="always", cache_memory_bytes=0) == (False, True, "always")
    assert await tiers(redis_url=url, redis_admission="never") == (True, False, "never")
    assert await tiers(cache_memory_bytes=0) == (False, False, "never")
