"""The fast lane: an ASGI application around everything that BentoML serves.

It gives each request an id, bounds its body, measures it, answers the probes and the metrics page, and calls both
protocols. It refuses unknown paths (which would become metric labels) and BentoML's pickle media type (which can run
code). BentoML answers its own pages, and the native routes if the lane is switched off.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Awaitable, Collection
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.dataplane import DataPlane
from services.errors import (
    DuetError,
    MalformedRequest,
    MethodNotAllowed,
    NotReady,
    TooLarge,
    Unexpected,
    UnknownRoute,
    UnsupportedMedia,
)
from services.protocol.answer import Answer
from services.protocol.drift import drift_report
from services.protocol.headers import arrived, by_name, call_from_raw, call_headers, client_left, in_time
from services.protocol.native import RESPONDERS
from services.protocol.problems import problem
from services.protocol.v2.routes import V2
from services.telemetry import metrics
from services.telemetry.call import Call

log = logging.getLogger("duet.guard")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
PAGES = frozenset({"/", "/docs.json", "/schema.json"})  # BentoML's own
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
DRIFT = "/drift"  # only in services that score anomalies
ASSETS = ("/static_content/", "/assets/")
CLOSE = (b"connection", b"close")
PICKLE = b"application/vnd.bentoml+pickle"


class Lane:
    """Puts a guard around a service: outside BentoML's layers if possible, else inside them.

    Starlette builds its layers before the lifespan event and sends that event through all of them with itself in
    `scope["app"]`. At that moment the whole stack can be wrapped, so that Duet's requests do not pass BentoML's timer
    (which keeps every request alive for the timeout), spans and contexts.
    """

    def __init__(self, app: ASGIApp, plane: DataPlane, routes: Collection[str], name: str) -> None:
        self._app = app
        self._plane = plane
        self._guard = Guard(app, plane, routes, name)
        self._hoisted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and self._plane.settings.fast_lane:
            self._hoist(scope)
        await (self._app if self._hoisted else self._guard)(scope, receive, send)

    def _hoist(self, scope: Scope) -> None:
        stack = getattr(scope.get("app"), "middleware_stack", None)
        if stack is None:
            log.warning("Starlette has no middleware_stack: requests pass BentoML's layers, which is slower")
            return
        self._guard.app = stack
        scope["app"].middleware_stack = self._guard
        self._hoisted = True


class Guard:
    """Answers Duet's routes, and passes other requests on to BentoML.

    Args:
        app: the rest of the service.
        plane: the models, whether they are ready, and the settings.
        routes: the paths of the native protocol, all POST.
        name: the service's name.
    """

    def __init__(self, app: ASGIApp, plane: DataPlane, routes: Collection[str], name: str) -> None:
        self.app = app
        self._plane = plane
        self._routes = frozenset(routes)
        self._probes = PROBES | {DRIFT} if "anomaly" in plane.tasks else PROBES
        self._v2 = V2(plane, name)
        # The random part differs between replicas, the count between requests; a UUID costs ten times as much.
        prefix = secrets.token_hex(6).encode()
        self._ids = (b"%s-%x" % (prefix, n) for n in itertools.count())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        path: str = scope["path"]
        headers = by_name(scope["headers"])
        given = headers.get(b"x-request-id")
        request_id = given if given is not None and REQUEST_ID.fullmatch(given) else next(self._ids)
        route = self._label(path)
        status = 0  # until an answer starts
        draining = self._plane.draining

        async def named_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", request_id)]
                if draining:  # the next request of this client should go to another replica
                    message["headers"].append(CLOSE)
            await send(message)

        in_flight = metrics.in_flight(route)
        in_flight.count += 1
        try:
            answer = await self._answer(scope, route, headers, receive)
            if isinstance(answer, Answer):
                status = answer.status
                answer.headers.append((b"x-request-id", request_id))
                if draining:
                    answer.headers.append(CLOSE)
                await answer(scope, receive, send)
            elif answer is not None:
                await answer(scope, receive, named_send)
            else:
                await self.app(scope, self._bounded(receive, headers), named_send)
        except Exception as error:
            if status:
                raise  # too late for another answer: the server below closes the connection
            known = error if isinstance(error, DuetError) else Unexpected()
            if known is not error:
                log.exception("%s failed", route)
            metrics.REJECTIONS.labels(route, known.slug).inc()
            await problem(known)(scope, receive, named_send)
        finally:
            in_flight.count -= 1
            metrics.REQUEST_SECONDS.labels(route, str(status or 500)).observe(time.perf_counter() - begin)

    def _label(self, path: str) -> str:
        if path.startswith("/v2") and path[3:4] in ("", "/"):
            return self._v2.label(path)
        if path in self._routes or path in self._probes or path in PAGES:
            return path
        return "page" if path.startswith(ASSETS) else "unknown"

    async def _answer(
        self, scope: Scope, route: str, headers: dict[bytes, bytes], receive: Receive
    ) -> Response | Answer | None:
        """The answer; None if BentoML has to answer.

        Raises:
            DuetError: the request is refused.
        """
        path, method = scope["path"], scope["method"]
        if PICKLE in headers.get(b"content-type", b"").lower():
            raise UnsupportedMedia(
                "Content-Type: pickle is always refused; send application/json", field="Content-Type"
            )
        if route.startswith("/v2"):
            return await self._answer_v2(method, path, route, headers, receive)
        if route == "unknown":
            known = ", ".join(sorted(self._routes | self._probes))
            raise UnknownRoute(f"{path[:100]}: no such route; the routes are {known} and /v2")
        allowed = ("POST",) if path in self._routes else ("GET", "HEAD")
        if method not in allowed:
            methods = ", ".join(allowed)
            raise MethodNotAllowed(f"{method[:20]} {path[:100]}: this route takes {methods}", allowed=methods)
        if path in self._routes:
            if not self._plane.settings.fast_lane:
                return None
            bounded = self._bounded(receive, headers)
            return await RESPONDERS[path](self._plane, Request(scope, bounded), receive)
        return self._probe(path) if path in self._probes else None

    async def _answer_v2(
        self, method: str, path: str, route: str, headers: dict[bytes, bytes], receive: Receive
    ) -> Answer:
        call = call_from_raw(headers, self._plane.settings, self._plane.lag.seconds)
        call.gone = client_left(receive)
        read = partial(self._read, receive, headers, call)
        answer = await self._v2.answer(method, path, headers, read, call)
        for stage, seconds in call.seconds.items():
            metrics.STAGE_SECONDS.labels(route, stage).observe(seconds)
        answer.headers.extend(call_headers(call))
        return answer

    def _read(self, receive: Receive, headers: dict[bytes, bytes], call: Call) -> Awaitable[bytes]:
        """The whole body, read before the deadline: a client may send it slowly, or never."""
        bounded = self._bounded(receive, headers)
        if not arrived(receive):  # else no timer is needed; a timer costs four times as much as reading
            return in_time(_body(bounded), call)
        # A declared length has been checked, and the server passes no more bytes than declared.
        return _body(receive if b"content-length" in headers else bounded)

    def _probe(self, path: str) -> Response:
        if path == "/metrics":
            text, content_type = metrics.exposition()
            return Response(text, headers={"Content-Type": content_type})
        if path == DRIFT:
            return Response(json.dumps(drift_report(self._plane)), media_type="application/json")
        if path != "/readyz":
            return Response("alive\n", media_type="text/plain")
        self._plane.check()
        if self._plane.draining:
            raise NotReady("draining: this replica is about to stop", retry_after=1.0)
        body = {"ready": True, "models": [entry.tag for entry in self._plane.entries]}
        return Response(json.dumps(body), media_type="application/json")

    def _bounded(self, receive: Receive, headers: dict[bytes, bytes]) -> Receive:
        """Count the bytes of the body while it is read: Content-Length may be absent or wrong."""
        limit = self._plane.settings.body_bytes
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise TooLarge(f"the body has {declared.decode()} bytes; at most {limit} are allowed", field="body")
        read = 0

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > limit:
                raise TooLarge(f"the body has more than {limit} bytes", field="body")
            return message

        return counted


async def _body(receive: Receive) -> bytes:
    """Raises: MalformedRequest: the client left halfway."""
    chunks: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise MalformedRequest("the client left before its request was read", field="body")
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)
