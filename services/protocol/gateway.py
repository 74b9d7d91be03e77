"""The gateway: an ASGI application around everything that BentoML serves.

It gives each request an id, bounds its body, measures it, answers the probes and the metrics page, and calls both
protocols. It refuses unknown paths (which would become metric labels) and BentoML's pickle media type (which can run
code). BentoML answers its own pages, and calls the native routes if `DUET_FAST_LANE` is false.
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.call import Call
from services.dataplane import DataPlane
from services.errors import MethodNotAllowed, NotReady, UnknownRoute, UnsupportedMedia
from services.protocol.body import Bodies, Body
from services.protocol.catalogue import models_page, template
from services.protocol.drift import drift_report
from services.protocol.headers import call_from_raw, call_headers, headers_to_dict
from services.protocol.native.routes import Route
from services.protocol.openapi import document
from services.protocol.problems import problem, refusal
from services.protocol.raw_response import RawResponse
from services.protocol.v2.routes import V2
from services.shims import hoist, is_disconnected
from services.telemetry import metrics

log = logging.getLogger("duet.gateway")

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
PAGES = frozenset({"/", "/schema.json"})  # BentoML's own
DOCUMENT = "/docs.json"  # OpenAPI, in place of BentoML's; its page `/` shows it
PROBES = frozenset({"/livez", "/readyz", "/healthz", "/metrics"})
MODELS = "/models"
DRIFT = "/drift"  # only in services that score anomalies
ASSETS = ("/static_content/", "/assets/")
CLOSE = (b"connection", b"close")
PICKLE = b"application/vnd.bentoml+pickle"


class FastPathMiddleware:
    """Puts a gateway around a service: outside BentoML's layers if possible, else inside them.

    Starlette builds its layers before the lifespan event and sends that event through all of them with itself in
    `scope["app"]`. At that moment the whole stack can be wrapped, so that Duet's requests do not pass BentoML's timer
    (which keeps every request alive for the timeout), spans and contexts.
    """

    def __init__(self, app: ASGIApp, plane: DataPlane, routes: Mapping[str, Route[Any]], name: str) -> None:
        self._app = app
        self._plane = plane
        self._gateway = Gateway(app, plane, routes, name)
        self._hoisted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and self._plane.settings.fast_lane:
            self._hoist(scope)
        await (self._app if self._hoisted else self._gateway)(scope, receive, send)

    def _hoist(self, scope: Scope) -> None:
        def around(stack: ASGIApp) -> ASGIApp:
            self._gateway.app = stack
            return self._gateway

        self._hoisted = hoist(scope.get("app"), around)
        if not self._hoisted:
            log.warning("Starlette has no middleware_stack: requests pass BentoML's layers, which is slower")


class Gateway:
    """Answers Duet's routes, and passes other requests on to BentoML.

    Args:
        app: the rest of the service.
        plane: the models, whether they are ready, and the settings.
        routes: of the native protocol, by path.
        name: the service's name.
    """

    def __init__(self, app: ASGIApp, plane: DataPlane, routes: Mapping[str, Route[Any]], name: str) -> None:
        self.app = app
        self._plane = plane
        self._routes = routes
        self._name = name
        self._probes = PROBES | {DOCUMENT} | ({DRIFT} if "anomaly" in plane.tasks else set())
        self._v2 = V2(plane, name)
        self._bodies = Bodies(plane.settings, plane.offload)
        # The random part differs between replicas, the count between requests; a UUID costs ten times as much.
        prefix = secrets.token_hex(6).encode()
        self._ids = (b"%s-%x" % (prefix, n) for n in itertools.count())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begin = time.perf_counter()
        path: str = scope["path"]
        headers = headers_to_dict(scope["headers"])
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
        body: Body | None = None
        try:
            answer: Response | RawResponse | None = self._about(scope, route, headers)
            if answer is None:
                body = Body(self._bodies, receive, headers)
                answer = await self._answer(scope, route, headers, body, receive, request_id.decode())
            if isinstance(answer, RawResponse):
                status = answer.status
                answer.headers.append((b"x-request-id", request_id))
                if draining:
                    answer.headers.append(CLOSE)
                await answer(scope, receive, send)
            elif answer is not None:
                await answer(scope, receive, named_send)
            else:
                await self.app(scope, body.receive if body else receive, named_send)
        except Exception as error:
            if status:
                raise  # too late for another answer: the server below closes the connection
            await problem(refusal(error, route, request_id.decode()))(scope, receive, named_send)
        finally:
            if body is not None:
                body.close()
            in_flight.count -= 1
            metrics.REQUEST_SECONDS.labels(route, str(status or 500)).observe(time.perf_counter() - begin)

    def _label(self, path: str) -> str:
        if path.startswith("/v2") and path[3:4] in ("", "/"):
            return self._v2.label(path)
        if path.startswith(MODELS) and path[len(MODELS) : len(MODELS) + 1] in ("", "/"):
            return template(path)
        if path in self._routes or path in self._probes or path in PAGES:
            return path
        return "page" if path.startswith(ASSETS) else "unknown"

    def _about(self, scope: Scope, route: str, headers: dict[bytes, bytes]) -> Response | None:
        """The answer to a probe; None if the request is for a model or for one of BentoML's pages.

        Raises:
            DuetError: the request is refused.
        """
        path, method = scope["path"], scope["method"]
        if PICKLE in headers.get(b"content-type", b"").lower():
            raise UnsupportedMedia(
                "Content-Type: pickle is always refused; send application/json", field="Content-Type"
            )
        if route.startswith("/v2"):
            return None
        if route == "unknown":
            known = ", ".join(sorted(self._routes.keys() | self._probes - {DOCUMENT}))
            raise UnknownRoute(f"{path[:100]}: no such route; the routes are {known}, {MODELS} and /v2")
        allowed = ("POST",) if path in self._routes else ("GET", "HEAD")
        if method not in allowed:
            methods = ", ".join(allowed)
            raise MethodNotAllowed(f"{method[:20]} {path[:100]}: this route takes {methods}", allowed=methods)
        return self._probe(path) if path in self._probes else None

    async def _answer(
        self,
        scope: Scope,
        route: str,
        headers: dict[bytes, bytes],
        body: Body,
        receive: Receive,
        request_id: str,
    ) -> Response | RawResponse | None:
        """The answer; None if BentoML has to answer.

        Raises:
            DuetError: the request is refused.
        """
        path = scope["path"]
        if route.startswith("/v2"):
            call = self._call(headers, receive, request_id)
            answer = await self._v2.answer(scope["method"], path, headers, body, call)
            for stage, seconds in call.seconds.items():
                metrics.STAGE_SECONDS.labels(route, stage).observe(seconds)
            answer.headers.extend(call_headers(call))
            return answer
        native = self._routes.get(path)
        if native is None:
            return await models_page(self._plane, path, headers) if route.startswith(MODELS) else None
        call = self._call(headers, receive, request_id)
        if self._plane.settings.fast_lane:
            return await native.respond(self._plane, headers, body, call)
        scope["duet"] = headers, body, call
        return None

    def _call(self, headers: dict[bytes, bytes], receive: Receive, request_id: str) -> Call:
        call = call_from_raw(headers, self._plane.settings, self._plane.lag.seconds)
        call.id = request_id
        call.gone = is_disconnected(receive)
        return call

    def _probe(self, path: str) -> Response:
        if path == "/metrics":
            text, content_type = metrics.exposition()
            return Response(text, headers={"Content-Type": content_type})
        if path == DRIFT:
            return Response(json.dumps(drift_report(self._plane)), media_type="application/json")
        if path == DOCUMENT:
            names = sorted({served.entry.name for served in self._plane.served})
            content = document(self._routes, self._name, names, drift=DRIFT in self._probes)
            return Response(json.dumps(content), media_type="application/json")
        if path != "/readyz":
            return Response("alive\n", media_type="text/plain")
        self._plane.check()
        if self._plane.draining:
            raise NotReady("draining: this replica is about to stop", retry_after=1.0)
        body: dict[str, Any] = {"ready": True, "models": [served.entry.tag for served in self._plane.served]}
        if self._plane.problems:
            body["problems"] = self._plane.problems
        return Response(json.dumps(body), media_type="application/json")
