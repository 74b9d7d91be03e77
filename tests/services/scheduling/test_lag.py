"""The event loop's lag."""

from __future__ import annotations

import asyncio
import time

from services.scheduling.lag import LoopLag


async def test_a_loop_that_is_held_up_is_late_and_recovers() -> None:
    lag = LoopLag()
    watch = asyncio.create_task(lag.watch())
    await asyncio.sleep(0.03)
    time.sleep(0.2)  # noqa: ASYNC251  # what a long batch on the event loop does
    while lag.seconds <= 0.1:  # noqa: ASYNC110  # a busy machine may have held it up a little before
        await asyncio.sleep(0.005)
    seen = lag.seconds
    while lag.seconds > seen / 10:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    watch.cancel()
