"""Single flight across replicas: a short lease in Redis on every key that a replica computes.

The leases of a dead replica expire, and another replica computes the items. If Redis does not answer, or another
replica takes too long, the items are computed here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from services.caching.breaker import RedisUnavailable
from services.telemetry import metrics
from services.telemetry.trace import Trace

if TYPE_CHECKING:
    from services.caching.redis import RedisTier

POLL_SECONDS = (0.005, 0.05)  # the first and the longest pause; it doubles each time

Values = dict[str, bytes]


async def compute_under_lease(
    redis: RedisTier,
    keys: Sequence[str],
    compute: Callable[[Sequence[str]], Awaitable[Values]],
    arrive: Callable[[Values], Values],
    *,
    seconds: float,
    patience: float,
    trace: Trace | None = None,
) -> Values:
    """The values of `keys`; if possible, one replica computes each of them.

    Args:
        redis: holds leases and values.
        keys: the missing keys.
        compute: computes the values of some keys here.
        arrive: stores values from Redis, and returns those that are not damaged.
        seconds: how long a lease holds.
        patience: seconds to wait for other replicas before the values are computed here.
        trace: of the request, if it is traced.
    """
    values: Values = {}
    missing = list(keys)
    give_up = time.monotonic() + min(seconds, patience)
    pause = POLL_SECONDS[0]
    while missing:
        try:
            ours, there = await redis.lease(missing, seconds, trace)
        except RedisUnavailable:
            break
        known = arrive(there)
        mine = [key for key in missing if key in ours and key not in known]
        values |= known
        if ours - set(mine):  # another replica wrote these values before our lease
            redis.keep({}, leased=sorted(ours - set(mine)))
        if mine:
            metrics.CACHE_REQUESTS.labels("lease", "won").inc(len(mine))
            try:
                computed = await compute(mine)
            except BaseException:
                redis.keep({}, leased=mine)
                raise
            redis.keep(computed, leased=mine)
            values |= computed
        missing = [key for key in missing if key not in values]
        if missing and time.monotonic() >= give_up:
            break
        if missing:
            metrics.CACHE_REQUESTS.labels("lease", "waited").inc(len(missing))
            await asyncio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
    return values | await compute(missing) if missing else values
