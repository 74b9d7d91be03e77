"""What belongs to one request in every layer: its id, its deadline, its cache directives, and the time of each stage.

It is passed explicitly, never by context variable: a batch belongs to many requests at once, so there is no single
"current request". A deadline is checked here and nowhere else.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from services.eager import in_task
from services.errors import CallerLeft, DeadlineExceeded
from services.telemetry.trace import Trace

T = TypeVar("T")

TIMEOUT = "X-Request-Timeout-Ms"


class Stage:
    """Adds the time of a block to a call; a class, because a generator-based context costs four times as much."""

    __slots__ = ("_begin", "_call", "_name")

    def __init__(self, call: Call, name: str) -> None:
        self._call = call
        self._name = name

    def __enter__(self) -> None:
        self._begin = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._call.ended(self._name, self._begin)


@dataclass(slots=True)
class Call:
    """One request.

    Attributes:
        id: the request's id, as in the answer's `X-Request-Id`.
        deadline: `time.monotonic()` seconds at which the deadline passes; None: no deadline.
        read_cache: look answers up; `Cache-Control: no-cache` and `no-store` switch it off.
        write_cache: store answers; `Cache-Control: no-store` switches it off.
        gone: returns whether the client has disconnected; None if this server cannot tell.
        trial: whether the answer is left out of drift and of the counts of predictions (`X-Request-Purpose: trial`).
        client: the value of the header that names the client, as it came; None: it has no name.
        seconds: time by stage.
        hits: items answered by the cache.
        lookups: items looked up in the cache.
        oldest: when the oldest hit was computed, seconds since 1970; None without a hit.
        trace: what is noted for its spans; None: it is not traced.
    """

    deadline: float | None = None
    read_cache: bool = True
    write_cache: bool = True
    gone: Callable[[], bool] | None = None
    trial: bool = False
    client: bytes | None = None
    id: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    hits: int = 0
    lookups: int = 0
    oldest: int | None = None
    trace: Trace | None = None

    @property
    def log_fields(self) -> dict[str, str]:
        """What a log line about this request has beside its text."""
        return log_fields(self.id, self.trace)

    def dated(self, seconds: int) -> None:
        """Note a hit that was computed at that time."""
        self.oldest = seconds if self.oldest is None else min(seconds, self.oldest)

    def add(self, stage: str, seconds: float) -> None:
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def ended(self, stage: str, begin: float) -> None:
        """Add the time since `begin`, of `time.perf_counter()`, to a stage."""
        end = time.perf_counter()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + end - begin
        if self.trace is not None:
            self.trace.stage(stage, begin, end)

    def stage(self, name: str) -> Stage:
        """A context that adds its time to a stage."""
        return Stage(self, name)

    def remaining(self) -> float | None:
        """Seconds until the deadline (may be negative), None without one."""
        return None if self.deadline is None else self.deadline - time.monotonic()

    @property
    def expired(self) -> bool:
        """Whether the deadline has passed."""
        return self.deadline is not None and time.monotonic() >= self.deadline

    def check(self) -> None:
        """Stop the work on a request that nobody waits for.

        Raises:
            CallerLeft: the client has disconnected.
            DeadlineExceeded: the deadline has passed.
        """
        if self.gone is not None and self.gone():
            raise CallerLeft("the client left before an answer was ready")
        if self.expired:
            raise late()

    async def within(self, work: Awaitable[T], missed: str = "no answer was ready") -> T:
        """The result of `work`, if it comes before the deadline.

        Raises:
            DeadlineExceeded: it did not come in time; `missed` begins the message.
        """
        await in_task()
        try:
            async with asyncio.timeout(self.remaining()):
                return await work
        except TimeoutError:
            raise late(missed) from None
        finally:
            del work  # its exception would refer to itself through this frame, and keep a large body in memory

    @property
    def cache_status(self) -> str:
        """The `X-Cache` header: hit, miss, partial or bypass, with the counts."""
        if not self.lookups:
            return "bypass"
        kind = "hit" if self.hits == self.lookups else "partial" if self.hits else "miss"
        return f"{kind}; hits={self.hits}/{self.lookups}"

    @property
    def age(self) -> int | None:
        """The `Age` header (RFC 9111, 5.1): seconds since the oldest hit was computed, None without a hit."""
        return None if self.oldest is None else max(0, int(time.time()) - self.oldest)

    @property
    def server_timing(self) -> str:
        """The `Server-Timing` header (W3C): milliseconds by stage."""
        return ", ".join(["%s;dur=%.3f" % (name, 1000 * seconds) for name, seconds in self.seconds.items()])  # noqa: UP031


def log_fields(request_id: str, trace: Trace | None) -> dict[str, str]:
    """What a log line about a request has beside its text."""
    return {"request_id": request_id} if trace is None else {"request_id": request_id, "trace_id": trace.id}


def late(missed: str = "no answer was ready") -> DeadlineExceeded:
    """The error of a request whose deadline has passed; `missed` begins the message."""
    return DeadlineExceeded(f"{missed} before the deadline ({TIMEOUT})", field=TIMEOUT)
