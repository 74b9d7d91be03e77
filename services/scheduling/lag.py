"""How late the event loop runs: what a request has waited before anybody saw it."""

from __future__ import annotations

import asyncio
import time

from services.telemetry import metrics

BEAT = 0.02  # seconds; fifty wakings a second cost a thousandth of a core
TIMER = 0.002  # seconds; uvloop's timers are that coarse
MEMORY = 0.7  # share of the last lag that a beat keeps


class LoopLag:
    """Measures the overshoot of a short sleep, again and again.

    While a batch or a crowd of requests holds the loop, new requests lie in their sockets and their deadlines run.
    Nobody can tell when each came, but the lag is about what it has lost.

    Attributes:
        seconds: the lag, falling off over a tenth of a second.
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
