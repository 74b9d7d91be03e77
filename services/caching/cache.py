"""The cache, item by item: memory, then requests that compute the same item, then Redis, then computing.

A failure of Redis or a damaged value counts as a miss: the item is computed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from services.caching.admission import Admission, AdmissionEstimate
from services.caching.breaker import RedisUnavailable
from services.caching.flights import Flights, follow
from services.caching.keys import item_keys
from services.caching.lease import compute_under_lease
from services.caching.memory import MemoryTier
from services.caching.values import CorruptValue, Layout, created
from services.call import Call, late
from services.settings import Settings
from services.telemetry import metrics

if TYPE_CHECKING:
    from services.caching.redis import RedisTier

Arrays = dict[str, np.ndarray]
Values = dict[str, bytes]
Compute = Callable[[np.ndarray | None], Awaitable[Arrays]]

FOLLOWED = 2  # after so many failed leaders a follower computes the item itself


@dataclass(frozen=True)
class CachedOperation:
    """What is cached: the answers of one operation of one bundle.

    Attributes:
        digest: digest of the bundle.
        operation: name of the operation; parameters that change the answer are inputs.
        layout: layout of the operation's outputs.
        item_seconds: returns the measured compute time of an item.
    """

    digest: str
    operation: str
    layout: Layout
    item_seconds: Callable[[], float]


@dataclass(slots=True)
class Lookup:
    """One request on its way through the tiers."""

    subject: CachedOperation
    call: Call
    compute: Compute
    keys: list[str]
    values: Values
    known: set[str]  # keys whose values came from a tier
    whole: Arrays | None = None  # the outputs, if this request computed all rows in one call


class Cache:
    """A cache of answers by content, one value for each item.

    Args:
        memory: the tier of this process, if there is one.
        redis: the tier that all replicas share, if there is one.
        value_bytes: larger values are not stored.
        admission: when Redis is asked, see `AdmissionEstimate`.
    """

    def __init__(
        self,
        memory: MemoryTier | None = None,
        redis: RedisTier | None = None,
        *,
        value_bytes: int = 2**20,
        admission: Admission = "auto",
    ) -> None:
        self._memory = memory
        self._redis = redis
        self._value_bytes = value_bytes
        self._admission: Admission = admission
        self._flights = Flights()

    @classmethod
    def from_settings(cls, settings: Settings) -> Cache:
        memory = MemoryTier(settings.cache_memory_bytes) if settings.cache_memory_bytes else None
        redis = None
        if (url := settings.redis_url.get_secret_value()) and settings.redis_admission != "never":
            from services.caching.redis import RedisTier  # noqa: PLC0415  # a tenth of a second, where there is no Redis

            timeout = settings.redis_timeout_ms / 1000
            redis = RedisTier(url, timeout_seconds=timeout, ttl_seconds=settings.cache_ttl_seconds)
        return cls(memory, redis, value_bytes=settings.cache_value_bytes, admission=settings.redis_admission)

    async def start(self) -> None:
        if self._redis is not None:
            await self._redis.start()

    async def close(self) -> None:
        if self._redis is not None:
            await self._redis.close()
        if self._memory is not None:
            self._memory.clear()

    def estimate(self, subject: CachedOperation) -> AdmissionEstimate:
        """What decides whether Redis is asked; Redis is never asked for values that are too large to store."""
        round_trip = None if self._redis is None else self._redis.round_trip
        kept = self._redis is not None and subject.layout.value_bytes <= self._value_bytes
        admission = self._admission if kept else "never"
        return AdmissionEstimate(admission, subject.item_seconds(), round_trip)

    async def answer(
        self, subject: CachedOperation, inputs: Mapping[str, np.ndarray], call: Call, compute: Compute
    ) -> Arrays:
        """Outputs [N, ...] for inputs [N, ...]; only items that no tier holds are computed.

        Args:
            subject: the operation.
            inputs: arrays whose first axis is the batch; everything that the answer depends on.
            call: the request, for its deadline, cache directives, timings and hits.
            compute: computes the given rows of `inputs`, None: all of them.

        Raises:
            DeadlineExceeded: no answer was ready before the deadline.
            Exception: whatever `compute` raises.
        """
        if (self._memory is None and self._redis is None) or not (call.read_cache or call.write_cache):
            return await compute(None)
        with call.stage("cache"):
            keys = item_keys(subject.digest, subject.operation, inputs, len(next(iter(inputs.values()))))
            if call.read_cache:
                values = {} if self._memory is None else self._memory.get(keys)
                missing = [] if len(values) == len(keys) else list(dict.fromkeys(k for k in keys if k not in values))
                if values:
                    metrics.CACHE_REQUESTS.labels("memory", "hit").inc(len(values))
                if missing and self._memory is not None:
                    metrics.CACHE_REQUESTS.labels("memory", "miss").inc(len(missing))
                if not missing:
                    outputs = self._assembled(subject, call, keys, values, values)
        if not call.read_cache:
            outputs = await compute(None)
            if call.write_cache:
                with call.stage("cache"):
                    fresh = dict(zip(keys, subject.layout.encode(outputs), strict=True))
                    self._keep(subject, fresh, remote=self.estimate(subject).asks(len(keys)))
        elif missing:
            lookup = Lookup(subject, call, compute, keys, values, known=set(values))
            await self._fill(lookup, missing)
            with call.stage("cache"):
                outputs = self._assembled(subject, call, keys, lookup.values, lookup.known, lookup.whole)
        if call.expired:
            raise late()
        return outputs

    def _assembled(
        self,
        subject: CachedOperation,
        call: Call,
        keys: Sequence[str],
        values: Values,
        known: set[str] | Values,
        whole: Arrays | None = None,
    ) -> Arrays:
        call.lookups += len(keys)
        if known:
            call.hits += len(keys) if len(known) == len(keys) else sum(key in known for key in keys)
            call.dated(min(map(created, map(values.__getitem__, known))))
        return subject.layout.decode([values[key] for key in keys]) if whole is None else whole

    async def _fill(self, lookup: Lookup, missing: list[str]) -> None:
        """Find or compute the items that memory does not hold; wait for items that another request computes."""
        for _ in range(FOLLOWED):
            mine, theirs = self._flights.claim(missing)
            if mine:
                try:
                    await self._lead(lookup, list(mine), partial(self._flights.land, mine))
                finally:
                    self._flights.abandon(mine)
            if not theirs:
                return
            metrics.CACHE_REQUESTS.labels("flight", "followed").inc(len(theirs))
            with lookup.call.stage("queue"):
                try:
                    lookup.values |= await follow(theirs, lookup.call.remaining())
                except TimeoutError:
                    raise late() from None
            missing = [key for key in theirs if key not in lookup.values]
            if missing and self._memory is not None:  # another follower may have computed them meanwhile
                lookup.values |= self._memory.get(missing)
                missing = [key for key in missing if key not in lookup.values]
            if not missing:
                return
        await self._lead(lookup, missing, lambda values: None)

    async def _lead(self, lookup: Lookup, keys: list[str], land: Callable[[Values], None]) -> None:
        """Ask Redis, then compute what is missing."""

        async def compute(missing: Sequence[str], *, remote: bool = False) -> Values:
            everything = len(missing) == len(lookup.keys)
            outputs = await lookup.compute(None if everything else _rows(lookup.keys, missing))
            lookup.whole = outputs if everything else None
            with lookup.call.stage("cache"):
                fresh = dict(zip(missing, lookup.subject.layout.encode(outputs), strict=True))
                self._keep(lookup.subject, fresh, remote=remote)
                lookup.values |= fresh
                land(fresh)
            return fresh

        def arrive(found: Values) -> Values:
            sound = self._sound(lookup.subject.layout, found)
            if sound and self._memory is not None:
                self._memory.put(sound)
            lookup.values |= sound
            lookup.known |= sound.keys()
            land(sound)
            return sound

        remote = False
        if self._redis is not None:
            worth = self.estimate(lookup.subject)
            remote = worth.asks(len(keys))
            if not remote:
                metrics.CACHE_REQUESTS.labels("redis", "skipped").inc(len(keys))
            else:
                with lookup.call.stage("cache"):
                    try:
                        found = arrive(await self._redis.get(keys, lookup.call.trace))
                        metrics.CACHE_REQUESTS.labels("redis", "hit").inc(len(found))
                        metrics.CACHE_REQUESTS.labels("redis", "miss").inc(len(keys) - len(found))
                        keys = [key for key in keys if key not in found]
                    except RedisUnavailable:
                        metrics.CACHE_REQUESTS.labels("redis", "unavailable").inc(len(keys))
            if keys and worth.leases and remote:
                expected = len(keys) * worth.item_seconds
                remaining = lookup.call.remaining()
                seconds = worth.lease_seconds(len(keys))
                patience = seconds if remaining is None else remaining - expected
                trace = lookup.call.trace
                await compute_under_lease(
                    self._redis, keys, compute, arrive, seconds=seconds, patience=patience, trace=trace
                )
                return
        if keys:
            await compute(keys, remote=remote)

    def _keep(self, subject: CachedOperation, values: Values, *, remote: bool) -> None:
        if subject.layout.value_bytes > self._value_bytes:
            return
        if self._memory is not None:
            self._memory.put(values)
        if self._redis is not None and remote:
            self._redis.keep(values)

    def _sound(self, layout: Layout, found: Values) -> Values:
        """The undamaged values from Redis; the others count as misses and are deleted."""
        sound = {}
        damaged = []
        for key, value in found.items():
            try:
                layout.check(value)
                sound[key] = value
            except CorruptValue:
                damaged.append(key)
        if damaged and self._redis is not None:
            metrics.CACHE_REQUESTS.labels("redis", "corrupt").inc(len(damaged))
            self._redis.drop(damaged)
        return sound


def _rows(keys: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """The first row of each of the `wanted` keys."""
    first: dict[str, int] = {}
    for row, key in enumerate(keys):
        first.setdefault(key, row)
    return np.array([first[key] for key in wanted], np.intp)
