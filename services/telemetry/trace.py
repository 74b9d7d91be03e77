"""What is noted of a traced request and of a batch, as plain values; spans are made of it later, in another thread.

Times are `time.perf_counter()` seconds, and most were read anyway. A request that is not traced has no `Trace`: where
something would be noted, it costs one comparison with None. Requests and batches name each other by their ids, so that
neither keeps the other in memory.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from services.telemetry import traceparent

STATE_BYTES = 512  # of a `tracestate` that is passed on, as the recommendation demands at least
MOST = 128  # stages of one request that are noted, and commands: a stream has thousands
_MONOTONIC = time.perf_counter() - time.monotonic()  # 0 where both are one clock

Model = tuple[str, ...]  # name, version, digest, and of what computes the operation
Ids = tuple[int, int]  # of a trace and of a span in it


def of_monotonic(seconds: float) -> float:
    """A time of `time.monotonic()` as one of `time.perf_counter()`."""
    return seconds + _MONOTONIC


def _new(bits: int) -> int:
    """An id, which is not 0."""
    return random.getrandbits(bits) or 1


class Batch:
    """One run of a model, for one request or many.

    Args:
        model: that ran.
        items: images or samples in it.
        requests: that it served, traced or not.
        begin: of its run.
        end: of its run.
        error: the type of the exception that ended it; empty: none.

    Attributes:
        served: the traced requests.
    """

    __slots__ = ("begin", "end", "error", "ids", "items", "model", "requests", "served")
    spans = 1

    def __init__(self, model: Model, items: int, requests: int, begin: float, end: float, error: str = "") -> None:
        self.ids = _new(128), _new(64)
        self.model, self.items, self.requests, self.error = model, items, requests, error
        self.begin, self.end = begin, end
        self.served: list[Ids] = []


class Stage(NamedTuple):
    """One stage of a request; `batch` is what computed it, with `model`."""

    name: str
    begin: float
    end: float
    batch: Ids | None = None
    model: Model = ()


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
        ids: of its trace, and of the span of the whole request.
        parent: the caller's span.
        state: the caller's `tracestate`.
        model: that was asked.
        error: the type of the problem that was answered; empty: none.
        left_out: stages and commands beyond `MOST`.
    """

    __slots__ = (
        "begin",
        "commands",
        "end",
        "error",
        "host",
        "ids",
        "left_out",
        "method",
        "model",
        "parent",
        "path",
        "request_id",
        "route",
        "stages",
        "state",
        "status",
    )

    def __init__(self, trace_id: int, parent: traceparent.Parent | None, state: bytes, begin: float) -> None:
        self.ids: Ids = trace_id, _new(64)
        self.parent, self.state = parent, state
        self.begin = self.end = begin
        self.method, self.path, self.route, self.host, self.request_id = "", "", "", b"", b""
        self.status = self.left_out = 0
        self.error = ""
        self.model: Model = ()
        self.stages: list[Stage] = []
        self.commands: list[Command] = []

    @property
    def id(self) -> str:
        """Of the trace, as headers, logs and exemplars have it."""
        return f"{self.ids[0]:032x}"

    @property
    def spans(self) -> int:
        """How many it will have."""
        return 1 + len(self.stages) + len(self.commands)

    def stage(self, name: str, begin: float, end: float, batch: Batch | None = None) -> None:
        """Note a stage; a batch computed it."""
        if len(self.stages) < MOST:
            of = (None, ()) if batch is None else (batch.ids, batch.model)
            self.stages.append(Stage(name, begin, end, *of))
        else:
            self.left_out += 1

    def command(self, command: Command) -> None:
        if len(self.commands) < MOST:
            self.commands.append(command)
        else:
            self.left_out += 1


class Sink(Protocol):
    """Takes what has ended; it must not wait."""

    def put(self, ended: Trace | Batch, /) -> None: ...


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
        parent = None if given is None else traceparent.parse(given)
        if parent is None:
            low = random.getrandbits(64)
            return Trace(random.getrandbits(64) << 64 | (low or 1), None, b"", begin) if low < self._bound else None
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
            batch.served.append(trace.ids)
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
