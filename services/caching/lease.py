"""Single flight across replicas: a short lease in Redis on every key that somebody computes.

A replica that dies lets its leases expire, and another takes its place. Redis gone, or others that take too long,
mean: compute it here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from services.caching.redis import RedisTier, RedisUnavailable
from services.telemetry import metrics

POLL_SECONDS = (0.005, 0.05)  # at first, and at most: the pause doubles

Values = dict[str, bytes]


async def once_in_all(
    redis: RedisTier,
    keys: Sequence[str],
    compute: Callable[[Sequence[str]], Awaitable[Values]],
    arrive: Callable[[Values], Values],
    *,
    seconds: float,
    patience: float,
) -> Values:
    """Values of `keys`, each computed by one replica as far as that can be had.

    Args:
        redis: where leases and values are.
        keys: what is missing.
        compute: computes some of them here.
        arrive: takes in values that Redis held, and returns the sound ones.
        seconds: how long a lease holds.
        patience: seconds to wait for others before computing all the same.
    """
    values: Values = {}
    missing = list(keys)
    give_up = time.monotonic() + min(seconds, patience)
    pause = POLL_SECONDS[0]
    while missing:
        try:
            ours, there = await redis.lease(missing, seconds)
        except RedisUnavailable:
            break
        known = arrive(there)
        mine = [key for key in missing if key in ours and key not in known]
        values |= known
        if ours - set(mine):  # somebody was done between our asking and our lease
            redis.keep({}, leased=sorted(ours - set(mine)))
        if mine:
            metrics.cache_requests("lease", "won").inc(len(mine))
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
            metrics.cache_requests("lease", "waited").inc(len(missing))
            await asyncio.sleep(pause)
            pause = min(2 * pause, POLL_SECONDS[1])
    return values | await compute(missing) if missing else values
