"""The cache answers with what was computed or not at all, whatever becomes of its tiers."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from services.caching.cache import Cache, Item, Tier
from services.caching.keys import item_keys
from services.caching.memory import MemoryTier
from services.caching.redis import RedisTier, RedisUnavailable
from services.caching.values import encode
from services.inference.bundle import Bundle
from services.inference.classifier import Classifier
from services.settings import Settings
from services.telemetry import metrics

# A `RedisServer` of the conftest: port, process, url.
RedisServer = Any

MIB = 2**20


class Failing:
    """A tier that is there and never answers."""

    name = "redis"

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        raise RedisUnavailable

    async def put(self, values: Mapping[str, bytes]) -> None:
        raise RedisUnavailable

    async def delete(self, keys: Sequence[str]) -> None:
        raise RedisUnavailable

    async def close(self) -> None:
        pass


def item(number: float) -> Item:
    return {"score": np.array([number], np.float32)}


def same(found: dict[str, Item], expected: dict[str, Item]) -> bool:
    return encode_all(found) == encode_all(expected)


def encode_all(items: dict[str, Item]) -> dict[str, bytes]:
    return {key: encode(value) for key, value in items.items()}


def count(tier: str, result: str) -> float:
    return float(metrics.CACHE_REQUESTS.labels(tier, result)._value.get())


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    tier = RedisTier(redis_server.url, timeout_seconds=0.25, ttl_seconds=1000)
    yield tier
    await tier.close()


async def test_what_was_put_is_found_and_nothing_else() -> None:
    cache = Cache([MemoryTier(MIB)], value_bytes=MIB)
    await cache.put({"a": item(1), "b": item(2)})
    assert same(await cache.get(["b", "unknown", "a", "b"]), {"a": item(1), "b": item(2)})


async def test_without_tiers_nothing_is_kept() -> None:
    cache = Cache([], value_bytes=MIB)
    await cache.put({"a": item(1)})
    assert await cache.get(["a"]) == {}


async def test_a_value_over_the_bound_is_not_kept_beside_one_at_the_bound() -> None:
    small, large = {"x": np.zeros(10, np.uint8)}, {"x": np.zeros(11, np.uint8)}
    cache = Cache([MemoryTier(MIB)], value_bytes=len(encode(small)))
    await cache.put({"small": small, "large": large})
    assert list(await cache.get(["small", "large"])) == ["small"]


async def test_what_a_slower_tier_finds_is_copied_to_the_faster_ones() -> None:
    fast, slow = MemoryTier(MIB), MemoryTier(MIB)
    await slow.put({"a": encode(item(1))})
    await fast.put({"b": encode(item(2))})
    assert set(await Cache([fast, slow], value_bytes=MIB).get(["a", "b"])) == {"a", "b"}
    assert await fast.get(["a"]) == [encode(item(1))]
    assert await slow.get(["b"]) == [None]  # a read writes to faster tiers only


async def test_a_slower_tier_is_asked_only_for_what_is_still_missing() -> None:
    fast, slow = MemoryTier(MIB), MemoryTier(MIB)
    await fast.put({"a": encode(item(1))})
    await slow.put({"a": encode(item(999)), "b": encode(item(2))})
    found = await Cache([fast, slow], value_bytes=MIB).get(["a", "b"])
    assert same(found, {"a": item(1), "b": item(2)})


async def test_a_failing_tier_costs_nothing() -> None:
    before = count("redis", "unavailable"), count("redis", "unwritten")
    memory = MemoryTier(MIB)
    orders: list[list[Tier]] = [[memory, Failing()], [Failing(), memory]]
    for tiers in orders:
        cache = Cache(tiers, value_bytes=MIB)
        await cache.put({"a": item(1)})
        assert same(await cache.get(["a", "b"]), {"a": item(1)})
        await cache.close()
    # Memory first: only the miss asks it; failing first: both keys do, and copying what memory found fails once more.
    assert count("redis", "unavailable") - before[0] == 3
    assert count("redis", "unwritten") - before[1] == 3


async def test_a_damaged_value_is_a_miss_and_is_deleted() -> None:
    before = count("memory", "corrupt")
    memory = MemoryTier(MIB)
    await memory.put({"a": encode(item(1))[:-1], "b": encode(item(2))})
    assert same(await Cache([memory], value_bytes=MIB).get(["a", "b"]), {"b": item(2)})
    assert await memory.get(["a"]) == [None]
    assert count("memory", "corrupt") - before == 1


async def test_a_damaged_value_is_not_copied_but_asked_for_below() -> None:
    fast, slow = MemoryTier(MIB), MemoryTier(MIB)
    await fast.put({"a": b"damaged"})
    await slow.put({"a": encode(item(1))})
    assert same(await Cache([fast, slow], value_bytes=MIB).get(["a"]), {"a": item(1)})
    assert await fast.get(["a"]) == [encode(item(1))]


async def test_requests_are_counted_by_tier_and_result() -> None:
    before = {result: count("memory", result) for result in ("hit", "miss")}
    cache = Cache([MemoryTier(MIB)], value_bytes=MIB)
    await cache.put({"a": item(1)})
    await cache.get(["a", "b", "c"])
    assert {result: count("memory", result) - before[result] for result in before} == {"hit": 1, "miss": 2}


@pytest.mark.server
async def test_two_replicas_share_answers_through_redis(redis: RedisTier) -> None:
    one, other = (Cache([MemoryTier(MIB), redis], value_bytes=MIB) for _ in range(2))
    await one.put({"a": item(1)})
    assert same(await other.get(["a"]), {"a": item(1)})


@pytest.mark.server
@pytest.mark.parametrize("damage", [b"", b"DUE1", b"DUE1\0\0\0\0", b"\x80\x04N.", encode(item(1))[:-1]])
async def test_a_damaged_value_in_redis_is_a_miss_and_is_deleted(
    redis: RedisTier, redis_server: RedisServer, damage: bytes
) -> None:
    cache = Cache([MemoryTier(MIB), redis], value_bytes=MIB)
    async with Redis.from_url(redis_server.url) as client:
        await client.set("a", damage)
        assert await cache.get(["a"]) == {}
        assert not await client.exists("a")


@pytest.mark.server
async def test_with_redis_frozen_memory_still_answers_and_keeps(redis: RedisTier, redis_server: RedisServer) -> None:
    cache = Cache([MemoryTier(MIB), redis], value_bytes=MIB)
    await cache.put({"a": item(1)})
    redis_server.process.send_signal(signal.SIGSTOP)
    await cache.put({"b": item(2)})
    assert same(await cache.get(["a", "b", "c"]), {"a": item(1), "b": item(2)})


@pytest.mark.server
async def test_settings_make_the_tiers(redis_server: RedisServer) -> None:
    def tiers(**settings: Any) -> list[str]:
        cache = Cache.from_settings(Settings(**settings))
        return [tier.name for tier in cache._tiers]

    assert tiers() == ["memory"]
    assert tiers(redis_url=redis_server.url) == ["memory", "redis"]
    assert tiers(redis_url=redis_server.url, cache_memory_bytes=0) == ["redis"]
    assert tiers(cache_memory_bytes=0) == []


async def test_a_cached_answer_is_the_computed_one_bit_by_bit(make_bundle: Any) -> None:
    bundle: Bundle = make_bundle(weight=0.01)
    model = Classifier(bundle)
    images = np.random.default_rng(0).integers(0, 256, (32, 1, 2, 2), np.uint8)
    computed = model.run("classify", {"images": images})
    keys = item_keys(bundle.digest, "classify", {"images": images}, len(images))
    cache = Cache([MemoryTier(MIB)], value_bytes=MIB)
    await cache.put({key: {name: array[i] for name, array in computed.items()} for i, key in enumerate(keys)})
    found = await cache.get(keys)
    for name, array in computed.items():
        assert np.stack([found[key][name] for key in keys]).tobytes() == array.tobytes()
