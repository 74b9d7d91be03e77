"""The Redis tier against a real Redis: killed, frozen, restarted, locked, full, and never in the way."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.caching import redis as module
from services.caching.redis import RedisTier, RedisUnavailable

# A `RedisServer` of the conftest: port, process, url.
RedisServer = Any

pytestmark = pytest.mark.server

# Long enough for a loaded test machine; a frozen Redis costs it once or twice a test.
TIMEOUT = 0.25
TTL = 1000


@pytest.fixture
async def tier(redis_server: RedisServer) -> AsyncIterator[RedisTier]:
    tier = RedisTier(redis_server.url, timeout_seconds=TIMEOUT, ttl_seconds=TTL)
    yield tier
    await tier.close()


@pytest.fixture
async def client(redis_server: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_server.url) as client:
        yield client


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask again at once after a failure."""
    monkeypatch.setattr(module, "PAUSE_SECONDS", 0.0)


def start(arguments: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL)


@contextlib.asynccontextmanager
async def restarted(server: RedisServer) -> AsyncIterator[None]:
    """Kill a Redis and start another on its port, which forgot everything."""
    server.process.kill()
    server.process.wait()
    process = start(server.process.args)
    try:
        async with Redis.from_url(server.url) as probe:
            end = time.monotonic() + 30
            while True:
                with contextlib.suppress(RedisError):
                    await probe.ping()
                    break
                assert time.monotonic() < end
                await asyncio.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait()


async def until(answers: Callable[[], Any]) -> Any:
    """What `answers` says once Redis answers at all."""
    end = time.monotonic() + 30
    while True:
        try:
            return await answers()
        except RedisUnavailable:
            assert time.monotonic() < end
            await asyncio.sleep(0.02)


async def test_values_come_back_in_the_order_of_the_keys(tier: RedisTier) -> None:
    await tier.put({"a": b"1", "b": b"\x00\xff"})
    assert await tier.get(["b", "unknown", "a", "b"]) == [b"\x00\xff", None, b"1", b"\x00\xff"]


async def test_deleted_values_are_gone(tier: RedisTier) -> None:
    await tier.put({"a": b"1", "b": b"2"})
    await tier.delete(["a", "unknown"])
    assert await tier.get(["a", "b"]) == [None, b"2"]


async def test_values_live_for_the_ttl_within_ten_percent_and_not_all_equally_long(
    tier: RedisTier, client: Redis
) -> None:
    await tier.put({f"key{i}": b"value" for i in range(200)})
    left = [await client.pttl(f"key{i}") for i in range(200)]
    assert max(left) <= 1.1 * TTL * 1000
    assert min(left) > 0.9 * TTL * 1000 - 60_000  # a minute for a slow machine
    assert max(left) - min(left) > 0.1 * TTL * 1000


async def test_a_value_that_is_put_again_lives_from_then_on(tier: RedisTier, client: Redis) -> None:
    await tier.put({"a": b"1"})
    await client.pexpire("a", 60_000)
    await tier.put({"a": b"2"})
    assert await client.pttl("a") > 60_000


async def test_many_requests_at_once_are_all_answered(tier: RedisTier) -> None:
    await tier.put({"a": b"1"})
    assert await asyncio.gather(*(tier.get(["a"]) for _ in range(300))) == [[b"1"]] * 300


async def test_a_redis_that_was_killed_is_unavailable(tier: RedisTier, redis_server: RedisServer) -> None:
    await tier.put({"a": b"1"})
    redis_server.process.kill()
    redis_server.process.wait()
    for ask in (lambda: tier.get(["a"]), lambda: tier.put({"a": b"1"}), lambda: tier.delete(["a"])):
        with pytest.raises(RedisUnavailable):
            await ask()


@pytest.mark.usefixtures("no_pause")
async def test_a_redis_that_comes_back_answers_again(tier: RedisTier, redis_server: RedisServer) -> None:
    await asyncio.gather(*(tier.put({"a": b"1"}) for _ in range(8)))  # several pooled connections
    redis_server.process.kill()
    redis_server.process.wait()
    with pytest.raises(RedisUnavailable):
        await tier.get(["a"])
    async with restarted(redis_server):
        assert await until(lambda: tier.get(["a"])) == [None]
        await tier.put({"a": b"2"})
        assert await tier.get(["a"]) == [b"2"]


async def test_a_restart_between_two_questions_goes_unnoticed(tier: RedisTier, redis_server: RedisServer) -> None:
    await asyncio.gather(*(tier.put({"a": b"1"}) for _ in range(8)))
    async with restarted(redis_server):
        assert await tier.get(["a"]) == [None]  # the connections of before are dead, and no pause follows
        await tier.put({"a": b"2"})
        assert await asyncio.gather(*(tier.get(["a"]) for _ in range(16))) == [[b"2"]] * 16


async def test_a_frozen_redis_is_unavailable(tier: RedisTier, redis_server: RedisServer) -> None:
    redis_server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RedisUnavailable):
        await tier.get(["a"])


async def test_a_frozen_redis_is_asked_once_and_then_left_alone(
    tier: RedisTier, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAUSE_SECONDS", 3600.0)
    redis_server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RedisUnavailable):
        await tier.get(["a"])
    redis_server.process.send_signal(signal.SIGCONT)
    for _ in range(3):
        with pytest.raises(RedisUnavailable):  # it would answer now, but it is not asked
            await tier.get(["a"])


@pytest.mark.usefixtures("no_pause")
async def test_an_answer_that_comes_too_late_is_never_taken_for_another(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    await tier.put({"a": b"1", "b": b"2"})
    redis_server.process.send_signal(signal.SIGSTOP)
    with pytest.raises(RedisUnavailable):
        await tier.get(["a"])
    redis_server.process.send_signal(signal.SIGCONT)
    assert await until(lambda: tier.get(["b"])) == [b"2"]


@pytest.mark.usefixtures("no_pause")
async def test_the_answer_to_a_request_that_was_cancelled_is_never_taken_for_another(
    tier: RedisTier, redis_server: RedisServer
) -> None:
    await tier.put({"a": b"1", "b": b"2"})
    redis_server.process.send_signal(signal.SIGSTOP)
    asked = asyncio.create_task(tier.get(["a"]))
    await asyncio.sleep(0.01)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    redis_server.process.send_signal(signal.SIGCONT)
    assert await until(lambda: tier.get(["b"])) == [b"2"]


@pytest.mark.usefixtures("no_pause")
async def test_a_failure_and_a_recovery_are_logged_once_each(
    tier: RedisTier, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    redis_server.process.send_signal(signal.SIGSTOP)
    for _ in range(2):
        with pytest.raises(RedisUnavailable):
            await tier.get(["a"])
    redis_server.process.send_signal(signal.SIGCONT)
    await until(lambda: tier.get(["a"]))
    await tier.get(["a"])
    down, up = [record.message for record in caplog.records if record.name == "duet.cache"]
    assert down.startswith("Redis does not answer (TimeoutError")
    assert down.endswith("serving without it")
    assert up == "Redis answers again"


async def test_a_wrong_password_is_unavailable_and_never_logged(
    redis_server: RedisServer, client: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    await client.config_set("requirepass", "right")
    for password, works in (("wrong-secret", False), ("right", True)):
        url = redis_server.url.replace("redis://", f"redis://:{password}@")
        tier = RedisTier(url, timeout_seconds=TIMEOUT, ttl_seconds=TTL)
        if works:
            assert await tier.get(["a"]) == [None]
        else:
            with pytest.raises(RedisUnavailable):
                await tier.get(["a"])
        await tier.close()
    assert "Redis does not answer (AuthenticationError" in caplog.text
    assert "wrong-secret" not in caplog.text


async def test_a_full_redis_takes_nothing_more(tier: RedisTier, client: Redis) -> None:
    await client.config_set("maxmemory-policy", "noeviction")
    await client.config_set("maxmemory", 1)
    with pytest.raises(RedisUnavailable):
        await tier.put({"a": b"1"})


async def test_nobody_listening_is_unavailable(redis_server: RedisServer) -> None:
    redis_server.process.kill()
    redis_server.process.wait()
    tier = RedisTier(redis_server.url, timeout_seconds=TIMEOUT, ttl_seconds=TTL)
    with pytest.raises(RedisUnavailable):
        await tier.get(["a"])
    await tier.close()


async def test_close_leaves_no_connection(redis_server: RedisServer) -> None:
    tier = RedisTier(redis_server.url, timeout_seconds=TIMEOUT, ttl_seconds=TTL)
    await asyncio.gather(*(tier.get(["a"]) for _ in range(4)))
    await tier.close()
    async with Redis.from_url(redis_server.url) as client:
        assert len(await client.client_list()) == 1
