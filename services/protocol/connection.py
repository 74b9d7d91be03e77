"""HTTP connections: uvicorn's protocol with bounds in bytes and time for each phase, and offers to upgrade ignored.

A head that does not end, a client that sends nothing, one that goes on sending after its answer, and one that does not
read its answer are disconnected. The time for a body is that of its request, see `services.protocol.body`.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from services.errors import DuetError, HeadTimeout, HeadTooLarge, MalformedRequest, TooManyConnections
from services.protocol.exchange import Headers
from services.protocol.headers import headers_to_dict
from services.protocol.heads import wrong_head
from services.protocol.problems import MEDIA_TYPE, body_of, refusal
from services.protocol.unframed import UnframedCycle
from services.protocol.unread import InParts, Unread
from services.settings import Settings
from services.telemetry import metrics

LINGER_SECONDS = 1.0  # that a refused client has to read the answer
SILENT_SECONDS = 0.5  # that a client may pause within a body that has been answered early
LINGER_BYTES = 2**16  # of a refused request that are still read
UNREAD_SECONDS = 0.1  # in which an answer is usually read
LEAST_SECONDS = 1.0  # that a client has to read an answer which came at the end of its request's time
LABEL = "connection"  # the route of what is refused before there is a route
PEERS: Counter[str] = Counter()  # connections of each client address


class Connection(HttpToolsProtocol):
    """One connection of a client; `settings` are those of the process."""

    settings: Settings
    unread: Unread

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._began = 0.0  # time of the loop when the last head had come
        self._linger_until = 0.0  # time of the loop when the rest of a body must have come
        self._timer: asyncio.TimerHandle | None = None  # ends what the client takes too long to send
        self._unread: asyncio.TimerHandle | None = None  # ends an answer that the client does not read
        self._idle: asyncio.TimerHandle | None = None  # ends a connection that is not used
        self._idle_since = math.inf  # time of the loop; infinite while a request is received or answered
        self._head_bytes = 0
        self._in_head = False
        self._ignored = False  # the rest of a message that offers an upgrade
        self._refused = False  # everything that still comes
        self._came = 0  # bytes since the head began, at most
        self._peer = ""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=1)  # every answer that the system does not take at once has its time
        self._peer = self.client[0] if self.client else ""
        PEERS[self._peer] += 1
        by_peer = self.settings.peer_connections
        if len(self.connections) > self.settings.connections or 0 < by_peer < PEERS[self._peer]:
            message = f"{len(self.connections)} connections are open, {PEERS[self._peer]} of them by this client"
            self.refuse(TooManyConnections(f"{message}; retry later", retry_after=1.0))
            return
        self._start(self.settings.head_seconds, self._end, "silent")

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._stop_unread()
        self._unset_keepalive_if_required()
        PEERS[self._peer] -= 1
        if not PEERS[self._peer]:
            del PEERS[self._peer]
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._came += len(data)
            if self._came > LINGER_BYTES:
                self.transport.pause_reading()
            return
        if self.transport.is_closing():
            return
        self._idle_since = math.inf
        if self._in_head:
            self._head_bytes += len(data)
            self._came += len(data)
        else:
            self._came = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._ignore_upgrade(data[upgrade.args[0] :])
            return
        except httptools.HttpParserError:
            self.refuse(MalformedRequest("the request is not HTTP/1.1", field="head"))
            return
        if not self._in_head or self._refused:
            return
        if self._head_bytes > self.settings.head_bytes:
            self.refuse(self._too_large())
        elif not self._head_bytes:  # its first part
            self._start(self.settings.head_seconds, self._head_timeout)

    def on_message_begin(self) -> None:
        self.url, self.headers, self.expect_100_continue = b"", [], False
        self._in_head, self._head_bytes, self._ignored = True, 0, False

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # not a trailer
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._began = self.loop.time()
        if self._timer is not None:
            self._stop()
        named = headers_to_dict(self.headers)
        method, version = self.parser.get_method(), self.parser.get_http_version()
        error = self._too_large() if self._is_too_large() else wrong_head(method, version, self.headers, named)
        if error is not None:
            self.refuse(error)
        self._ignored = self._refused or self.parser.should_upgrade()
        if self._ignored:
            return
        self.expect_100_continue = named.get(b"expect", b"").lower() == b"100-continue"
        self.begin(named, simple=method == b"POST" and version == "1.1")

    def begin(self, named: Headers, *, simple: bool) -> None:
        """Begin to answer a request whose head, with these headers, has come; a simple one is a POST of HTTP/1.1."""
        self.enter_asgi()

    def enter_asgi(self) -> None:
        """Let uvicorn make a scope and a task."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        self.cycle.transport = InParts(self.transport)  # type: ignore[assignment]  # it has what uvicorn uses
        if self.scope["http_version"] == "1.0":
            self.cycle.__class__ = UnframedCycle

    def on_body(self, body: bytes) -> None:
        if self._ignored:
            return
        super().on_body(body)
        if self.cycle.response_complete:
            self._linger()

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
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._in_head:  # the next request has begun to come
            return
        elif self.cycle.response_complete and self.cycle.more_body:
            self._linger_until = self.loop.time() + self.settings.head_seconds
            self._linger()
        else:
            self._wait_for_next()

    def _linger(self) -> None:
        """Read the rest of a body that has been answered, while it comes: else the system drops the answer."""
        self._start(min(SILENT_SECONDS, self._linger_until - self.loop.time()), self._end, "unsent")

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()

    def _unset_keepalive_if_required(self) -> None:
        """Uvicorn calls it when a connection is lost; it has a timer for each request, and `_idle` is one for all."""
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _wait_for_next(self) -> None:
        self._idle_since = self.loop.time()
        if self._idle is None:
            self._idle = self.loop.call_later(self.settings.keep_alive_seconds, self._end_idle)

    def _end_idle(self) -> None:
        """Close the connection if it has been idle for long enough, else look again when it may have been."""
        self._idle = None
        now = self.loop.time()
        left = self.settings.keep_alive_seconds - max(0.0, now - self._idle_since)
        if left > 0:
            self._idle = self.loop.call_later(left, self._end_idle)
        else:
            self._end("idle")

    def _end(self, reason: str) -> None:
        """Disconnect; an answer that nobody reads would keep the connection open."""
        metrics.CONNECTIONS_ENDED.labels(reason).inc()
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        self.refuse(MalformedRequest(msg, field="head"))

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

    def _is_too_large(self) -> bool:
        if self._came <= self.settings.head_bytes:  # an upper bound of the head's size
            return False
        return (
            len(self.url) + sum([len(name) + len(value) + 4 for name, value in self.headers]) > self.settings.head_bytes
        )

    def _too_large(self) -> HeadTooLarge:
        limit = self.settings.head_bytes
        return HeadTooLarge(f"the request line and the headers have more than {limit} bytes", field="head")

    def _head_timeout(self) -> None:
        seconds = self.settings.head_seconds
        self.refuse(HeadTimeout(f"the headers did not arrive within {seconds:g} seconds", field="head"))

    def refuse(self, error: DuetError) -> None:
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
        self._came = 0
        self.transport.write(STATUS_LINE[error.status] + head.encode() + body)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start(LINGER_SECONDS, self.transport.abort)

    def _start(self, seconds: float, end: Callable[..., None], *arguments: str) -> None:
        self._stop()
        self._timer = self.loop.call_later(max(0.0, seconds), end, *arguments)

    def _start_unread(self) -> None:
        """What the client sends meanwhile does not give it more time."""
        self._stop_unread()
        self._unread = self.loop.call_later(UNREAD_SECONDS, self._still_unread)

    def _still_unread(self) -> None:
        """An answer has the time of its request, for computing and reading together, and a second to be read."""
        deadline = self._began + self.settings.request_timeout_ms / 1000
        left = max(LEAST_SECONDS - UNREAD_SECONDS, deadline - self.loop.time())
        self._unread = self.loop.call_later(left, self._end, "unread")
        self.unread.add(self.transport)

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None
            self.unread.remove(self.transport)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
