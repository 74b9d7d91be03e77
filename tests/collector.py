"""A collector: it takes OTLP over HTTP, parsed with OpenTelemetry's own classes, and keeps the spans."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

PATIENCE = 60
KINDS = {1: "internal", 2: "server", 3: "client"}


@dataclass(frozen=True)
class Span:
    """A span as it came; ids in hexadecimal."""

    name: str
    kind: str
    trace: str
    id: str
    parent: str
    state: str
    begin: int
    end: int
    failed: bool
    attributes: dict[str, Any]
    links: frozenset[tuple[str, str]]
    resource: dict[str, Any]


@dataclass
class Collector:
    """What has come so far."""

    url: str
    spans: list[Span] = field(default_factory=list)
    status: int = 200  # of the answers

    def wait_for(self, found: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once they are such."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            spans = list(self.spans)
            if found(spans):
                return spans
            time.sleep(0.02)
        raise AssertionError(f"these are all that came: {[(span.trace, span.name) for span in self.spans]}")

    def trace(self, trace: str) -> list[Span]:
        """The spans of a trace, once its request's own has come, which is always sent with the others."""
        spans = self.wait_for(lambda all_: any(span.trace == trace and span.kind == "server" for span in all_))
        return [span for span in spans if span.trace == trace]


@contextlib.contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a free port."""
    collector = Collector("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            if collector.status == 200:
                collector.spans += spans(body)
            self.send_response(collector.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextlib.contextmanager
def frozen() -> Iterator[str]:
    """The URL of a collector that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def spans(body: bytes) -> list[Span]:
    """The spans of one request to a collector."""
    request = ExportTraceServiceRequest.FromString(body)
    return [
        Span(
            span.name,
            KINDS[span.kind],
            span.trace_id.hex(),
            span.span_id.hex(),
            span.parent_span_id.hex(),
            span.trace_state,
            span.start_time_unix_nano,
            span.end_time_unix_nano,
            span.status.code == 2,
            _attributes(span.attributes),
            frozenset((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
            _attributes(group.resource.attributes),
        )
        for group in request.resource_spans
        for scope in group.scope_spans
        for span in scope.spans
    ]


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
