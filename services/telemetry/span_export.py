"""What was traced on its way to a collector: a bounded queue, and a thread that makes spans of it and sends them.

A request never waits for it. The queue is bounded, and so is the thread's share of a processor: the SDK takes 50 µs for
a span, so at 100 % a service under load would work for its traces half of the time. What the queue has no room for is
dropped, and counted. The thread alone imports the SDK of OpenTelemetry and its exporter, so that a process that traces
nothing has none of it.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from services.telemetry import metrics
from services.telemetry.trace import Batch, Trace

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.sdk.trace.export import SpanExporter

    from services.telemetry.spans import Spans

log = logging.getLogger("duet.traces")

QUEUE_SPANS = 8192  # that may wait: about 5 MB
BATCH_SPANS = 256  # in one request to the collector, about
CPU_SHARE = 0.2  # of a processor that the thread takes, at most: under load more is dropped instead
STOP_SECONDS = 2.0  # that the end of the process waits for the collector


class SpanExport:
    """Sends what ended to a collector.

    Args:
        endpoint: URL of the collector; its headers, certificates, timeout and compression are in the environment.
        service: the name of the service.
        version: of Duet.
        pause_seconds: between two requests to the collector, unless a whole batch waits.
    """

    def __init__(self, endpoint: str, service: str, version: str, *, pause_seconds: float) -> None:
        self._pause = pause_seconds
        self._endpoint, self._about = endpoint, (service, version)
        self._ended: deque[Trace | Batch] = deque()
        self._taken = 0  # spans, written by the thread only
        self._put = 0  # spans, written by the event loop only
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._exported, self._dropped, self._failed = map(metrics.SPANS.labels, ("exported", "dropped", "failed"))
        self._answers = True  # whether the collector took the last batch
        self._exporter: SpanExporter | None = None
        self._thread = threading.Thread(target=self._run, name="duet-traces", daemon=True)

    @property
    def waiting(self) -> int:
        """Spans in the queue."""
        return self._put - self._taken

    def start(self) -> None:
        self._thread.start()

    def put(self, ended: Trace | Batch) -> None:
        """Queue what ended, or drop it; called on the event loop only."""
        count = ended.spans
        waiting = self._put - self._taken + count
        if waiting > QUEUE_SPANS:
            self._dropped.inc(count)
            return
        self._put += count
        self._ended.append(ended)
        if waiting >= BATCH_SPANS and not self._wake.is_set():
            self._wake.set()

    def stop(self) -> None:
        """Send what waits, for a short time, and end; may block."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(STOP_SECONDS)
        if self._thread.is_alive() and self._exporter is not None:
            self._exporter.shutdown()

    def _run(self) -> None:
        from services.telemetry.spans import Spans  # noqa: PLC0415

        reason = _quiet(logging.getLogger("opentelemetry"))
        try:
            self._exporter = _exporter(self._endpoint)
            spans = Spans(*self._about)
        except Exception as error:  # a certificate or another OTEL_ variable
            log.error("traces: none are sent, for the exporter does not start (%s)", error)
            return
        while self._ended or not self._stopping.is_set():
            self._wake.wait(self._pause)
            self._wake.clear()
            while self._ended:
                begin = time.thread_time()
                self._send(self._exporter, spans, reason)
                self._stopping.wait((time.thread_time() - begin) * (1 / CPU_SHARE - 1))
        self._exporter.shutdown()

    def _send(self, exporter: SpanExporter, spans: Spans, reason: Reason) -> None:
        made: list[ReadableSpan] = []
        count, answers = 0, False
        try:
            while self._ended and count < BATCH_SPANS:
                ended = self._ended.popleft()
                count += ended.spans
                made += spans.of(ended)
                time.sleep(0)  # the event loop waits for the interpreter meanwhile
            reason.text = ""
            answers = exporter.export(made).name == "SUCCESS"
        except Exception as error:
            reason.text = f"{type(error).__name__}: {error}"
        self._taken += count  # what is being sent still takes memory
        (self._exported if answers else self._failed).inc(count)
        if answers != self._answers and not self._stopping.is_set():
            self._answers = answers
            if answers:
                log.info("traces: the collector takes spans again")
            else:
                log.warning("traces: the collector takes no spans, and they are lost (%s)", reason.text)


def _exporter(endpoint: str) -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter(endpoint)


class Reason(logging.Handler):
    """Keeps OpenTelemetry's first message about a request; it would write lines of its own form for each try."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text = self.text or record.getMessage()  # the first one says why, the last one that it gave up


def _quiet(logger: logging.Logger) -> Reason:
    reason = Reason()
    logger.handlers[:] = [reason]
    logger.propagate = False
    return reason
