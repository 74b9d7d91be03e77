"""Spans reach a real collector; where they cannot, they are bounded, dropped and counted."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import NoOpTracer

from services.telemetry import metrics, span_export
from services.telemetry.span_export import QUEUE_SPANS, SpanExport
from services.telemetry.trace import Batch, Command, Trace, Tracer
from tests.collector import Collector, collecting, frozen
from tests.conftest import free_port

PATIENCE = 60
MODEL = ("digits", "1", "sha256:0", "classify")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(span_export, "CPU_SHARE", 1.0)
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES", "OTEL_EXPORTER_OTLP_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as one:
        yield one


def counts() -> dict[str, int]:
    return {outcome: metrics.SPANS.labels(outcome).count for outcome in ("exported", "dropped", "failed")}


def grown(before: dict[str, int]) -> dict[str, int]:
    return {outcome: count - before[outcome] for outcome, count in counts().items()}


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.01)


def request(tracer: Tracer) -> Trace:
    """A request that ended, with a stage and a command within it: three spans."""
    trace = tracer.begin({}, 10.0)
    assert trace is not None
    trace.method, trace.path, trace.route, trace.host = "POST", "/classify", "/classify", b"images.example:8080"
    trace.request_id, trace.status, trace.end = b"mine", 200, 10.5
    trace.model = MODEL[:3]
    trace.stage("cache", 10.1, 10.3)
    trace.command(Command("get", 4, ("127.0.0.1", 6379), 10.1, 10.2, ""))
    tracer.end(trace)
    return trace


def test_the_sdks_own_tracer_is_off_and_spans_are_sent_all_the_same(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OTEL_SDK_DISABLED`, which quiets BentoML's layers, makes every tracer of the SDK one that does nothing."""
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert isinstance(TracerProvider(shutdown_on_exit=False).get_tracer("duet"), NoOpTracer)
    export = SpanExport(f"{collector.url}/v1/traces", "tested", "1.2.3", pause_seconds=0.02)
    export.start()
    trace = request(Tracer(1.0, export))
    assert len(collector.trace(trace.id)) == 3
    export.stop()


def test_spans_have_the_names_of_the_conventions(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=duet-0,service.version=mine")
    export = SpanExport(f"{collector.url}/v1/traces", "tested", "1.2.3", pause_seconds=0.02)
    tracer = Tracer(1.0, export)
    export.start()
    trace = request(tracer)
    export.stop()
    server, stage, command = collector.trace(trace.id)
    assert (server.name, server.kind, server.parent, server.failed) == ("POST /classify", "server", "", False)
    assert server.attributes == {
        "http.request.method": "POST",
        "http.route": "/classify",
        "http.response.status_code": 200,
        "url.path": "/classify",
        "url.scheme": "http",
        "server.address": "images.example",
        "server.port": 8080,
        "duet.request.id": "mine",
        "duet.model.name": "digits",
        "duet.model.version": "1",
        "duet.model.digest": "sha256:0",
    }
    assert (stage.name, stage.kind, stage.parent) == ("cache", "internal", server.id)
    assert (command.name, command.kind, command.parent) == ("MGET", "client", stage.id)
    assert command.attributes == {
        "db.system.name": "redis",
        "db.operation.name": "MGET",
        "duet.cache.keys": 4,
        "server.address": "127.0.0.1",
        "server.port": 6379,
    }
    assert (server.end - server.begin, stage.begin - server.begin) == (500_000_000, 100_000_000)
    assert abs(server.begin - (time.time_ns() - time.perf_counter_ns() + 10_000_000_000)) < 60e9, "the time of day"
    given = {"service.name": "duet-tested", "service.version": "mine", "k8s.pod.name": "duet-0"}
    assert given.items() <= server.resource.items()


@pytest.mark.parametrize(
    ("status", "name", "failed"), [(503, "error.type", True), (500, "error.type", True), (429, "duet.problem", False)]
)
def test_an_error_of_the_server_is_one_and_a_refusal_is_none(
    collector: Collector, status: int, name: str, failed: bool
) -> None:
    export = SpanExport(f"{collector.url}/v1/traces", "tested", "1.2.3", pause_seconds=0.02)
    tracer = Tracer(1.0, export)
    trace = tracer.begin({}, 0.0)
    assert trace is not None
    trace.method, trace.status, trace.error = "POST", status, "not-ready"
    tracer.batch(Batch(MODEL, 1, 1, 0.0, 1.0, "RuntimeError"), [(trace, None)])
    tracer.end(trace)
    export.start()
    export.stop()
    server, _ = collector.trace(trace.id)
    assert server.failed == failed
    assert server.attributes[name] == "not-ready"
    [batch] = [span for span in collector.spans if span.name == "batch"]
    assert batch.failed
    assert batch.attributes["error.type"] == "RuntimeError"


def test_what_has_no_room_is_dropped_and_counted(collector: Collector) -> None:
    before = counts()
    export = SpanExport(f"{collector.url}/v1/traces", "tested", "1.2.3", pause_seconds=0.02)  # it does not run yet
    tracer = Tracer(1.0, export)
    for _ in range(QUEUE_SPANS):
        request(tracer)
    kept = QUEUE_SPANS // 3 * 3
    assert export.waiting == kept
    assert grown(before) == {"exported": 0, "dropped": 3 * QUEUE_SPANS - kept, "failed": 0}
    export.start()
    until(lambda: export.waiting == 0)
    assert grown(before)["exported"] == kept == len(collector.spans)
    request(tracer)  # there is room again
    export.stop()
    assert grown(before)["exported"] == kept + 3


def test_a_collector_that_is_away_is_told_once_and_its_return_too(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    caplog.set_level(logging.INFO, "duet.traces")
    before = counts()
    export = SpanExport(f"{collector.url}/v1/traces", "tested", "1.2.3", pause_seconds=0.02)
    tracer = Tracer(1.0, export)
    collector.status = 400
    export.start()
    for _ in range(3):
        request(tracer)
        until(lambda: export.waiting == 0)
    collector.status = 200
    request(tracer)
    until(lambda: export.waiting == 0)
    export.stop()
    assert grown(before) == {"exported": 3, "dropped": 0, "failed": 9}
    lines = [record.getMessage() for record in caplog.records if record.name == "duet.traces"]
    assert len(lines) == 2
    assert "takes no spans, and they are lost (Failed to export spans batch code: 400" in lines[0]
    assert "takes spans again" in lines[1]


@pytest.mark.parametrize("kind", ["away", "frozen"])
def test_nobody_waits_for_a_collector(
    kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Until it is stopped, the thread alone waits; the queue fills up and stays as long as it is."""
    monkeypatch.setattr(span_export, "STOP_SECONDS", 0.1)
    before = counts()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2" if kind == "away" else "1")
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)
    with frozen() as url:
        export = SpanExport(
            url if kind == "frozen" else f"http://127.0.0.1:{free_port()}", "tested", "1.2.3", pause_seconds=0.02
        )
        tracer = Tracer(1.0, export)
        export.start()
        while grown(before)["dropped"] < QUEUE_SPANS:
            request(tracer)
        assert export.waiting <= QUEUE_SPANS
        until(lambda: grown(before)["failed"] > 0)
        until(lambda: bool(caplog.records))
        assert ("refused" if kind == "away" else "due to timeout") in caplog.records[0].getMessage()
        export.stop()
        until(lambda: export.waiting == 0)  # its messages are not those of the next test


def test_the_thread_takes_a_bounded_share_of_the_processor(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It pauses for the share of its own work, and loses nothing by it."""
    monkeypatch.setattr(span_export, "CPU_SHARE", 0.25)
    export = SpanExport(f"{collector.url}/v1/traces", "tested", "1.2.3", pause_seconds=0.02)
    waits: list[float] = []
    wait = export._stopping.wait
    monkeypatch.setattr(export._stopping, "wait", lambda seconds: waits.append(seconds) or wait(0))
    worked: list[float] = []
    send = export._send

    def measured(*arguments: Any) -> None:
        begin = time.thread_time()
        send(*arguments)
        worked.append(time.thread_time() - begin)

    monkeypatch.setattr(export, "_send", measured)
    tracer = Tracer(1.0, export)
    for _ in range(500):
        request(tracer)
    export.start()
    until(lambda: export.waiting == 0)
    export.stop()
    assert len(collector.spans) == 1500
    assert len(waits) == len(worked) >= 1500 // span_export.BATCH_SPANS
    assert all(pause >= 3 * work for pause, work in zip(waits, worked, strict=True))
