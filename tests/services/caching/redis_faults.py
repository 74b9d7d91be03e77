"""A Redis that a test kills, freezes and starts again, and what the tier makes of it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.caching.redis import RedisTier, RedisUnavailable
from services.telemetry import metrics

# A `RedisServer` of the conftest: port, process, url.
RedisServer = Any


PATIENCE = 30  # seconds: a busy machine is no outage


HASTY = 1.0  # for a Redis that is going to be frozen: what waiting for it costs


TTL = 1000


async def written(tier: RedisTier) -> None:
    """Until nothing is on its way to Redis."""
    while tier._pending:
        await asyncio.wait(tier._pending)


async def keep(tier: RedisTier, values: dict[str, bytes]) -> None:
    """Write, and wait for what nobody else waits for."""
    tier.keep(values)
    await written(tier)


def unwritten() -> float:
    return float(metrics.CACHE_REQUESTS.labels("redis", "unwritten").count)


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
