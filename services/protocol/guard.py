"""Pure ASGI middleware around everything BentoML serves.

It names the request, counts its body, measures it, answers the probes and the metrics page, and refuses what must not
reach BentoML: unknown paths (which would become metric labels) and BentoML's pickle media type (which runs code).
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.dataplane import DataPlane
from services.errors import (
    DuetError,
    MethodNotAllowed,
    NotReady,
    TooLarge,
    Unexpected,
    UnknownRoute,
    UnsupportedMedia,
)
from services.protocol.problems import problem
from services.telemetry import metrics

log = logging.getLogger("duet.guard")

REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
PAGES = frozenset({"/", "/docs.json", "/schema.json"})  # BentoML's own
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
ASSETS = ("/static_content/", "/assets/")


class Guard:
    """The outermost layer of Duet's own.

    Args:
        app: the rest of the service.
        plane: says whether the service is ready, and holds the settings.
        routes: the paths of the native protocol, all POST.
    """

    def __init__(self, app: ASGIApp, plane: DataPlane, routes: Collection[str]) -> None:
        self._app = app
        self._plane = plane
        self._routes = frozenset(routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        route = self._label(scope["path"])
        status = 0  # until an answer starts
        begin = time.perf_counter()

        async def named_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        in_flight = metrics.IN_FLIGHT.labels(route)
        in_flight.inc()
        try:
            answer = self._answer(scope, headers)
            if answer is not None:
                await answer(scope, receive, named_send)
            else:
                await self._app(scope, _bounded(receive, headers, self._plane.settings.body_bytes), named_send)
        except Exception as error:
            if status:
                raise  # too late for another answer: the server below closes the connection
            known = error if isinstance(error, DuetError) else Unexpected()
            if known is not error:
                log.exception("%s failed", route)
            metrics.REJECTIONS.labels(route, known.slug).inc()
            await problem(known)(scope, receive, named_send)
        finally:
            in_flight.dec()
            metrics.REQUEST_SECONDS.labels(route, str(status or 500)).observe(time.perf_counter() - begin)

    def _label(self, path: str) -> str:
        if path in self._routes or path in PROBES or path in PAGES:
            return path
        return "page" if path.startswith(ASSETS) else "unknown"

    def _answer(self, scope: Scope, headers: Headers) -> Response | None:
        """What needs no model; None where the service has to answer.

        Raises:
            DuetError: the request is refused.
        """
        path, method = scope["path"], scope["method"]
        if headers.get("content-type", "").partition(";")[0].strip().lower() == "application/vnd.bentoml+pickle":
            raise UnsupportedMedia("pickle is never read here; send application/json", field="Content-Type")
        if self._label(path) == "unknown":
            raise UnknownRoute(f"{path[:100]}: there is {', '.join(sorted(self._routes | PROBES))}")
        allowed = ("POST",) if path in self._routes else ("GET", "HEAD")
        if method not in allowed:
            methods = ", ".join(allowed)
            raise MethodNotAllowed(f"{method[:20]} {path[:100]}: this route takes {methods}", allowed=methods)
        if path in ("/livez", "/healthz"):
            return Response("alive\n", media_type="text/plain")
        if path == "/readyz":
            return self._readiness()
        if path == "/metrics":
            text, content_type = metrics.exposition()
            return Response(text, headers={"Content-Type": content_type})
        return None

    def _readiness(self) -> Response:
        if not self._plane.ready:
            raise NotReady("; ".join(self._plane.problems), retry_after=1.0)
        body = {"ready": True, "models": [entry.tag for entry in self._plane.entries]}
        return Response(json.dumps(body), media_type="application/json")


def _bounded(receive: Receive, headers: Headers, limit: int) -> Receive:
    """Count the body while it is read: Content-Length may be absent or a lie."""
    declared = headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise TooLarge(f"the body has {declared} bytes; at most {limit} are allowed", field="body")
    read = 0

    async def counted() -> Message:
        nonlocal read
        message = await receive()
        read += len(message.get("body", b""))
        if read > limit:
            raise TooLarge(f"the body has more than {limit} bytes", field="body")
        return message

    return counted
