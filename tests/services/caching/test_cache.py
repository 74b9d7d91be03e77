"""The cache answers with what was computed or not at all, whatever becomes of its tiers."""

from __future__ import annotations

import asyncio
import pickle
import signal
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from services.caching.cache import Cache, Subject
from services.caching.memory import MemoryTier
from services.caching.redis import RedisTier
from services.caching.values import Layout
from services.errors import DeadlineExceeded
from services.inference.bundle import Bundle
from services.inference.classifier import Classifier
from services.settings import Settings
from services.telemetry import metrics
from services.telemetry.call import Call

# A `RedisServer` of the conftest: port, process, url; and `Squares` of the folder's.
RedisServer = Squares = Any

MIB = 2**20


def count(tier: str, result: str) -> float:
    return float(metrics.CACHE_REQUESTS.labels(tier, result)._value.get())


def in_memory() -> Cache:
    return Cache(MemoryTier(MIB))


async def written(tier: RedisTier) -> None:
    """Until nothing is on its way to Redis."""
    while tier._pending:
        await asyncio.wait(tier._pending)


@pytest.fixture
async def redis(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    tier = RedisTier(redis_server.url, timeout_seconds=30, ttl_seconds=1000)  # a busy machine is no outage
    yield tier
    await tier.close()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


async def test_what_was_asked_before_is_found_and_nothing_else(squares: Squares) -> None:
    cache, first, second = in_memory(), Call(), Call()
    assert await squares.ask(cache, 1, 2, call=first) == [1, 4]
    assert await squares.ask(cache, 2, 3, 1, 2, call=second) == [4, 9, 1, 4]
    assert squares.batches == [[1, 2], [3]]
    assert (first.cache_status, second.cache_status) == ("miss; hits=0/2", "partial; hits=3/4")


@given(requests=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), max_size=8))
async def test_every_number_is_computed_once_and_hits_are_counted(
    make_squares: Callable[[], Squares], requests: list[list[int]]
) -> None:
    cache, known, squares = in_memory(), set[int](), make_squares()
    for numbers in requests:
        call = Call()
        assert await squares.ask(cache, *numbers, call=call) == [number**2 for number in numbers]
        assert (call.hits, call.lookups) == (sum(number in known for number in numbers), len(numbers))
        assert (call.age is None) == (call.hits == 0)
        known |= set(numbers)
    assert squares.computed == sorted(known)


async def test_without_tiers_nothing_is_kept(squares: Squares) -> None:
    for _ in range(2):
        call = Call()
        assert await squares.ask(Cache(), 1, 1, call=call) == [1, 1]
        assert call.cache_status == "bypass"
    assert squares.batches == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("bound", "found"), [(0, "hit; hits=1/1"), (-1, "miss; hits=0/1")])
async def test_a_value_over_the_bound_is_not_kept_and_one_at_the_bound_is(
    squares: Squares, bound: int, found: str
) -> None:
    cache = Cache(MemoryTier(MIB), value_bytes=squares.subject.layout.value_bytes + bound)
    await squares.ask(cache, 1)
    call = Call()
    await squares.ask(cache, 1, call=call)
    assert call.cache_status == found


async def test_no_store_neither_reads_nor_writes(squares: Squares) -> None:
    cache = in_memory()
    for _ in range(2):
        call = Call(read_cache=False, write_cache=False)
        assert await squares.ask(cache, 2, call=call) == [4]
        assert (call.cache_status, call.age) == ("bypass", None)
    after = Call()
    await squares.ask(cache, 2, call=after)
    assert after.cache_status == "miss; hits=0/1"


async def test_no_cache_computes_anew_and_keeps_the_answer(squares: Squares) -> None:
    cache, call, after = in_memory(), Call(read_cache=False), Call()
    await squares.ask(cache, 2)
    assert await squares.ask(cache, 2, 3, call=call) == [4, 9]
    assert squares.batches == [[2], [2, 3]]
    assert (call.cache_status, call.age) == ("bypass", None)
    await squares.ask(cache, 3, call=after)
    assert after.cache_status == "hit; hits=1/1"


async def test_a_call_is_as_old_as_its_oldest_hit(squares: Squares, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, now = in_memory(), time.time()
    for number, age in ((1, 500), (2, 9000), (3, 70)):
        monkeypatch.setattr("services.caching.values.time.time", lambda age=age: now - age)
        await squares.ask(cache, number)
    monkeypatch.setattr("services.caching.values.time.time", lambda: now)
    for numbers, age in (((1, 2, 3, 4), 9000), ((3, 1), 500), ((3,), 70), ((4,), 0)):
        call = Call()
        await squares.ask(cache, *numbers, call=call)
        assert call.age is not None
        assert abs(call.age - age) <= 1


async def test_an_answer_that_is_found_too_late_is_none(squares: Squares) -> None:
    cache = in_memory()
    await squares.ask(cache, 1)
    with pytest.raises(DeadlineExceeded) as caught:
        await squares.ask(cache, 1, call=Call(deadline=time.monotonic() - 1))
    assert caught.value.field == "X-Request-Timeout-Ms"


async def test_other_operations_and_bundles_have_answers_of_their_own(make_squares: Callable[..., Squares]) -> None:
    cache, one, other = in_memory(), make_squares(), make_squares(digest="ab" * 31 + "cd")
    await one.ask(cache, 1)
    await other.ask(cache, 1)
    one.subject = Subject(one.digest, "another", one.subject.layout, one.subject.item_seconds)
    await one.ask(cache, 1)
    assert (one.batches, other.batches) == ([[1], [1]], [[1]])


async def test_what_is_answered_belongs_to_the_caller(squares: Squares) -> None:
    cache, numbers = in_memory(), {"x": np.array([3])}

    async def compute(rows: np.ndarray | None) -> dict[str, np.ndarray]:
        return squares.run(numbers["x"])

    for _ in range(3):
        outputs = await cache.answer(squares.subject, numbers, Call(), compute)
        assert outputs["square"].tolist() == [9]
        outputs["square"][:] = -1


async def test_requests_are_counted_by_tier_and_result(squares: Squares) -> None:
    before = {result: count("memory", result) for result in ("hit", "miss")}
    cache = in_memory()
    await squares.ask(cache, 1)
    await squares.ask(cache, 1, 2, 3)
    assert {result: count("memory", result) - before[result] for result in before} == {"hit": 1, "miss": 3}


@pytest.mark.server
async def test_what_redis_finds_is_copied_to_memory_and_not_the_other_way_round(
    squares: Squares, redis: RedisTier, client: Redis
) -> None:
    memory = MemoryTier(MIB)
    memory.put({squares.key(1): squares.value(1)})
    redis.keep({squares.key(2): squares.value(2)})
    await written(redis)
    call = Call()
    assert await squares.ask(Cache(memory, redis, admission="always"), 1, 2, call=call) == [1, 4]
    assert call.cache_status == "hit; hits=2/2"
    assert squares.batches == []
    assert set(memory.get([squares.key(1), squares.key(2)])) == {squares.key(1), squares.key(2)}
    assert not await client.exists(squares.key(1))


@pytest.mark.server
async def test_redis_is_asked_only_for_what_memory_lacks(squares: Squares, redis: RedisTier) -> None:
    before = {result: count("redis", result) for result in ("hit", "miss")}
    memory = MemoryTier(MIB)
    memory.put({squares.key(1): squares.value(1)})
    await squares.ask(Cache(memory, redis, admission="always"), 1, 2, 1, 2)
    assert {result: count("redis", result) - before[result] for result in before} == {"hit": 0, "miss": 1}


@pytest.mark.server
async def test_two_replicas_share_answers_through_redis(squares: Squares, redis: RedisTier) -> None:
    one, other = (Cache(MemoryTier(MIB), redis, admission="always") for _ in range(2))
    await squares.ask(one, 1, 2)
    await written(redis)
    call = Call()
    assert await squares.ask(other, 2, 1, 3, call=call) == [4, 1, 9]
    assert squares.batches == [[1, 2], [3]]
    assert call.cache_status == "partial; hits=2/3"
    assert call.age is not None


@pytest.mark.server
async def test_redis_alone_is_a_cache_too(squares: Squares, redis: RedisTier) -> None:
    cache = Cache(None, redis, admission="always")
    await squares.ask(cache, 1)
    await written(redis)
    assert await squares.ask(cache, 1) == [1]
    assert squares.batches == [[1]]


@pytest.mark.server
@pytest.mark.parametrize("admission", ["auto", "never"])
async def test_a_request_that_is_computed_sooner_than_asked_for_leaves_redis_alone(
    squares: Squares, redis: RedisTier, client: Redis, admission: Any
) -> None:
    before = count("redis", "skipped")
    await redis.start()
    assert redis.round_trip is not None
    cache = Cache(None, redis, admission=admission)
    squares.item_seconds = redis.round_trip / 1e4
    for _ in range(2):
        await squares.ask(cache, 1, 2, 3)
    await squares.ask(cache, 1, call=Call(read_cache=False))
    assert count("redis", "skipped") - before == 6
    assert await client.dbsize() == 0
    if admission == "auto":  # the same request is worth asking for where items take longer
        squares.item_seconds = redis.round_trip
        await squares.ask(cache, 1, 2, 3)
        await written(redis)
        assert await client.dbsize() == 3


@pytest.mark.server
@pytest.mark.parametrize("item_seconds", [1e-6, 10.0])
async def test_a_value_over_the_bound_does_not_go_to_redis(
    squares: Squares, redis: RedisTier, client: Redis, item_seconds: float
) -> None:
    await redis.start()
    squares.item_seconds = item_seconds
    cache = Cache(MemoryTier(MIB), redis, admission="always", value_bytes=squares.subject.layout.value_bytes - 1)
    assert await squares.ask(cache, 1) == [1]
    assert await squares.ask(cache, 1, call=Call(read_cache=False)) == [1]
    await written(redis)
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
    squares: Squares, redis: RedisTier, client: Redis, damage: str
) -> None:
    before = count("redis", "corrupt")
    await client.set(squares.key(1), DAMAGE[damage](squares.value(1)))
    memory, call = MemoryTier(MIB), Call()
    assert await squares.ask(Cache(memory, redis, admission="always"), 1, call=call) == [1]
    assert call.cache_status == "miss; hits=0/1"
    assert count("redis", "corrupt") - before == 1
    assert list(memory.get([squares.key(1)])) == [squares.key(1)]
    await written(redis)
    kept = await client.get(squares.key(1))
    if kept is not None:  # deleting and writing may overtake one another
        squares.subject.layout.check(kept)


@pytest.mark.server
async def test_a_damaged_value_is_deleted_where_nothing_takes_its_place(
    squares: Squares, redis: RedisTier, client: Redis
) -> None:
    await client.set(squares.key(13), b"damaged")
    squares.poison = 13
    with pytest.raises(Exception, match="13 is poison"):
        await squares.ask(Cache(None, redis, admission="always"), 13)
    await written(redis)
    assert not await client.exists(squares.key(13))


@pytest.mark.server
async def test_with_redis_frozen_memory_still_answers_and_keeps(squares: Squares, redis_server: RedisServer) -> None:
    before = count("redis", "unavailable"), count("redis", "unwritten")
    redis = RedisTier(redis_server.url, timeout_seconds=1.0, ttl_seconds=1000)
    cache = Cache(MemoryTier(MIB), redis, admission="always")
    await squares.ask(cache, 1)
    redis_server.process.send_signal(signal.SIGSTOP)
    assert await squares.ask(cache, 1, 2) == [1, 4]
    call = Call()
    assert await squares.ask(cache, 2, 1, 3, call=call) == [4, 1, 9]
    assert call.cache_status == "partial; hits=2/3"
    assert squares.batches == [[1], [2], [3]]
    assert count("redis", "unavailable") - before[0] == 2
    assert count("redis", "unwritten") - before[1] == 2
    await cache.close()


@pytest.mark.server
async def test_settings_make_the_tiers(redis_server: RedisServer, squares: Squares) -> None:
    async def tiers(**settings: Any) -> tuple[bool, bool, str]:
        cache = Cache.from_settings(Settings(**settings))
        await cache.start()
        try:
            return cache._memory is not None, cache._redis is not None, cache.worth(squares.subject).admission
        finally:
            await cache.close()

    url = redis_server.url
    assert await tiers() == (True, False, "never")
    assert await tiers(redis_url=url) == (True, True, "auto")
    assert await tiers(redis_url=url, redis_admission="always", cache_memory_bytes=0) == (False, True, "always")
    assert await tiers(redis_url=url, redis_admission="never") == (True, False, "never")
    assert await tiers(cache_memory_bytes=0) == (False, False, "never")


async def test_a_cached_answer_is_the_computed_one_bit_by_bit(make_bundle: Any) -> None:
    bundle: Bundle = make_bundle(weight=0.01)
    model, cache = Classifier(bundle), in_memory()
    images = {"images": np.random.default_rng(0).integers(0, 256, (32, 1, 2, 2), np.uint8)}
    computed = model.run("classify", images)
    subject = Subject(bundle.digest, "classify", Layout.of(computed), lambda: 1e-6)

    async def compute(rows: np.ndarray | None) -> dict[str, np.ndarray]:
        assert rows is None
        return computed

    for expected in ("miss; hits=0/32", "hit; hits=32/32"):
        call = Call()
        found = await cache.answer(subject, images, call, compute)
        assert call.cache_status == expected
        for name, array in computed.items():
            assert found[name].tobytes() == array.tobytes()
