"""One request and its answer in every protocol: its id, the memory of its body, what is measured of it."""

from __future__ import annotations

import itertools
import re
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from starlette.types import Message, Receive, Scope, Send

from services.call import Call
from services.protocol.body import Body
from services.protocol.headers import call_headers
from services.protocol.problems import problem, refusal
from services.protocol.raw_response import RawResponse
from services.protocol.stream import Stream
from services.telemetry import metrics

REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
CLOSE = (b"connection", b"close")

Headers = dict[bytes, bytes]
Answer = RawResponse | Stream

# The random part differs between replicas, the count between requests; a UUID costs ten times as much.
_PREFIX = secrets.token_hex(6).encode()
_ids = (b"%s-%x" % (_PREFIX, n) for n in itertools.count())


@dataclass(frozen=True, slots=True)
class ModelRoute:
    """A path whose requests are answered by a model.

    Attributes:
        label: of metrics.
        respond: returns the answer, or raises a `DuetError`.
    """

    label: str
    respond: Callable[[Headers, Body, Call], Awaitable[Answer]]


class Exchange:
    """One request on its way.

    Args:
        label: the route, for metrics.
        headers: of the request, by lower-case name.
        closing: whether the connection is to be closed after the answer: the service is draining.
    """

    __slots__ = ("_begin", "_closing", "_in_flight", "body", "headers", "id", "label")

    def __init__(self, label: str, headers: Headers, *, closing: bool) -> None:
        self._begin = time.perf_counter()
        self.label = label
        self.headers = headers
        given = headers.get(b"x-request-id")
        self.id = given if given is not None and REQUEST_ID.fullmatch(given) else next(_ids)
        self.body: Body | None = None
        self._closing = closing
        self._in_flight = metrics.in_flight(label)
        self._in_flight.count += 1
        metrics.BEGUN.count += 1

    def refused(self, error: Exception) -> RawResponse:
        """The answer that tells an error."""
        return problem(refusal(error, self.label, self.id.decode()))

    def sign(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Add to an answer's headers what every answer has."""
        headers.append((b"x-request-id", self.id))
        if self._closing:  # the next request of this client should go to another replica
            headers.append(CLOSE)

    def end(self, status: int) -> None:
        """Free what the request held, and measure it; called once, when its answer has been sent."""
        if self.body is not None:
            self.body.close()
        self._in_flight.count -= 1
        seconds = time.perf_counter() - self._begin
        metrics.REQUEST_SECONDS.labels(self.label, str(status)).observe_request(seconds, self.id)

    async def send(self, app: Callable[..., Awaitable[None]], scope: Scope, receive: Receive, send: Send) -> None:
        """Let an ASGI application answer: a `RawResponse`, a stream, or BentoML.

        Raises:
            Exception: it failed after its answer had begun; the server closes the connection.
        """
        status = 0

        async def signed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ())]
                self.sign(message["headers"])
            await send(message)

        try:
            if isinstance(app, RawResponse):
                status = app.status
                self.sign(app.headers)
                await app(scope, receive, send)
            else:
                await app(scope, receive if self.body is None else self.body.receive, signed)
        except Exception as error:
            if status:
                raise
            answer = self.refused(error)
            status = answer.status
            self.sign(answer.headers)
            await answer(scope, receive, send)
        finally:
            self.end(status or 500)


def complete(answer: Answer, label: str, call: Call) -> None:
    """Add to an answer's headers what is known of its call, and measure its stages."""
    if isinstance(answer, Stream):
        answer.route = label  # it is not finished: the stream observes its own stages
        answer.raw_headers.extend(call_headers(call))
        return
    for stage, seconds in call.seconds.items():
        metrics.STAGE_SECONDS.labels(label, stage).observe(seconds)
    answer.headers.extend(call_headers(call))
