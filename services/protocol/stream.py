"""An answer in lines of JSON that are made while it is sent: memory for one part of it, however long it gets."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from services.errors import DuetError, Unexpected
from services.protocol.problems import body_of
from services.telemetry import metrics
from services.telemetry.call import Call

log = logging.getLogger("duet.stream")

GRACE_SECONDS = 1.0  # after the deadline, for the last line to get out


class Stream(StreamingResponse):
    """Sends parts as they are made, and in the end, if something went wrong, a problem's body as the last line.

    Nothing is made ahead of a client that reads slowly, and nothing more for one that hung up. Starlette would cancel
    what makes the parts, but anyio leaves a task alone whose wait is over, and a model that computes on the event loop
    can keep it so for seconds: whether the client is there is looked at before each part.

    Attributes:
        route: for the metrics; whoever sends the answer sets it.
    """

    media_type = "application/x-ndjson"
    route = ""

    def __init__(self, first: bytes, parts: AsyncGenerator[bytes, None], call: Call) -> None:
        super().__init__(parts)
        self._first = first
        self._parts = parts
        self._call = call

    @classmethod
    async def begun(cls, parts: AsyncGenerator[bytes, None], call: Call) -> Stream:
        """With its first part made, so that a request which is refused is answered by a status, not by a line.

        Raises:
            DuetError: whatever making that part raises.
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
        except TimeoutError:  # the server below closes the connection, so that the client sees that the end is missing
            log.info("%s: the client did not read its answer before the deadline", self.route)
        finally:
            left.cancel()
            await self._parts.aclose()
            for stage, seconds in self._call.seconds.items():
                metrics.STAGE_SECONDS.labels(self.route, stage).observe(seconds)
        if self.background is not None:
            await self.background()

    async def _rest(self, send: Send, left: asyncio.Task[None]) -> bytes:
        """Send all other parts; returns what is to be said at last."""
        try:
            while not left.done():
                await send({"type": "http.response.body", "body": await anext(self._parts), "more_body": True})
        except StopAsyncIteration:
            pass
        except DuetError as error:
            return self._failed(error)
        except Exception:
            log.exception("%s failed", self.route)
            return self._failed(Unexpected())
        return b""

    def _failed(self, error: DuetError) -> bytes:
        metrics.REJECTIONS.labels(self.route, error.slug).inc()
        return body_of(error) + b"\n"
