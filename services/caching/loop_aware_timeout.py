"""A timeout that does not count the delay of this process's own event loop.

A timer fires late when the event loop was busy, for example with hundreds of requests or with a model. An answer may
have arrived meanwhile and not have been read yet; the server was not slow.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

LATE = (
    0.1  # share of the timeout; if the timer fires later than this, the event loop was busy and the wait starts again
)
MORE = 8  # times that the wait may start again


class LoopAwareTimeout:
    """An `async with` block that raises TimeoutError after `seconds`, or later on a busy event loop."""

    __slots__ = ("_due", "_limit", "_more", "_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._more = MORE

    async def __aenter__(self) -> None:
        self._limit = asyncio.timeout(None)
        await self._limit.__aenter__()
        self._wait()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        await self._limit.__aexit__(kind, error, trace)

    def _wait(self) -> None:
        loop = asyncio.get_running_loop()
        self._due = loop.time() + self._seconds
        self._timer = loop.call_at(self._due, self._expire)

    def _expire(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._more and now - self._due > LATE * self._seconds:
            self._more -= 1
            self._wait()
        else:
            self._limit.reschedule(now)
