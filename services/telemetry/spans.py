"""Traces and batches as spans of OpenTelemetry.

Names and attributes are those of the semantic conventions for HTTP and for Redis; what these do not have begins with
`duet.`. The spans are made as they are, without the SDK's tracer: it makes spans while the work is done, on the event
loop, and none at all under `OTEL_SDK_DISABLED`, which Duet sets for BentoML's layers.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from opentelemetry.util.types import AttributeValue

from services.telemetry.trace import Batch, Command, Ids, Model, Stage, Trace

Attributes = dict[str, str | int]

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
UNSET, FAILED = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
METHODS = {"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE", "QUERY"}
COMMANDS = {"get": "MGET", "lease": "PIPELINE"}


class HashedOnce(Resource):
    """A resource whose hash is kept: the encoder asks for it for each span, and the SDK's writes JSON each time."""

    def __init__(self, attributes: Mapping[str, AttributeValue]) -> None:
        super().__init__(attributes)
        self._kept = super().__hash__()

    def __hash__(self) -> int:
        return self._kept


class Spans:
    """Makes spans of what has ended.

    Args:
        service: the name of the service, unless OTEL_SERVICE_NAME or OTEL_RESOURCE_ATTRIBUTES gives another.
        version: of Duet.
    """

    def __init__(self, service: str, version: str) -> None:
        self._scope = InstrumentationScope("duet", version)
        given = {name: value for name, value in Resource.create().attributes.items() if not _is_made_up(value)}
        self._resource = HashedOnce({"service.name": f"duet-{service}", "service.version": version} | given)

    def of(self, ended: Trace | Batch) -> list[ReadableSpan]:
        """The spans of a request, its own first; or that of a batch."""
        self._epoch = time.time_ns() - time.perf_counter_ns()
        return list(self._of_request(ended)) if isinstance(ended, Trace) else [self._of_batch(ended)]

    def _of_request(self, trace: Trace) -> Iterator[ReadableSpan]:
        state = TraceState.from_header([trace.state.decode("latin-1")]) if trace.state else None
        own, parent = _context(trace.ids, state), trace.parent
        above = None if parent is None else SpanContext(parent.trace_id, parent.span_id, True, SAMPLED, state)
        method = trace.method if trace.method in METHODS else "HTTP"
        name = f"{method} {trace.route}" if trace.route else method
        status = FAILED if trace.status >= 500 else UNSET
        yield self._span(name, own, above, trace.begin, trace.end, _of_http(trace), SpanKind.SERVER, status)
        contexts = [_context((trace.ids[0], random.getrandbits(64) or 1), state) for _ in trace.stages]
        for context, stage in zip(contexts, trace.stages, strict=True):
            links = [] if stage.batch is None else [Link(_context(stage.batch))]
            yield self._span(stage.name, context, own, stage.begin, stage.end, _of_model(stage.model), links=links)
        for command in trace.commands:
            around = next((c for c, stage in zip(contexts, trace.stages, strict=True) if _within(command, stage)), own)
            context = _context((trace.ids[0], random.getrandbits(64) or 1), state)
            status = FAILED if command.error else UNSET
            name = COMMANDS.get(command.name, command.name.upper())
            of = _of_redis(command, name)
            yield self._span(name, context, around, command.begin, command.end, of, SpanKind.CLIENT, status)

    def _of_batch(self, batch: Batch) -> ReadableSpan:
        attributes = {**_of_model(batch.model), "duet.batch.items": batch.items, "duet.batch.requests": batch.requests}
        if batch.error:
            attributes["error.type"] = batch.error
        links = [Link(_context(ids)) for ids in batch.served]
        status, own = FAILED if batch.error else UNSET, _context(batch.ids)
        return self._span("batch", own, None, batch.begin, batch.end, attributes, status=status, links=links)

    def _span(
        self,
        name: str,
        context: SpanContext,
        parent: SpanContext | None,
        begin: float,
        end: float,
        attributes: Attributes,
        kind: SpanKind = SpanKind.INTERNAL,
        status: Status = UNSET,
        links: list[Link] | None = None,
    ) -> ReadableSpan:
        return ReadableSpan(
            name,
            context,
            parent,
            self._resource,
            attributes,
            links=links or (),
            kind=kind,
            status=status,
            start_time=self._epoch + int(begin * 1e9),
            end_time=self._epoch + int(end * 1e9),
            instrumentation_scope=self._scope,
        )


def _is_made_up(value: AttributeValue) -> bool:
    """Whether this is the name that the SDK gives a service without one."""
    return isinstance(value, str) and value.startswith("unknown_service")


def _context(ids: Ids, state: TraceState | None = None) -> SpanContext:
    return SpanContext(*ids, False, SAMPLED, state)


def _of_http(trace: Trace) -> Attributes:
    attributes: Attributes = {
        "http.request.method": trace.method if trace.method in METHODS else "_OTHER",
        "url.path": trace.path,
        "url.scheme": "http",
        "http.response.status_code": trace.status,
        "duet.request.id": trace.request_id.decode("latin-1"),
    }
    if trace.route:
        attributes["http.route"] = trace.route
    if trace.host:
        name, _, port = trace.host.decode("latin-1").rpartition(":")
        numbered = bool(name) and port.isdecimal()
        attributes["server.address"] = name if numbered else trace.host.decode("latin-1")
        if numbered:
            attributes["server.port"] = int(port)
    if trace.error:
        attributes["error.type" if trace.status >= 500 else "duet.problem"] = trace.error
    if trace.left_out:
        attributes["duet.stages.left_out"] = trace.left_out
    return attributes | _of_model(trace.model)


def _of_model(model: Model) -> Attributes:
    names = ("duet.model.name", "duet.model.version", "duet.model.digest", "duet.model.operation")
    return dict(zip(names, model, strict=False))


def _of_redis(command: Command, named: str) -> Attributes:
    attributes: Attributes = {"db.system.name": "redis", "db.operation.name": named, "duet.cache.keys": command.keys}
    if command.address is not None:
        attributes["server.address"], attributes["server.port"] = command.address
    if command.error:
        attributes["error.type"] = command.error
    return attributes


def _within(command: Command, stage: Stage) -> bool:
    return stage.begin <= command.begin and command.end <= stage.end
