"""Answers that clients do not read, bounded in bytes over all connections of the process.

An answer waits in its connection's buffer until the client reads it. Each has the time of a request for that; many
clients that read nothing must not fill the memory meanwhile.
"""

from __future__ import annotations

import asyncio

from services.telemetry import metrics

PART_BYTES = 2**15


def write_in_parts(transport: asyncio.Transport, answer: bytes) -> None:
    """Write an answer in parts: a transport keeps the whole of what the system did not take whole."""
    for begin in range(0, len(answer), PART_BYTES):
        transport.write(answer[begin : begin + PART_BYTES])


class InParts:
    """What uvicorn uses of a transport to send an answer."""

    __slots__ = ("_transport", "close", "is_closing")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.close, self.is_closing = transport.close, transport.is_closing

    def write(self, answer: bytes) -> None:
        write_in_parts(self._transport, answer)


class Unread:
    """The connections whose answers wait, the longest waiting first.

    Args:
        limit: bytes of all buffers; the connections that wait longest are disconnected beyond it.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._held: dict[asyncio.Transport, int] = {}
        self.bytes = 0

    def add(self, transport: asyncio.Transport) -> None:
        """Count the buffer of a connection; one answer alone may be larger than the limit."""
        size = self._held[transport] = transport.get_write_buffer_size()
        self.bytes += size
        while self.bytes > self._limit and len(self._held) > 1:
            longest = next(iter(self._held))
            self.remove(longest)
            metrics.CONNECTIONS_ENDED.labels("unread-bytes").inc()
            longest.abort()

    def remove(self, transport: asyncio.Transport) -> None:
        self.bytes -= self._held.pop(transport, 0)
