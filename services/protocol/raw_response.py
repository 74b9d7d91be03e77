"""An HTTP answer of one complete body: status, headers and body, as the server writes them."""

from __future__ import annotations

from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)
class RawResponse:
    """An ASGI application that sends one complete body.

    Starlette's Response would encode header names and look for defaults on every request.
    """

    status: int
    headers: Headers
    body: bytes

    def response(self) -> Response:
        """The same answer for Starlette, if it has to pass BentoML's layers."""
        return Response(
            self.body, self.status, {name.decode("latin-1"): value.decode("latin-1") for name, value in self.headers}
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [*self.headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
