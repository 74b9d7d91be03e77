"""HTTP connections: uvicorn's protocol with bounds in bytes and time for each phase, and offers to upgrade ignored.

A head that does not end, a client that sends nothing, one that goes on sending after its answer, and one that does not
read its answer are disconnected. The time for a body is that of its request, see `services.protocol.body`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.errors import (
    DuetError,
    HeadTimeout,
    HeadTooLarge,
    MalformedRequest,
    NotImplementedHTTP,
    TooManyConnections,
)
from services.protocol.problems import MEDIA_TYPE, body_of, refusal
from services.settings import Settings

LINGER_SECONDS = 1.0  # that a refused client has to read the answer
LABEL = "connection"  # the route of what is refused before there is a route
PEERS: Counter[str] = Counter()  # connections of each client address


class Connection(HttpToolsProtocol):
    """One connection of a client; `settings` are those of the process."""

    settings: Settings

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.timeout_keep_alive = self.settings.keep_alive_seconds  # type: ignore[assignment]  # passed to call_later
        self._timer: asyncio.TimerHandle | None = None  # ends what the client takes too long to send
        self._unread: asyncio.TimerHandle | None = None  # ends an answer that the client does not read
        self._head_bytes = 0
        self._in_head = False
        self._ignored = False  # the rest of a message that offers an upgrade
        self._refused = False  # everything that still comes
        self._peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._peer = self.client[0] if self.client else ""
        PEERS[self._peer] += 1
        by_peer = self.settings.peer_connections
        if len(self.connections) > self.settings.connections or 0 < by_peer < PEERS[self._peer]:
            message = f"{len(self.connections)} connections are open, {PEERS[self._peer]} of them by this client"
            self._refuse(TooManyConnections(f"{message}; retry later", retry_after=1.0))
            return
        self._start(self.settings.head_seconds, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._stop_unread()
        PEERS[self._peer] -= 1
        if not PEERS[self._peer]:
            del PEERS[self._peer]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._in_head:
            self._head_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self._refuse(MalformedRequest("the request is not HTTP/1.1", field="head"))
            return
        if not self._in_head or self._refused:
            return
        if self._head_bytes > self.settings.head_bytes:
            self._refuse(self._too_large())
        elif not self._head_bytes:  # its first part
            self._start(self.settings.head_seconds, self._head_timeout)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._head_bytes, self._ignored = True, 0, False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # not a trailer
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop()
        error = self._wrong_head()
        if error is not None:
            self._refuse(error)
        self._ignored = self._refused or self.parser.should_upgrade()
        if not self._ignored:
            super().on_headers_complete()

    def _wrong_head(self) -> DuetError | None:
        """What RFC 9110 and 9112 want refused and the parser lets pass."""
        size, hosts, coding = len(self.url), 0, b"chunked"
        for name, value in self.headers:
            size += len(name) + len(value) + 4
            if name == b"host":
                hosts += 1
            elif name == b"transfer-encoding":
                coding = value.lower()
        version = self.parser.get_http_version()
        if size > self.settings.head_bytes:
            return self._too_large()
        if version not in ("1.1", "1.0"):
            return NotImplementedHTTP(f"HTTP version {version}; send HTTP/1.1", field="head")
        if hosts > 1 or (not hosts and version == "1.1"):
            return MalformedRequest(f"the request has {hosts} Host headers; send one", field="Host")
        if coding != b"chunked":
            return NotImplementedHTTP("Transfer-Encoding: only chunked is understood", field="Transfer-Encoding")
        if self.parser.get_method() == b"CONNECT":
            return NotImplementedHTTP("CONNECT: this is no proxy", field="head")
        return None

    def on_body(self, body: bytes) -> None:
        if not self._ignored:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if self._ignored:
            return
        if self.cycle.response_complete:  # the answer came before the end of the body
            self._stop()
            self.cycle.more_body = False
            self._wait_for_next()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Called when the last bytes of an answer are handed to the transport."""
        super().on_response_complete()
        if self.transport.is_closing():
            if self.transport.get_write_buffer_size():
                self._start_unread()
        elif self._in_head:  # the next request has begun to come
            self._unset_keepalive_if_required()
        elif self.cycle.response_complete and self.cycle.more_body:
            self._unset_keepalive_if_required()
            self._start(self.settings.head_seconds, self.transport.close)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():  # an answer that nobody reads would keep it open
            self.transport.abort()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self._refuse(MalformedRequest(msg, field="head"))

    def _should_upgrade(self) -> bool:
        return False

    def _ignore_upgrade(self, rest: bytes) -> None:
        """Read the message again without its offer to change the protocol (RFC 9110, 7.8), which hides the body."""
        version = self.parser.get_http_version().encode()
        head = [self.parser.get_method() + b" " + self.url + b" HTTP/" + version]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.split(b",") if token.strip().lower() != b"upgrade"]
                head.append(b"connection: " + b",".join(kept))
            elif name != b"upgrade":
                head.append(name + b": " + value)
        self.parser = httptools.HttpRequestParser(self)
        self.data_received(b"\r\n".join(head) + b"\r\n\r\n" + rest)

    def _wait_for_next(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def _too_large(self) -> HeadTooLarge:
        limit = self.settings.head_bytes
        return HeadTooLarge(f"the request line and the headers have more than {limit} bytes", field="head")

    def _head_timeout(self) -> None:
        seconds = self.settings.head_seconds
        self._refuse(HeadTimeout(f"the headers did not arrive within {seconds:g} seconds", field="head"))

    def _refuse(self, error: DuetError) -> None:
        """Answer and close. What the client still sends is read for a moment: else the system drops the answer."""
        self._refused = True
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete:
            if cycle.response_started or not cycle.more_body:
                cycle.keep_alive = False  # an answer to an earlier request is being made
                return
            cycle.disconnected = True  # whoever reads the rest of this body has nothing to wait for
            cycle.message_event.set()
        body = body_of(refusal(error, LABEL, ""))
        retry = "" if error.retry_after is None else f"retry-after: {math.ceil(error.retry_after)}\r\n"
        head = f"{retry}content-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start(LINGER_SECONDS, self.transport.abort)

    def _start(self, seconds: float, end: Any) -> None:
        self._stop()
        self._timer = self.loop.call_later(seconds, end)

    def _start_unread(self) -> None:
        """What the client sends meanwhile does not give it more time."""
        self._stop_unread()
        self._unread = self.loop.call_later(self.settings.request_timeout_ms / 1000, self.transport.abort)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def connection_class(settings: Settings) -> type[Connection]:
    """The protocol class for a process with these settings."""
    return type("BoundedConnection", (Connection,), {"settings": settings})
