"""The Redis tier against a real Redis: values, lifetimes, connections, and its end."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from services.caching import redis as module
from services.caching.connect import CONNECTIONS
from services.caching.redis import RedisTier, RedisUnavailable
from services.telemetry import metrics
from tests.services.caching.redis_faults import (
    HASTY,
    PATIENCE,
    TTL,
    RedisServer,
    frozen,
    keep,
    unwritten,
)

pytestmark = pytest.mark.server


async def test_values_come_back_by_key(tier: RedisTier) -> None:
    await keep(tier, {"a": b"1", "b": b"\x00\xff"})
    assert await tier.get(["b", "unknown", "a", "b"]) == {"b": b"\x00\xff", "a": b"1"}


async def test_what_is_dropped_is_gone(tier: RedisTier) -> None:
    await keep(tier, {"a": b"1", "b": b"2"})
    tier.drop(["a", "unknown"])
    await keep(tier, {})
    assert await tier.get(["a", "b"]) == {"b": b"2"}


async def test_a_flush_is_a_miss(tier: RedisTier, client: Redis) -> None:
    await keep(tier, {"a": b"1"})
    await client.flushall()
    assert await tier.get(["a"]) == {}


async def test_a_request_is_one_command_to_read_and_one_packet_to_write(tier: RedisTier, client: Redis) -> None:
    await tier.get(["a"])
    await client.config_resetstat()
    await keep(tier, {f"key{i}": b"value" for i in range(50)})
    await tier.get([f"key{i}" for i in range(50)])
    calls = {name: found["calls"] for name, found in (await client.info("commandstats")).items()}
    assert (calls["cmdstat_mget"], calls["cmdstat_set"]) == (1, 50)
    assert (await client.info("stats"))["total_reads_processed"] < 10  # by the server: packets, not commands


async def test_values_live_for_the_ttl_within_ten_percent_and_not_all_equally_long(
    tier: RedisTier, client: Redis
) -> None:
    await keep(tier, {f"key{i}": b"value" for i in range(200)})
    left = [await client.pttl(f"key{i}") for i in range(200)]
    assert max(left) <= 1.1 * TTL * 1000
    assert min(left) > 0.9 * TTL * 1000 - 60_000  # a minute for a slow machine
    assert max(left) - min(left) > 0.1 * TTL * 1000


async def test_a_value_that_is_put_again_lives_from_then_on(tier: RedisTier, client: Redis) -> None:
    await keep(tier, {"a": b"1"})
    await client.pexpire("a", 60_000)
    await keep(tier, {"a": b"2"})
    assert await client.pttl("a") > 60_000


async def test_many_requests_at_once_are_all_answered_over_few_connections(tier: RedisTier, client: Redis) -> None:
    await keep(tier, {"a": b"1"})
    assert await asyncio.gather(*(tier.get(["a"]) for _ in range(300))) == [{"a": b"1"}] * 300
    assert len(await client.client_list()) - 1 <= CONNECTIONS


async def test_no_more_commands_are_in_flight_than_there_are_connections(
    hasty: RedisTier, redis_server: RedisServer
) -> None:
    with frozen(redis_server):
        asked = [asyncio.create_task(hasty.get(["a"])) for _ in range(4 * CONNECTIONS)]
        await asyncio.sleep(HASTY / 4)
        assert 0 < len(hasty._redis.connection_pool._in_use_connections) <= CONNECTIONS
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert {type(outcome) for outcome in outcomes} == {RedisUnavailable}
    assert not hasty._redis.connection_pool._in_use_connections


async def test_the_protocol_is_resp3(tier: RedisTier, client: Redis) -> None:
    await tier.get(["a"])
    assert {connection["resp"] for connection in await client.client_list()} == {"3"}


async def test_the_round_trip_is_measured(probing: RedisTier) -> None:
    assert probing.round_trip is not None
    assert 0 < probing.round_trip <= HASTY
    assert metrics.REDIS_ROUND_TRIP._value.get() > 0


async def test_what_waits_to_be_written_is_bounded(tier: RedisTier, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENDING_BYTES", 100)
    before = unwritten()
    tier.keep({"a": bytes(60), "b": bytes(40)})
    tier.keep({"c": b"1", "d": b"2"})
    await keep(tier, {})
    assert set(await tier.get(["a", "b", "c", "d"])) == {"a", "b"}
    assert unwritten() - before == 2
    await keep(tier, {"c": bytes(100)})
    assert set(await tier.get(["c"])) == {"c"}, "there is room again"


async def test_close_lets_what_is_written_arrive(redis_server: RedisServer, client: Redis) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    for number in range(20):
        tier.keep({f"key{number}": b"value"})
    await tier.close()
    assert await client.exists(*(f"key{number}" for number in range(20))) == 20


async def test_close_leaves_no_connection(redis_server: RedisServer, client: Redis) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    await tier.start()
    await asyncio.gather(*(tier.get(["a"]) for _ in range(4)))
    await tier.close()
    assert len(await client.client_list()) == 1
