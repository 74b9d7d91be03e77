"""What is noted of a traced request and of a batch, as plain values; spans are made of it later, in another thread.

Times are `time.perf_counter()` seconds, and most were read anyway. A request that is not traced has no `Trace`: where
something would be noted, it costs one comparison with None.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from services.telemetry import traceparent

STATE_BYTES = 512  # of a `tracestate` that is passed on, as the recommendation demands at least
_MONOTONIC = time.perf_counter() - time.monotonic()  # 0 where both are one clock


def of_monotonic(seconds: float) -> float:
    """A time of `time.monotonic()` as one of `time.perf_counter()`."""
    return seconds + _MONOTONIC


class Batch:
    """One run of a model, for one request or many.

    Args:
        model: name, version, digest and operation.
        items: images or samples in it.
        requests: that it served, traced or not.
        begin: of its run.
        end: of its run.
        error: the type of the exception that ended it; empty: none.
    """

    __slots__ = ("begin", "end", "error", "items", "model", "requests", "served", "span_id", "trace_id")

    def __init__(
        self, model: tuple[str, str, str, str], items: int, requests: int, begin: float, end: float, error: str = ""
    ) -> None:
        self.trace_id = random.getrandbits(128) or 1
        self.span_id = random.getrandbits(64) or 1
        self.model, self.items, self.requests, self.error = model, items, requests, error
        self.begin, self.end = begin, end
        self.served: list[Trace] = []

    @property
    def spans(self) -> int:
        return 1


class Stage(NamedTuple):
    """One stage of a request; `batch` computed it."""

    name: str
    begin: float
    end: float
    batch: Batch | None = None


class Command(NamedTuple):
    """One command that was sent to Redis; `error` is the type of its exception, empty: none."""

    name: str
    keys: int
    address: tuple[str, int] | None
    begin: float
    end: float
    error: str


class Trace:
    """One traced request.

    Attributes:
        trace_id: 128 bits.
        span_id: of the span of the whole request.
        parent: the caller's span.
        state: the caller's `tracestate`.
        model: name, version and digest of the model that was asked.
        error: the type of the problem that was answered; empty: none.
    """

    __slots__ = (
        "begin",
        "commands",
        "end",
        "error",
        "host",
        "method",
        "model",
        "parent",
        "path",
        "request_id",
        "route",
        "span_id",
        "stages",
        "state",
        "status",
        "trace_id",
    )

    def __init__(self, trace_id: int, parent: traceparent.Parent | None, state: bytes, begin: float) -> None:
        self.trace_id, self.parent, self.state = trace_id, parent, state
        self.span_id = random.getrandbits(64) or 1
        self.begin = self.end = begin
        self.method, self.path, self.route, self.host, self.request_id = "", "", "", b"", b""
        self.status = 0
        self.error = ""
        self.model: tuple[str, str, str] | None = None
        self.stages: list[Stage] = []
        self.commands: list[Command] = []

    def stage(self, name: str, begin: float, end: float, batch: Batch | None = None) -> None:
        self.stages.append(Stage(name, begin, end, batch))

    @property
    def id(self) -> str:
        """As headers, logs and exemplars have it."""
        return f"{self.trace_id:032x}"

    @property
    def spans(self) -> int:
        return 1 + len(self.stages) + len(self.commands)


class Sink(Protocol):
    """Takes what has ended; it must not wait."""

    def put(self, ended: Trace | Batch) -> None: ...


class Tracer:
    """Decides which requests are traced, and hands on what was noted.

    Args:
        share: of the requests whose caller has not decided, or does not decide.
        sink: for traces and batches that have ended.
        by_parent: whether a caller that sends `traceparent` decides.
    """

    def __init__(self, share: float, sink: Sink, *, by_parent: bool = True) -> None:
        self._bound = round(share * 2**64)
        self._by_parent = by_parent
        self._sink = sink

    def begin(self, headers: Mapping[bytes, bytes], begin: float) -> Trace | None:
        """The trace of a request with these headers, None: it is not traced."""
        given = headers.get(b"traceparent")
        if given is None:
            low = random.getrandbits(64)
            if low >= self._bound:
                return None
            return Trace(random.getrandbits(64) << 64 | low or 1, None, b"", begin)
        parent = traceparent.parse(given)
        if parent is None:
            return self.begin({}, begin)
        # As the SDKs of OpenTelemetry decide: every service with the same share chooses the same traces.
        sampled = parent.sampled if self._by_parent else parent.trace_id & (2**64 - 1) < self._bound
        if not sampled:
            return None
        state = headers.get(b"tracestate", b"")
        return Trace(parent.trace_id, parent, state if len(state) <= STATE_BYTES else b"", begin)

    def end(self, ended: Trace | Batch) -> None:
        self._sink.put(ended)

    def batch(self, batch: Batch, served: Sequence[tuple[Trace, float | None]]) -> None:
        """Note a run of a model at the traced requests that it served.

        Args:
            batch: the run.
            served: each traced request, and when it began to wait for this; None: it did not wait.
        """
        for trace, since in served:
            batch.served.append(trace)
            if since is not None:
                trace.stage("queue", since, batch.begin)
            trace.stage("compute", batch.begin, batch.end, batch)
        self.end(batch)


class Tracing:
    """Whether this process traces; an object, so that every module sees a change.

    Attributes:
        tracer: None: nothing is traced.
    """

    __slots__ = ("tracer",)

    def __init__(self) -> None:
        self.tracer: Tracer | None = None


TRACING = Tracing()
