"""The Redis tier: shared by replicas, optional, and never in the way.

Short timeouts and no retries (redis-py's defaults turn a 50 ms timeout into seconds), and after a failure Redis is
left alone for a second, so that a hung one costs one timeout a second and not one a request.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as StaleConnection
from redis.exceptions import RedisError

if TYPE_CHECKING:
    from redis.asyncio.client import Pipeline

log = logging.getLogger("duet.cache")

PAUSE_SECONDS = 1.0
FAILURES = (RedisError, OSError, TimeoutError)
STALE = (StaleConnection,)  # redis-py's TimeoutError is no subclass of it: a slow Redis is never asked twice


class RedisUnavailable(Exception):
    """Redis did not answer in time, or is being left alone after it did not."""


class RedisTier:
    """Bytes by key in Redis.

    Args:
        url: `redis://` or `rediss://` URL.
        timeout_seconds: bound on connecting and on each answer.
        ttl_seconds: lifetime of a value, ±10 % so that values written together do not expire together.
    """

    name = "redis"

    def __init__(self, url: str, *, timeout_seconds: float, ttl_seconds: int) -> None:
        self._ttl_ms = 1000 * ttl_seconds
        self._quiet_until = 0.0
        self._failing = False
        # Blocking: a request beyond `max_connections` waits its turn, where the default pool would raise.
        pool = BlockingConnectionPool.from_url(
            url,
            protocol=3,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            max_connections=32,
            timeout=timeout_seconds,
        )
        self._redis = Redis.from_pool(pool)

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        """One MGET.

        Raises:
            RedisUnavailable: Redis failed, or failed within the last second.
        """
        return cast("list[bytes | None]", await self._ask(lambda: self._redis.mget(keys)))

    async def put(self, values: Mapping[str, bytes]) -> None:
        """One pipelined SET with a time to live.

        Raises:
            RedisUnavailable: as `get`.
        """

        def send() -> Awaitable[object]:
            pipeline: Pipeline = self._redis.pipeline(transaction=False)
            for key, value in values.items():
                # Jitter spreads expiry; it protects nothing, so a plain generator will do.
                pipeline.set(key, value, px=int(self._ttl_ms * random.uniform(0.9, 1.1)))  # noqa: S311
            return pipeline.execute()

        await self._ask(send)

    async def delete(self, keys: Sequence[str]) -> None:
        await self._ask(lambda: self._redis.unlink(*keys))

    async def close(self) -> None:
        await self._redis.aclose()

    async def _ask(self, command: Callable[[], Awaitable[object]]) -> object:
        if time.monotonic() < self._quiet_until:
            raise RedisUnavailable
        try:
            try:
                answer = await command()
            except STALE:
                # A pooled connection to a Redis that was restarted fails once, at once: ask again on a new one.
                answer = await command()
        except FAILURES as error:
            self._quiet_until = time.monotonic() + PAUSE_SECONDS
            if not self._failing:
                self._failing = True
                log.warning("Redis does not answer (%s: %s); serving without it", type(error).__name__, error)
            raise RedisUnavailable from None
        if self._failing:
            self._failing = False
            log.warning("Redis answers again")
        return answer
