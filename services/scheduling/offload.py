"""A thread for work on bodies and images that would hold up the event loop: parsing, decoding, encoding, compression.

Few requests may wait for it, none beyond its deadline, and none whose client has left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from services.call import Call
from services.errors import QueueFull

T = TypeVar("T")

INLINE_PIXELS = 2**15  # of images that are decoded or encoded on the event loop: about 1 ms
INLINE_BYTES = 2**17  # of JSON that is parsed or written on the event loop: about 1 ms
WAITING = 64  # requests


class Offload:
    """Runs one piece of work at a time, in order of arrival."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="duet-offload")
        self._waiting = 0

    async def run(self, work: Callable[[], T], call: Call) -> T:
        """What `work` returns.

        Raises:
            QueueFull: too many requests wait.
            DeadlineExceeded, CallerLeft: before the work began, or while it ran.
        """
        if self._waiting >= WAITING:
            message = f"{self._waiting} requests wait for images to be decoded or bodies to be parsed; retry later"
            raise QueueFull(message, retry_after=1.0)
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await call.within(loop.run_in_executor(self._thread, partial(_work, work, call)))
        finally:
            self._waiting -= 1

    async def run_if_large(self, work: Callable[[], T], call: Call, size: int, inline: int) -> T:
        """What `work` on something of this size returns; up to the size `inline` it runs on the event loop."""
        return work() if size <= inline else await self.run(work, call)

    def run_behind(self, work: Callable[[], None], done: Callable[[], object]) -> None:
        """Run `work` when the thread is free, and then `done`, also if the thread has been closed."""

        def run() -> None:
            try:
                work()
            finally:
                done()

        try:
            self._thread.submit(run)
        except RuntimeError:  # closed
            done()

    def close(self) -> None:
        """Drop what waits; work that runs ends in its own time."""
        self._thread.shutdown(wait=False, cancel_futures=True)


def _work(work: Callable[[], T], call: Call) -> T:
    call.check()
    return work()
