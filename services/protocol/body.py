"""Request bodies: each bounded in bytes and in time, and all of them together bounded in bytes."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.types import Message, Receive

from services.call import Call
from services.errors import BodiesFull, CallerLeft, TooLarge
from services.protocol import json_slices
from services.protocol.compression import decompress
from services.protocol.json_slices import released
from services.scheduling.offload import Offload
from services.settings import Settings
from services.shims import body_received, return_free_memory
from services.telemetry import metrics

TREES = 1  # large JSON bodies that are parsed and not yet freed
TRIM_BYTES = 32 * 2**20  # after so many bytes of bodies were held, the C library is told to return free memory


class Bodies:
    """The memory that request bodies take in this process.

    Attributes:
        held: bytes, of requests that are being read or answered.
    """

    def __init__(self, settings: Settings, offload: Offload) -> None:
        self.offload = offload
        self._trees = asyncio.Semaphore(TREES)
        self.body_bytes = settings.body_bytes
        self._limit = max(settings.bodies_bytes, settings.body_bytes)
        self.held = 0
        self._most = 0
        metrics.BODIES_BYTES.set_function(lambda: self.held)

    def take(self, size: int) -> None:
        """Count bytes that came.

        Raises:
            BodiesFull: the bodies of all requests would take too much memory.
        """
        held = self.held + size
        if held > self._limit:
            message = f"request bodies take {self.held} bytes, and {self._limit} are allowed at once; retry later"
            raise BodiesFull(message, retry_after=1.0)
        self.held = held
        self._most = max(self._most, held)

    async def begin_tree(self, call: Call) -> None:
        """Wait until another large body may be parsed, and stop the garbage collector while it lives.

        A parsed body takes ten times the memory of its text, and the collector would visit every number in it.
        """
        await call.within(self._trees.acquire(), "other large bodies were not parsed")
        gc.disable()

    def release(self, tree: object) -> None:
        """Free a large parsed body away from the event loop."""

        def done() -> None:
            self._trees.release()
            gc.enable()
            _trim()

        loop = asyncio.get_running_loop()
        self.offload.run_behind(partial(released, tree), partial(loop.call_soon_threadsafe, done))

    def give(self, size: int) -> None:
        """Count bytes that are no longer needed."""
        self.held -= size
        if self._most > TRIM_BYTES and self.held < TRIM_BYTES // 4:
            self._most = self.held
            asyncio.get_running_loop().call_later(0.1, _trim)  # when the last reference is gone


class Body:
    """The body of one request.

    Args:
        bodies: the memory of all.
        receive: the server's; None if the body has arrived and is given.
        headers: by lower-case name.
        content: the body that is given.

    Attributes:
        size: bytes that are counted so far.

    Raises:
        TooLarge: the declared length, or the content, is over the limit.
        BodiesFull: all bodies together are over the limit.
    """

    __slots__ = ("_bodies", "_content", "_encoding", "_receive", "_tree", "size")

    def __init__(
        self, bodies: Bodies, receive: Receive | None, headers: Mapping[bytes, bytes], content: bytes = b""
    ) -> None:
        self._bodies, self._receive, self._content, self.size = bodies, receive, content, 0
        self._tree: object = None
        encoding = headers.get(b"content-encoding")
        self._encoding = "identity" if encoding is None else encoding.decode("latin-1").lower()
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > bodies.body_bytes:
            message = f"the body has {declared.decode()} bytes; at most {bodies.body_bytes} are allowed"
            raise TooLarge(message, field="body")
        if content:
            self._count(len(content))

    @property
    def arrived(self) -> bool:
        """Whether the server has all of it, so that reading it does not wait."""
        return self._receive is None or body_received(self._receive)

    async def receive(self) -> Message:
        """The next message of the server, counted: Content-Length may be absent or wrong.

        Raises:
            TooLarge: the body is over the limit.
            BodiesFull: all bodies together are.
        """
        if self._receive is None:
            return {"type": "http.request", "body": self._content, "more_body": False}
        message = await self._receive()
        if chunk := message.get("body", b""):
            self._count(len(chunk))
        return message

    def _count(self, size: int) -> None:
        self._bodies.take(size)
        self.size += size
        if self.size > self._bodies.body_bytes:
            raise TooLarge(f"the body has more than {self._bodies.body_bytes} bytes", field="body")

    def grow(self, size: int) -> None:
        """Count bytes of this body, read or decompressed.

        Raises:
            BodiesFull: all bodies together are over the limit.
        """
        self._bodies.take(size)
        self.size += size

    async def parse(self, text: bytes | bytearray, call: Call) -> Any:
        """The value of a JSON text of this body; a long one is parsed and freed away from the event loop.

        Raises:
            NotJSON: it is not JSON.
        """
        if json_slices.is_short(text):
            return json_slices.loads(text)
        await self._bodies.begin_tree(call)
        self._tree = ()
        self._tree = await self._bodies.offload.run(partial(json_slices.loads, text), call)
        return self._tree

    def close(self) -> None:
        if self._tree is not None:
            self._bodies.release(self._tree)
            self._tree = None
        self._bodies.give(self.size)
        self.size = 0

    async def read(self, call: Call) -> bytes | bytearray:
        """The whole body, decompressed, read before the deadline: a client may send it slowly, or never.

        Raises:
            CallerLeft: the client left halfway.
            DeadlineExceeded: the body did not arrive in time.
            UnsupportedMedia, MalformedRequest, TooLarge: see `decompress`.
        """
        content: bytes | bytearray
        if self._receive is None:
            content = self._content
        else:  # where it has arrived no timer is needed; a timer costs four times as much as reading
            content = await (self._read() if self.arrived else call.within(self._read(), "the body did not arrive"))
        return content if self._encoding == "identity" else await self._decompressed(content, call)

    @property
    def compressed(self) -> bool:
        return self._encoding != "identity"

    async def _decompressed(self, content: bytes | bytearray, call: Call) -> bytes:
        limit = self._bodies.body_bytes
        plain = await self._bodies.offload.run(partial(decompress, content, self._encoding, limit), call)
        self.grow(len(plain))
        return plain

    async def _read(self) -> bytes | bytearray:
        message = await self.receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            whole_at_once: bytes = message.get("body", b"")
            return whole_at_once
        whole = bytearray()
        while message["type"] == "http.request":
            whole += message.get("body", b"")
            if not message.get("more_body", False):
                return whole
            message = await self.receive()
        raise CallerLeft("the client left before its request was read")


def _trim() -> None:
    asyncio.get_running_loop().run_in_executor(None, return_free_memory)
