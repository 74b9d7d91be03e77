"""The gateway: an ASGI application around everything that BentoML serves.

It gives each request an id, bounds its body, measures it, answers the probes and the metrics page, and calls both
protocols. It refuses unknown paths (which would become metric labels) and BentoML's pickle media type (which can run
code). BentoML answers its own pages, and calls the native routes if `DUET_FAST_LANE` is false. A connection asks
`find` and `respond` without ASGI where it can, see `services.protocol.direct`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.call import Call
from services.dataplane import STARTING, DataPlane
from services.errors import MethodNotAllowed, NotReady, UnknownRoute, UnsupportedMedia
from services.protocol.body import Bodies, Body
from services.protocol.catalogue import models_page, template
from services.protocol.drift import drift_report
from services.protocol.exchange import Answer, Exchange, Headers, ModelRoute, complete
from services.protocol.headers import call_from_headers, headers_to_dict
from services.protocol.native.routes import Route
from services.protocol.openapi import document
from services.protocol.raw_response import RawResponse
from services.protocol.v2.routes import V2
from services.shims import hoist, is_disconnected
from services.telemetry import metrics

log = logging.getLogger("duet.gateway")

PAGES = frozenset({"/", "/schema.json"})  # BentoML's own
DOCUMENT = "/docs.json"  # OpenAPI, in place of BentoML's; its page `/` shows it
PROBES = frozenset({"/startupz", "/livez", "/readyz", "/healthz", "/metrics"})
MODELS = "/models"
DRIFT = "/drift"  # only in services that score anomalies
ASSETS = ("/static_content/", "/assets/")
PICKLE = b"application/vnd.bentoml+pickle"


class FastPathMiddleware:
    """Puts a gateway around a service: outside BentoML's layers if possible, else inside them.

    Starlette builds its layers before the lifespan event and sends that event through all of them with itself in
    `scope["app"]`. At that moment the whole stack can be wrapped, so that Duet's requests do not pass BentoML's timer
    (which keeps every request alive for the timeout), spans and contexts.
    """

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = gateway.app = app
        self._gateway = gateway
        self._hoisted = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan" and self._gateway.plane.settings.fast_lane:
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
        self.plane = plane
        self._routes = routes
        self._name = name
        self._probes = PROBES | {DOCUMENT} | ({DRIFT} if "anomaly" in plane.tasks else set())
        self._native = {path: ModelRoute(path, path, partial(route.respond, plane)) for path, route in routes.items()}
        self._v2 = V2(plane, name)
        self._bodies = Bodies(plane.settings, plane.offload)
        self._direct: dict[bytes, ModelRoute] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        label, headers = self._label(scope["path"]), headers_to_dict(scope["headers"])
        exchange = Exchange(label, headers, closing=self.plane.draining, traced=label not in PROBES)
        exchange.about(scope["method"], scope["path"])
        try:
            answer = await self._answer(scope, receive, exchange)
        except Exception as error:
            answer = exchange.refused(error)
        await exchange.send(answer or self.app, scope, receive, send)

    def find(self, url: bytes) -> ModelRoute | None:
        """The model behind the target of a request, if the request can be answered without ASGI.

        None before the models are loaded, and for a target with an escape or a query: `__call__` answers in any case.
        """
        if not self._direct and self.plane.loaded:
            whole = {path: route for path, route in self._native.items() if not self._routes[path].streams}
            routes = {**whole, **self._v2.routes()}
            self._direct = {path.encode(): route for path, route in routes.items() if path.isascii()}
        return self._direct.get(url)

    async def respond(
        self, route: ModelRoute, headers: Headers, content: bytes, gone: Callable[[], bool], waited: float
    ) -> tuple[Exchange, RawResponse]:
        """The answer to a POST whose whole body has arrived; an error is an answer, too.

        The caller sends the answer and ends the exchange.

        Args:
            route: from `find`.
            headers: of the request, as `headers_to_dict` returns them.
            content: its body.
            gone: returns whether the client has disconnected.
            waited: seconds since the head had come.
        """
        exchange = Exchange(route.label, headers, closing=self.plane.draining)
        exchange.about("POST", route.path)
        try:
            _refuse_pickle(headers)
            exchange.body = body = Body(self._bodies, None, headers, content)
            call = self._call(exchange, gone, waited)
            answer = await route.respond(headers, body, call)
            if not isinstance(answer, RawResponse):
                raise TypeError(f"{route.label}: a stream needs ASGI")
            complete(answer, route.label, call)
        except Exception as error:
            answer = exchange.refused(error)
        return exchange, answer

    def _label(self, path: str) -> str:
        if path.startswith("/v2") and path[3:4] in ("", "/"):
            return self._v2.label(path)
        if path.startswith(MODELS) and path[len(MODELS) : len(MODELS) + 1] in ("", "/"):
            return template(path)
        if path in self._routes or path in self._probes or path in PAGES:
            return path
        return "page" if path.startswith(ASSETS) else "unknown"

    async def _answer(self, scope: Scope, receive: Receive, exchange: Exchange) -> Answer | Response | None:
        """The answer; None if BentoML has to answer.

        Raises:
            DuetError: the request is refused.
        """
        path, method, headers = scope["path"], scope["method"], exchange.headers
        _refuse_pickle(headers)
        route = self._model_route(path, method, exchange.label)
        if route is None:
            self._check(path, method, exchange.label)
            if path in self._probes:
                return self._probe(path, headers)
            exchange.body = Body(self._bodies, receive, headers)
            return await models_page(self.plane, path, headers) if exchange.label.startswith(MODELS) else None
        exchange.body = body = Body(self._bodies, receive, headers)
        call = self._call(exchange, is_disconnected(receive))
        if path in self._routes and not self.plane.settings.fast_lane:
            scope["duet"] = headers, body, call
            return None
        answer = await route.respond(headers, body, call)
        complete(answer, exchange.label, call)
        return answer

    def _model_route(self, path: str, method: str, label: str) -> ModelRoute | None:
        if label.startswith("/v2"):
            return ModelRoute(label, path, partial(self._v2.answer, method, path))
        return self._native.get(path) if method == "POST" else None

    def _check(self, path: str, method: str, label: str) -> None:
        """Refuse an unknown path, and a method that a page does not take.

        Raises:
            UnknownRoute, MethodNotAllowed.
        """
        if label == "unknown":
            known = ", ".join(sorted(self._routes.keys() | self._probes - {DOCUMENT}))
            raise UnknownRoute(f"{path[:100]}: no such route; the routes are {known}, {MODELS} and /v2")
        allowed = ("POST",) if path in self._routes else ("GET", "HEAD")
        if method not in allowed:
            methods = ", ".join(allowed)
            raise MethodNotAllowed(f"{method[:20]} {path[:100]}: this route takes {methods}", allowed=methods)

    def _call(self, exchange: Exchange, gone: Callable[[], bool] | None, waited: float = 0.0) -> Call:
        call = call_from_headers(exchange.headers, self.plane.settings, self.plane.lag.seconds + waited)
        call.id = exchange.id.decode()
        call.gone = gone
        call.trace = exchange.trace
        return call

    def _probe(self, path: str, headers: Headers) -> Response:
        if path == "/metrics":
            text, content_type = metrics.exposition(headers.get(b"accept", b""))
            return Response(text, headers={"Content-Type": content_type})
        if path == DRIFT:
            return Response(json.dumps(drift_report(self.plane)), media_type="application/json")
        if path == DOCUMENT:
            names = sorted({served.entry.name for served in self.plane.served})
            content = document(self._routes, self._name, names, drift=DRIFT in self._probes)
            return Response(json.dumps(content), media_type="application/json")
        if path == "/startupz":
            if self.plane.starting:
                raise NotReady(STARTING, retry_after=1.0)
            return Response("started\n", media_type="text/plain")
        if path != "/readyz":
            return Response("alive\n", media_type="text/plain")
        self.plane.check()
        if self.plane.draining:
            raise NotReady("draining: this replica is about to stop", retry_after=1.0)
        body: dict[str, Any] = {"ready": True, "models": [served.entry.tag for served in self.plane.served]}
        if self.plane.problems:
            body["problems"] = self.plane.problems
        return Response(json.dumps(body), media_type="application/json")


def _refuse_pickle(headers: Headers) -> None:
    """Raises: UnsupportedMedia."""
    if PICKLE in headers.get(b"content-type", b"").lower():
        raise UnsupportedMedia("Content-Type: pickle is always refused; send application/json", field="Content-Type")
