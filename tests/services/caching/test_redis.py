"""The Redis tier against a real Redis: killed, frozen, restarted, locked, full, read-only, and never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.caching import redis as module
from services.caching.connect import CONNECTIONS
from services.caching.redis import RedisTier, RedisUnavailable
from services.telemetry import metrics

# A `RedisServer` of the conftest: port, process, url.
RedisServer = Any

pytestmark = pytest.mark.server

PATIENCE = 30  # seconds: a busy machine is no outage
HASTY = 1.0  # for a Redis that is going to be frozen: what waiting for it costs
TTL = 1000


@pytest.fixture
async def tier(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    """One that nobody started: what its breaker leaves alone stays alone."""
    tier = RedisTier(redis_server.url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    yield tier
    await tier.close()


@pytest.fixture
async def hasty(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    """The same, for a Redis that is going to be frozen."""
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    yield tier
    await tier.close()


@pytest.fixture
async def probing(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    """One that tries again every second."""
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    await tier.start()
    await answering(tier, ["a"])
    yield tier
    await tier.close()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url, protocol=3) as client:
        yield client


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What the cache has logged."""
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    return lambda: [record.message for record in caplog.records if record.name == "duet.cache"]


async def keep(tier: RedisTier, values: dict[str, bytes]) -> None:
    """Write, and wait for what nobody else waits for."""
    tier.keep(values)
    while tier._pending:
        await asyncio.wait(tier._pending)


def unwritten() -> float:
    return float(metrics.CACHE_REQUESTS.labels("redis", "unwritten")._value.get())


def breaker(side: str) -> float:
    return float(metrics.REDIS_BREAKER.labels(side)._value.get())


async def until(happens: Callable[[], Awaitable[bool]]) -> None:
    end = time.monotonic() + PATIENCE
    while not await happens():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


async def answering(tier: RedisTier, keys: list[str]) -> dict[str, bytes]:
    """What the tier finds once it is used again."""
    found: dict[str, bytes] = {}

    async def answers() -> bool:
        with contextlib.suppress(RedisUnavailable):
            found.update(await tier.get(keys))
            return True
        return False

    await until(answers)
    return found


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def started(arguments: list[str], url: str) -> AsyncIterator[None]:
    process = start(arguments)
    try:
        async with Redis.from_url(url) as probe:

            async def answers() -> bool:
                with contextlib.suppress(RedisError):
                    return bool(await probe.ping())
                return False

            await until(answers)
        yield
    finally:
        process.terminate()
        process.wait()


def kill(server: RedisServer) -> None:
    server.process.kill()
    server.process.wait()


@contextlib.asynccontextmanager
async def restarted(server: RedisServer) -> AsyncIterator[None]:
    """Kill a Redis and start another on its port, which forgot everything."""
    kill(server)
    async with started(server.process.args, server.url):
        yield


@contextlib.contextmanager
def frozen(server: RedisServer) -> Iterator[None]:
    server.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        server.process.send_signal(signal.SIGCONT)


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


async def test_a_wrong_password_is_unavailable_and_never_logged(
    redis_server: RedisServer, client: Redis, logged: Callable[[], list[str]]
) -> None:
    await client.config_set("requirepass", "right")
    for password, works in (("wrong-secret", False), ("right", True)):
        url = redis_server.url.replace("redis://", f"redis://:{password}@")
        tier = RedisTier(url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
        if works:
            assert await tier.get(["a"]) == {}
        else:
            with pytest.raises(RedisUnavailable):
                await tier.get(["a"])
        await tier.close()
    [line] = logged()
    assert line.startswith("Redis does not answer (AuthenticationError")
    assert "wrong-secret" not in line


async def test_a_user_who_may_not_write_reads(redis_server: RedisServer, client: Redis) -> None:
    await client.set("a", b"1")
    await client.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], categories=["+@read"])
    url = redis_server.url.replace("redis://", "redis://reader:secret@")
    tier = RedisTier(url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    await keep(tier, {"a": b"2"})
    assert await tier.get(["a"]) == {"a": b"1"}
    assert breaker("write") == 1
    await tier.close()


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


async def test_a_replica_that_only_reads_is_read(
    redis_server: RedisServer, client: Redis, tmp_path: Path, unused_tcp_port: int
) -> None:
    await client.set("a", b"1")
    program = redis_server.process.args[0]
    port = str(unused_tcp_port)
    url = f"redis://127.0.0.1:{port}/0"
    primary = ["--replicaof", "127.0.0.1", str(redis_server.port)]
    options = ["--bind", "127.0.0.1", "--save", "", "--dir", str(tmp_path), "--dbfilename", "replica.rdb"]
    async with started([program, "--port", port, *options, *primary], url), Redis.from_url(url) as replica:

        async def copied() -> bool:
            with contextlib.suppress(RedisError):  # while it loads
                return bool(await replica.exists("a"))
            return False

        await until(copied)
        tier = RedisTier(url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
        await keep(tier, {"b": b"2"})
        assert await tier.get(["a", "b"]) == {"a": b"1"}
        with pytest.raises(RedisUnavailable):  # so that the replica computes for itself
            await tier.lease(["b"], 1)
        assert (breaker("read"), breaker("write")) == (0, 1)
        await tier.close()


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


async def test_what_could_not_be_written_waits_no_longer(hasty: RedisTier, redis_server: RedisServer) -> None:
    with frozen(redis_server):
        await keep(hasty, {"a": bytes(1000)})
    assert hasty._pending_bytes == 0


async def test_close_lets_what_is_written_arrive(redis_server: RedisServer, client: Redis) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    for number in range(20):
        tier.keep({f"key{number}": b"value"})
    await tier.close()
    assert await client.exists(*(f"key{number}" for number in range(20))) == 20


async def test_close_does_not_wait_for_a_redis_that_hangs(redis_server: RedisServer) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=HASTY, ttl_seconds=TTL)
    await tier.start()
    with frozen(redis_server):
        tier.keep({"a": b"1"})
        await asyncio.wait_for(tier.close(), PATIENCE)


async def test_close_leaves_no_connection(redis_server: RedisServer, client: Redis) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=PATIENCE, ttl_seconds=TTL)
    await tier.start()
    await asyncio.gather(*(tier.get(["a"]) for _ in range(4)))
    await tier.close()
    assert len(await client.client_list()) == 1
