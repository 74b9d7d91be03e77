"""The direct way of a request: from its connection to the gateway and back, without ASGI.

ASGI costs a scope, a task and four messages a request, about as much as running a small model. A request whose whole
body has arrived needs none of them.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from services.eager import start
from services.errors import DuetError
from services.protocol.connection import Connection
from services.protocol.exchange import Exchange, Headers, ModelRoute
from services.protocol.gateway import Gateway
from services.protocol.raw_response import RawResponse
from services.protocol.unread import Unread, write_in_parts

BODY_BYTES = 2**16  # of a body that is awaited here; a longer one is read through ASGI, which counts it
BODY_SECONDS = 0.05  # that it is awaited: many clients send head and body in two writes


class DirectConnection(Connection):
    """A connection that asks `gateway` without ASGI where it can."""

    gateway: Gateway

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._route: ModelRoute | None = None  # of a request whose body is awaited
        self._named: Headers = {}
        self._parts: list[bytes] = []  # of its body
        self._size = 0  # of these parts
        self._await: asyncio.TimerHandle | None = None  # ends the wait
        self._answered = False  # a request has been answered here since data came

    def data_received(self, data: bytes) -> None:
        self._answered = False
        super().data_received(data)
        if self._route is None:
            return
        if self._size > BODY_BYTES or int(self._named.get(b"content-length", b"0")) > BODY_BYTES:
            self.enter_asgi()
        elif self._await is None:
            self._await = self.loop.call_later(BODY_SECONDS, self.enter_asgi)

    def begin(self, named: Headers, *, simple: bool) -> None:
        if simple and self._may_be_direct():
            self._route, self._named = self.gateway.find(self.url), named
        if self._route is None:
            super().enter_asgi()

    def _may_be_direct(self) -> bool:
        """Whether this request can be answered at once if its body has arrived: alone, with nothing unsent before it.

        Of requests that come in one piece only the first is, so that they cannot keep the event loop.
        """
        cycle = self.cycle
        return (
            not self._answered
            and (cycle is None or cycle.response_complete)
            and not self.expect_100_continue
            and not self.flow.write_paused
        )

    def enter_asgi(self) -> None:
        parts = self._leave()
        super().enter_asgi()
        for part in parts:
            super().on_body(part)

    def on_body(self, body: bytes) -> None:
        if self._route is None:
            super().on_body(body)
        else:
            self._parts.append(body)
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._route is None:
            super().on_message_complete()
        else:
            self._answer(self._route)

    def _answer(self, route: ModelRoute) -> None:
        waited = 0.0 if self._await is None else self.loop.time() - self._began
        parts = self._leave()
        content = parts[0] if len(parts) == 1 else b"".join(parts)
        self._answered = True
        cycle = Cycle(self, keep_alive=self.parser.should_keep_alive())
        self.cycle = cycle  # type: ignore[assignment]  # it has what uvicorn uses
        start(self.gateway.respond(route, self._named, content, cycle.gone, waited), cycle.finish, self.tasks)

    def _leave(self) -> list[bytes]:
        """Forget the request that was to be answered directly; returns what has come of its body."""
        parts, self._parts, self._route, self._size = self._parts, [], None, 0
        if self._await is not None:
            self._await.cancel()
            self._await = None
        return parts

    def shutdown(self) -> None:
        if self._route is not None:
            self.enter_asgi()
        super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._route is not None:  # so that it is counted
            self.enter_asgi()
        super().connection_lost(exc)

    def refuse(self, error: DuetError) -> None:
        self._leave()
        super().refuse(error)


class Cycle:
    """One request and its answer; to uvicorn it looks like one of its own cycles.

    Args:
        connection: that sends the answer.
        keep_alive: whether the connection stays open after it.
    """

    __slots__ = ("_connection", "disconnected", "keep_alive", "response_complete", "response_started")

    message_event = asyncio.Event()  # uvicorn sets it; nobody waits for it here
    more_body = False

    def __init__(self, connection: Connection, *, keep_alive: bool) -> None:
        self._connection = connection
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def gone(self) -> bool:
        """Whether the client has disconnected."""
        return self.disconnected

    def finish(self, answered: tuple[Exchange, RawResponse]) -> None:
        """Send the answer, in one write unless it is long."""
        exchange, answer = answered
        exchange.sign(answer.headers)
        self.response_started = self.response_complete = True
        connection = self._connection
        del self._connection  # a cycle of references would keep a closed connection until a garbage collection
        if not self.disconnected:
            content = [_first_lines(answer.status, *connection.server_state.default_headers)]
            closing = False
            for name, value in answer.headers:
                if name == b"connection":
                    closing = True
                content += (name, b": ", value, b"\r\n")
            end = b"\r\n" if self.keep_alive or closing else b"connection: close\r\n\r\n"
            content += (b"content-length: %d\r\n" % len(answer.body), end, answer.body)
            write_in_parts(connection.transport, b"".join(content))
            if closing or not self.keep_alive:
                self.keep_alive = False
                connection.transport.close()
        exchange.end(answer.status)
        if not self.disconnected:
            connection.on_response_complete()


@lru_cache(maxsize=32)  # the headers of all answers change once a second
def _first_lines(status: int, *headers: tuple[bytes, bytes]) -> bytes:
    return STATUS_LINE[status] + b"".join([b"%s: %s\r\n" % header for header in headers])


def connection_class(gateway: Gateway) -> type[Connection]:
    """The protocol class for connections to this gateway."""
    settings = gateway.plane.settings
    known = {"settings": settings, "unread": Unread(settings.unread_bytes), "gateway": gateway}
    direct = settings.direct and settings.fast_lane
    return type("GatewayConnection", (DirectConnection if direct else Connection,), known)
