"""Bodies as a server hands them over."""

from __future__ import annotations

from starlette.types import Message

from services.protocol.body import Bodies, Body
from services.scheduling.offload import Offload
from services.settings import Settings


def arriving(*chunks: bytes) -> Body:
    """A body that arrives in these pieces."""
    messages = iter(
        [{"type": "http.request", "body": chunk, "more_body": i < len(chunks)} for i, chunk in enumerate(chunks, 1)]
    )

    async def receive() -> Message:
        return next(messages)

    return Body(Bodies(Settings(), Offload()), receive, {})


def unread() -> Body:
    """A body that must not be read."""

    async def receive() -> Message:
        raise AssertionError("the body was read")

    return Body(Bodies(Settings(), Offload()), receive, {})
