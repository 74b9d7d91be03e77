"""How late the event loop runs: how long a request has waited before it was read."""

from __future__ import annotations

import asyncio
import time

from services.telemetry import metrics

BEAT = 0.02  # seconds; fifty wake-ups a second cost a thousandth of a core
TIMER = 0.002  # seconds; uvloop's timers are that coarse
MEMORY = 0.7  # share of the last lag that each measurement keeps


class LoopLag:
    """Measures the overshoot of a short sleep, again and again.

    While a batch or many requests occupy the loop, new requests wait unread in their sockets, and their deadlines run.
    When each request arrived is unknown; the lag estimates how long it has waited.

    Attributes:
        seconds: the lag; it decays over a tenth of a second.
    """

    def __init__(self) -> None:
        self.seconds = 0.0

    async def watch(self) -> None:
        while True:
            begin = time.monotonic()
            await asyncio.sleep(BEAT)
            late = time.monotonic() - begin - BEAT
            self.seconds = max(late if late > TIMER else 0.0, MEMORY * self.seconds)
            metrics.LOOP_LAG.set(self.seconds)
