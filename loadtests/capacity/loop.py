"""An event loop on a virtual clock: time passes where work is charged, and jumps to the next event where nothing is.

One loop is one process on one core. What a callback does takes no virtual time by itself: it says with `charge` how
long it would have kept the core. Meanwhile arrivals and timers become due and wait, as they do in a real event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import math
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, TypeVar
from unittest import mock

from services import call
from services.protocol import headers
from services.scheduling import batcher, lag

T = TypeVar("T")

RESOLUTION = 1e-9  # seconds; timers that are due within it are due


class VirtualLoop(asyncio.AbstractEventLoop):
    """One thread for the event loop and one for compute, both on one core.

    A step is one turn of libuv's loop: timers that are due, callbacks that are ready, then everything that has arrived.
    The event loop goes first: compute in the thread stands still while the loop works, as a thread that wakes up
    usually gets the core.

    Attributes:
        now: seconds of virtual time.
        busy: seconds for which the core has worked.
        turns: so far.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.busy = 0.0
        self.turns = 0
        self._ready: deque[asyncio.Handle] = deque()
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._count = 0
        self._arrivals: deque[tuple[float, Callable[[], object]]] = deque()
        self._threaded: deque[tuple[asyncio.Future[Any], Any, float]] = deque()  # what computes, then what waits
        self._thread_ends = math.inf
        self._offloaded: float | None = None  # seconds charged so far by work that is meant for the thread

    def charge(self, seconds: float) -> None:
        """The caller keeps the core for so long; inside of work for the thread, the thread does."""
        if self._offloaded is not None:
            self._offloaded += seconds
            return
        self.now += seconds
        self.busy += seconds
        self._thread_ends += seconds

    def arrive(self, when: float, callback: Callable[[], object]) -> None:
        """Call back once, when the loop reads what arrived at that time; arrivals come in order of time."""
        self._arrivals.append((when, callback))

    def drop_arrivals(self) -> int:
        """Forget what has not been read; returns how much that was."""
        count = len(self._arrivals)
        self._arrivals.clear()
        return count

    @property
    def next_event(self) -> float:
        """When there is something to do: now, later, or never (infinity)."""
        if self._ready:
            return self.now
        while self._timers and self._timers[0][2].cancelled():
            heapq.heappop(self._timers)
        when = self._thread_ends
        if self._timers:
            when = min(when, self._timers[0][0])
        if self._arrivals:
            when = min(when, self._arrivals[0][0])
        return max(self.now, when)

    def step(self) -> None:
        """One turn at the time of the next event, or now where that has passed."""
        self.now = max(self.now, self.next_event)
        self.turns += 1
        with self._running():
            if self._thread_ends <= self.now + RESOLUTION:
                self._finish_thread()
            while self._timers and self._timers[0][0] <= self.now + RESOLUTION:
                self._ready.append(heapq.heappop(self._timers)[2])
            for _ in range(len(self._ready)):
                handle = self._ready.popleft()
                if not handle.cancelled():
                    handle._run()
            readable = self.now + RESOLUTION
            while self._arrivals and self._arrivals[0][0] <= readable:
                self._arrivals.popleft()[1]()

    def run_until(self, end: float) -> None:
        """Turn until nothing is due before `end`; a turn that has begun is not cut short."""
        while self.next_event < end:
            self.step()
        if end < math.inf:
            self.now = max(self.now, end)

    def complete(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Turn until a coroutine has its result.

        Raises:
            RuntimeError: it waits for something that never happens.
        """
        task = self.create_task(coroutine)
        while not task.done():
            if self.next_event == math.inf:
                raise RuntimeError("nothing is due, and the coroutine is not done")
            self.step()
        return task.result()

    @contextlib.contextmanager
    def _running(self) -> Iterator[None]:
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            yield
        finally:
            asyncio._set_running_loop(before)

    def _finish_thread(self) -> None:
        future, result, seconds = self._threaded.popleft()
        self.busy += seconds
        self._thread_ends = self.now + self._threaded[0][2] if self._threaded else math.inf
        if not future.cancelled():
            future.set_result(result)

    # What asyncio's futures, tasks, events and timeouts use of a loop.

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, handle))
        return handle

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, *, name: str | None = None, context: Context | None = None) -> asyncio.Task[Any]:
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., T], *args: Any) -> asyncio.Future[T]:
        """The result of `func`, when the compute thread has had the core for as long as `func` charges."""
        self._offloaded = 0.0
        try:
            result = func(*args)
        finally:
            seconds, self._offloaded = self._offloaded, None
        future: asyncio.Future[T] = self.create_future()
        self._threaded.append((future, result, seconds))
        if len(self._threaded) == 1:
            self._thread_ends = self.now + seconds
        return future

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return asyncio._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """It is left out when it is due."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        if "exception" in context:  # else a task was left pending: its process was killed, or its simulation is over
            raise RuntimeError(context["message"]) from context["exception"]


class _VirtualTime:
    """The module `time` for code that runs on virtual loops; the clock is that of the loop that runs."""

    @staticmethod
    def monotonic() -> float:
        return asyncio.get_running_loop().time()

    perf_counter = monotonic
    time = staticmethod(time.time)


@contextlib.contextmanager
def virtual_time() -> Iterator[None]:
    """The modules of the services that look at the clock look at that of the running loop, within the block.

    They are given another module `time`, so the services have no argument for a clock, and serving costs what it did.
    """
    with contextlib.ExitStack() as stack:
        for module in (batcher, call, headers, lag):
            stack.enter_context(mock.patch.object(module, "time", _VirtualTime))
        yield
