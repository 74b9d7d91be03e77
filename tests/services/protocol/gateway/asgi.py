"""A small ASGI app that takes BentoML's place behind the guard, and a client that speaks ASGI with both."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.call import Call
from services.dataplane import DataPlane
from services.protocol.body import Body
from services.protocol.gateway import Gateway
from services.protocol.raw_response import RawResponse

LIMIT = 1000  # bytes of a body that these guards let through


class Echo:
    """In the place of a native route."""

    async def respond(self, plane: DataPlane, headers: object, body: Body, call: Call) -> RawResponse:
        return RawResponse(200, [(b"content-type", b"text/plain")], bytes(await body.read(call)))


ECHO = Echo()


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        return dict(json.loads(self.body))


@dataclass
class Client:
    """Speaks ASGI with a guard, message by message."""

    plane: DataPlane
    app: ASGIApp
    routes: dict[str, Any] = field(default_factory=lambda: dict.fromkeys(("/echo", "/other"), ECHO))
    sent: list[Message] = field(default_factory=list)

    async def ask(
        self,
        path: str = "/echo",
        method: str = "POST",
        headers: dict[str, str] | None = None,
        chunks: tuple[bytes, ...] = (b"",),
        leaves: bool = False,
    ) -> Answer:
        raw = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (headers or {}).items()]
        scope = {"type": "http", "method": method, "path": path, "headers": raw, "query_string": b""}
        messages: list[Message] = [
            {"type": "http.request", "body": chunk, "more_body": leaves or i < len(chunks) - 1}
            for i, chunk in enumerate(chunks)
        ]
        incoming = iter([*messages, {"type": "http.disconnect"}])
        self.sent = []

        async def receive() -> Message:
            return next(incoming)

        async def send(message: Message) -> None:
            self.sent.append(message)

        await Gateway(self.app, self.plane, self.routes, "tested")(scope, receive, send)
        start, *rest = self.sent
        assert start["type"] == "http.response.start"
        assert all(message["type"] == "http.response.body" for message in rest)
        named = {name.decode(): value.decode() for name, value in start["headers"]}
        assert len(named) == len(start["headers"]), "a header twice"
        return Answer(start["status"], named, b"".join(message["body"] for message in rest))


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    body = await Request(scope, receive).body()
    await PlainTextResponse(body)(scope, receive, send)


async def never(scope: Scope, receive: Receive, send: Send) -> None:
    raise AssertionError("the app was asked")
