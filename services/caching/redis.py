"""The Redis tier: optional, shared by replicas; a request never fails because of it.

One timeout covers a whole command: waiting for a connection, connecting, sending, reading the answer. A failure opens
the breaker, and requests no longer ask Redis. A background task tries once a second (half-open) and closes the breaker
when Redis answers. So an outage costs the requests in flight one timeout, and later requests nothing. When Redis
answers reads but refuses writes (full, a read-only replica), only writes stop. Writes run after the answer was sent,
and are bounded in bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar, cast

from redis.asyncio.cluster import RedisCluster
from redis.exceptions import ConnectionError as StaleConnection
from redis.exceptions import ResponseError

from services.caching.breaker import Breaker, RedisUnavailable
from services.caching.connect import CONNECTIONS, address, connect, hang_up
from services.caching.keys import PREFIX
from services.caching.loop_aware_timeout import LoopAwareTimeout
from services.eager import in_task
from services.telemetry import metrics
from services.telemetry.trace import Command, Trace

T = TypeVar("T")

log = logging.getLogger("duet.cache")

PROBE_SECONDS = 1.0
PROBES = 5  # the fastest of so many counts: a busy event loop makes single probes slow
PROBE_KEY = f"{PREFIX}:probe"
PENDING_BYTES = 16 * 2**20  # of values that wait to be written; above this limit values are not written
LEASE = ":lease"


class RedisTier:
    """Bytes by key in Redis.

    Args:
        url: see `connect`.
        timeout_seconds: the timeout of each command, connecting included.
        ttl_seconds: lifetime of a value, ±10 % so that values written together do not expire together.

    Attributes:
        round_trip: seconds to ask for one key; None before the first answer.
    """

    def __init__(self, url: str, *, timeout_seconds: float, ttl_seconds: int) -> None:
        self._redis = connect(url, timeout_seconds)
        self._address = address(self._redis)
        self._timeout = timeout_seconds
        self._ttl_ms = 1000 * ttl_seconds
        self._turns = asyncio.Semaphore(CONNECTIONS)
        self._reads = Breaker("read", "Redis does not answer ({}); serving without it", "Redis answers again")
        self._writes = Breaker("write", "Redis refuses writes ({}); reading goes on", "Redis takes writes again")
        self._probes: deque[float] = deque(maxlen=PROBES)
        self._pending: set[asyncio.Task[None]] = set()
        self._pending_bytes = 0
        self._watch: asyncio.Task[None] | None = None
        self._owner = secrets.token_hex(8)
        self._leases: dict[str, tuple[bytes, float]] = {}  # ours: the token, and when it expires at the earliest
        self._count = itertools.count()
        self.round_trip: float | None = None

    async def start(self) -> None:
        """Probe Redis once, so that the first request can use it, and then once a second."""
        await self._probe()
        self._watch = asyncio.create_task(self._probe_for_ever())

    async def get(self, keys: Sequence[str], trace: Trace | None = None) -> dict[str, bytes]:
        """The values of those `keys` that Redis holds: one MGET.

        Args:
            keys: to be read.
            trace: of the request, if it is traced.

        Raises:
            RedisUnavailable: Redis failed, or the breaker is open.
        """
        found = await self._ask("get", lambda: self._mget(keys), len(keys), trace)
        return {key: value for key, value in zip(keys, found, strict=True) if value is not None}

    async def lease(
        self, keys: Sequence[str], seconds: float, trace: Trace | None = None
    ) -> tuple[set[str], dict[str, bytes]]:
        """Take a lease on the keys that no other replica computes, and read their values again: one pipeline.

        Args:
            keys: to be computed.
            seconds: that the lease holds.
            trace: of the request, if it is traced.

        Returns:
            The keys whose lease is now ours, and the values that Redis holds.

        Raises:
            RedisUnavailable: as `get`.
        """

        if self._writes.open:
            raise RedisUnavailable

        def send() -> Awaitable[list[object]]:
            pipeline = self._redis.pipeline(transaction=False)
            for key in keys:
                pipeline.set(key + LEASE, token, nx=True, px=max(1, int(1000 * seconds)))
                pipeline.get(key)
            return _answers(pipeline)

        token, until = f"{self._owner}-{next(self._count)}".encode(), time.monotonic() + seconds
        answers = await self._ask("lease", send, len(keys), trace)
        ours = {key for key, taken in zip(keys, answers[0::2], strict=True) if taken}
        self._leases |= dict.fromkeys(ours, (token, until))
        return ours, {key: value for key, value in zip(keys, answers[1::2], strict=True) if isinstance(value, bytes)}

    def keep(self, values: Mapping[str, bytes], *, leased: Sequence[str] = ()) -> None:
        """Write after the answer: one pipeline of SETs with a time to live, then the deletion of the leases."""
        size = sum(map(len, values.values()))
        held = {key: self._leases.pop(key) for key in leased if key in self._leases}
        if self._reads.open or self._writes.open or self._pending_bytes + size > PENDING_BYTES:
            metrics.CACHE_REQUESTS.labels("redis", "unwritten").inc(len(values))
            return
        self._pending_bytes += size
        self._behind(self._write(values, held, size))

    def drop(self, keys: Sequence[str]) -> None:
        """Delete after the answer; a value that cannot be deleted counts as a miss until it expires."""
        self._behind(self._delete(keys))

    async def close(self) -> None:
        """Wait for pending writes, at most one timeout, and close all connections."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._pending:
            await asyncio.wait(self._pending, timeout=self._timeout)
        await hang_up(self._redis)

    def _behind(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def _delete(self, keys: Sequence[str]) -> None:
        with suppress(RedisUnavailable):
            await self._ask("delete", lambda: cast("Awaitable[object]", self._redis.unlink(*keys)))

    async def _write(self, values: Mapping[str, bytes], leased: Mapping[str, tuple[bytes, float]], size: int) -> None:
        sure = time.monotonic() + self._timeout
        ours = [key for key, (_, until) in leased.items() if sure < until]

        def send() -> Awaitable[object]:
            pipeline = self._redis.pipeline(transaction=False)
            for key, value in values.items():
                # Jitter spreads the expiry; it is not a secret, so a plain random generator is enough.
                pipeline.set(key, value, px=int(self._ttl_ms * random.uniform(0.9, 1.1)))  # noqa: S311
            for key in ours:
                pipeline.execute_command("UNLINK", key + LEASE)  # a cluster's pipeline.unlink is a coroutine
            return _answers(pipeline)

        try:
            await self._ask("set", send)
            await self._release([key for key in leased if key not in ours], leased)
        except RedisUnavailable:
            metrics.CACHE_REQUESTS.labels("redis", "unwritten").inc(len(values))
        finally:
            self._pending_bytes -= size

    async def _release(self, late: Sequence[str], leased: Mapping[str, tuple[bytes, float]]) -> None:
        """Delete leases that may have expired: only those that no other replica has taken since."""
        if late:
            found = await self._ask("get", lambda: self._mget([key + LEASE for key in late]))
            ours = [key + LEASE for key, token in zip(late, found, strict=True) if token == leased[key][0]]
            if ours:
                await self._ask("delete", lambda: cast("Awaitable[object]", self._redis.unlink(*ours)))

    async def _mget(self, keys: Sequence[str]) -> list[bytes | None]:
        if isinstance(self._redis, RedisCluster):
            return cast("list[bytes | None]", await self._redis.mget_nonatomic(keys))
        return cast("list[bytes | None]", await self._redis.mget(keys))

    async def _ask(
        self, command: str, send: Callable[[], Awaitable[T]], keys: int = 0, trace: Trace | None = None
    ) -> T:
        if self._reads.open:
            raise RedisUnavailable
        await in_task()
        begin, failure = time.perf_counter(), ""
        try:
            return await self._timed(command, send)
        except Exception as error:  # redis-py raises many types while a cluster changes; none may fail a request
            failure = type(error).__name__
            self._failed(command, error)
            raise RedisUnavailable from None
        finally:
            if trace is not None:
                trace.command(Command(command, keys, self._address, begin, time.perf_counter(), failure))

    def _failed(self, command: str, error: Exception) -> None:
        # An error answer means that Redis is reachable; after a refused write, reads can go on.
        if isinstance(error, ResponseError) and command != "get":
            self._writes.trip(error)
        else:
            self._reads.trip(error)

    async def _timed(self, command: str, send: Callable[[], Awaitable[T]], seconds: float | None = None) -> T:
        begin = time.perf_counter()
        try:
            async with LoopAwareTimeout(seconds or self._timeout), self._turns:
                try:
                    return await send()
                except StaleConnection:
                    # After a restart of Redis a pooled connection fails once, at once: send again on a new connection.
                    return await send()
        finally:
            metrics.REDIS_SECONDS.labels(command).observe(time.perf_counter() - begin)

    async def _probe_for_ever(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            await self._probe()

    async def _reach(self) -> object:
        """Ask every server that holds keys, after a failure on new connections."""
        if self._reads.open:
            await hang_up(self._redis)  # after a failover other servers may hold the keys
        if isinstance(self._redis, RedisCluster):
            await cast("Awaitable[object]", self._redis.ping(target_nodes=RedisCluster.PRIMARIES))
        return await self._mget([PROBE_KEY])

    async def _probe(self) -> None:
        """Send the command that requests send; the second one, on an open connection, is timed."""
        with self._reads.trying():
            try:
                await self._timed("probe", self._reach, PROBE_SECONDS)
                begin = time.perf_counter()
                await self._timed("probe", lambda: self._mget([PROBE_KEY]))
            except Exception as error:
                self._reads.trip(error)
                return
        self._probes.append(time.perf_counter() - begin)
        self.round_trip = min(self._probes)
        metrics.REDIS_ROUND_TRIP.set(self.round_trip)
        self._reads.reset()
        if self._writes.open:
            with self._writes.trying():
                try:
                    await self._timed("probe", lambda: self._redis.set(PROBE_KEY, b"", px=1000))
                except Exception as error:
                    self._failed("probe", error)
                    return
            self._writes.reset()


async def _answers(pipeline: Any) -> list[object]:
    """Answers of a pipeline; raises the first error as Redis sent it, because redis-py's message quotes a value."""
    answers: list[object] = await pipeline.execute(raise_on_error=False)
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer
    return answers
