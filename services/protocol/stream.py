"""An answer in lines of JSON, computed while it is sent: only one part of it is in memory at a time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.call import Call
from services.protocol.problems import body_of, refusal
from services.telemetry import metrics

log = logging.getLogger("duet.stream")

GRACE_SECONDS = 1.0  # after the deadline, to send the last line


class Stream(StreamingResponse):
    """Sends each part as soon as it is computed; after an error, the body of a problem is the last line.

    The next part is computed only when the client has read the previous one, and no more after it has disconnected.
    Starlette would cancel the task that computes, but anyio does not cancel a task whose wait is over, and a model on
    the event loop can keep a task in that state for seconds. So the connection is checked before each part.

    Attributes:
        route: label of the metrics; set before the answer is sent.
    """

    media_type = "application/x-ndjson"
    route = ""

    def __init__(self, first: bytes, parts: AsyncGenerator[bytes, None], call: Call) -> None:
        super().__init__(parts)
        self._first = first
        self._parts = parts
        self._call = call

    @classmethod
    async def start(cls, parts: AsyncGenerator[bytes, None], call: Call) -> Stream:
        """A stream whose first part is computed, so that a refused request gets an error status, not an error line.

        Raises:
            DuetError: the first part cannot be computed.
        """
        return cls(await anext(parts), parts, call)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        remaining = self._call.remaining()
        left = asyncio.create_task(self.listen_for_disconnect(receive))
        try:
            async with asyncio.timeout(None if remaining is None else remaining + GRACE_SECONDS):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": self._first, "more_body": True})
                last = await self._rest(send, left)
                await send({"type": "http.response.body", "body": last, "more_body": False})
        except TimeoutError:  # the server closes the connection, so the client notices that the end is missing
            message = "%s: the client did not read its answer before the deadline (request %s)"
            log.info(message, self.route, self._call.id, extra=self._call.log_fields)
        finally:
            left.cancel()
            await self._parts.aclose()
            for stage, seconds in self._call.seconds.items():
                metrics.STAGE_SECONDS.labels(self.route, stage).observe(seconds)
        if self.background is not None:
            await self.background()

    async def _rest(self, send: Send, left: asyncio.Task[None]) -> bytes:
        """Send all other parts; returns the last line."""
        try:
            while not left.done():
                await send({"type": "http.response.body", "body": await anext(self._parts), "more_body": True})
        except StopAsyncIteration:
            pass
        except Exception as error:
            return body_of(refusal(error, self.route, self._call.id, self._call.trace)) + b"\n"
        return b""
