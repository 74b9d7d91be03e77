"""The Redis tier in outages: killed, frozen, restarted, late; it is asked once, left alone, and used again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from redis.asyncio import Redis

from services.caching.redis import RedisTier, RedisUnavailable
from tests.services.caching.redis_faults import (
    HASTY,
    PATIENCE,
    TTL,
    RedisServer,
    answering,
    breaker,
    frozen,
    keep,
    kill,
    restarted,
    started,
    until,
    unwritten,
)

pytestmark = pytest.mark.server


async def test_a_redis_that_was_killed_is_unavailable(tier: RedisTier, redis_server: RedisServer) -> None:
    await keep(tier, {"a": b"1"})
    kill(redis_server)
    for ask in (lambda: tier.get(["a"]), lambda: tier.lease(["a"], 1)):
        with pytest.raises(RedisUnavailable):
            await ask()
    before = unwritten()
    await keep(tier, {"a": b"1", "b": b"2"})
    tier.drop(["a"])
    await keep(tier, {})
    assert unwritten() - before == 2


async def test_a_redis_that_comes_back_is_used_again(probing: RedisTier, redis_server: RedisServer) -> None:
    for number in range(8):  # several pooled connections
        probing.keep({f"{number}": b"1"})
    await keep(probing, {"a": b"1"})
    kill(redis_server)
    with pytest.raises(RedisUnavailable):
        await probing.get(["a"])
    async with started(redis_server.process.args, redis_server.url):
        assert await answering(probing, ["a"]) == {}
        await keep(probing, {"a": b"2"})
        assert await answering(probing, ["a"]) == {"a": b"2"}


async def test_a_redis_that_comes_later_is_used_from_then_on(
    redis_server: RedisServer,
) -> None:
    kill(redis_server)
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    await tier.start()
    try:
        assert tier.round_trip is None
        with pytest.raises(RedisUnavailable):
            await tier.get(["a"])
        async with started(redis_server.process.args, redis_server.url):
            assert await answering(tier, ["a"]) == {}
            assert tier.round_trip is not None
    finally:
        await tier.close()


async def test_a_restart_between_two_questions_goes_unnoticed(tier: RedisTier, redis_server: RedisServer) -> None:
    for number in range(8):
        tier.keep({f"{number}": b"1"})
    await keep(tier, {"a": b"1"})
    async with restarted(redis_server):
        assert await tier.get(["a"]) == {}  # the connections of before are dead, and no pause follows
        await keep(tier, {"a": b"2"})
        assert await asyncio.gather(*(tier.get(["a"]) for _ in range(16))) == [{"a": b"2"}] * 16


async def test_a_frozen_redis_is_asked_once_and_then_left_alone(
    hasty: RedisTier, redis_server: RedisServer, client: Redis
) -> None:
    with frozen(redis_server), pytest.raises(RedisUnavailable):
        await hasty.get(["a"])
    assert breaker("read") == 1
    await client.config_resetstat()
    for ask in (lambda: hasty.get(["a"]), lambda: hasty.lease(["a"], 1)):  # it would answer now, but it is not asked
        for _ in range(3):
            with pytest.raises(RedisUnavailable):
                await ask()
    assert set(await client.info("commandstats")) <= {"cmdstat_info", "cmdstat_config|resetstat"}


async def test_a_probe_closes_the_breaker(probing: RedisTier, redis_server: RedisServer) -> None:
    assert breaker("read") == 0
    with frozen(redis_server):
        with pytest.raises(RedisUnavailable):
            await probing.get(["a"])
        assert breaker("read") > 0
    assert await answering(probing, ["a"]) == {}
    assert breaker("read") == 0


async def test_an_answer_that_comes_too_late_is_never_taken_for_another(
    probing: RedisTier, redis_server: RedisServer, client: Redis
) -> None:
    await client.mset({"a": b"1", "b": b"2"})
    with frozen(redis_server), pytest.raises(RedisUnavailable):
        await probing.get(["a"])
    assert await answering(probing, ["b"]) == {"b": b"2"}


async def test_the_answer_to_a_request_that_was_cancelled_is_never_taken_for_another(
    probing: RedisTier, redis_server: RedisServer, client: Redis
) -> None:
    await client.mset({"a": b"1", "b": b"2"})
    with frozen(redis_server):
        asked = asyncio.create_task(probing.get(["a"]))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    assert await answering(probing, ["b"]) == {"b": b"2"}


async def test_an_outage_and_its_end_are_logged_once_each(
    probing: RedisTier, redis_server: RedisServer, logged: Callable[[], list[str]]
) -> None:
    with frozen(redis_server):
        asked = [asyncio.create_task(probing.get(["a"])) for _ in range(50)]
        await asyncio.gather(*asked, return_exceptions=True)
        for _ in range(50):
            with pytest.raises(RedisUnavailable):
                await probing.get(["a"])
    await answering(probing, ["a"])
    down, up = logged()
    assert down.startswith("Redis does not answer (TimeoutError")
    assert down.endswith("serving without it")
    assert up == "Redis answers again"


async def test_a_full_redis_is_read_and_no_longer_written_until_there_is_room(
    probing: RedisTier, client: Redis, logged: Callable[[], list[str]]
) -> None:
    await keep(probing, {"a": b"1"})
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", 1)
    before = unwritten()
    for _ in range(20):
        await keep(probing, {"b": b"2"})
        assert await answering(probing, ["a", "b"]) == {"a": b"1"}
    assert breaker("write") > 0
    assert breaker("read") == 0
    assert unwritten() - before == 20
    await client.config_set("maxmemory", 0)

    async def taken() -> bool:
        await keep(probing, {"b": b"2"})
        return await answering(probing, ["b"]) == {"b": b"2"}

    await until(taken)
    assert breaker("write") == 0
    down, up = logged()
    assert down.startswith("Redis refuses writes (OutOfMemoryError")
    assert down.endswith("reading goes on")
    assert up == "Redis takes writes again"


async def test_what_could_not_be_written_waits_no_longer(hasty: RedisTier, redis_server: RedisServer) -> None:
    with frozen(redis_server):
        await keep(hasty, {"a": bytes(1000)})
    assert hasty._pending_bytes == 0


async def test_close_does_not_wait_for_a_redis_that_hangs(redis_server: RedisServer) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    await tier.start()
    with frozen(redis_server):
        tier.keep({"a": b"1"})
        await asyncio.wait_for(tier.close(), PATIENCE)
