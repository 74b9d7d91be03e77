"""HTTP/1.1 clients that keep their connections, and judge every answer to the last byte."""

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
CHUNKED = re.compile(rb"\r\ntransfer-encoding: *chunked", re.IGNORECASE)
CLOSES = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
WINDOW = 2**16  # bytes of an answer in the reader, at most: whoever reads slowly is slow for the server, too


class Broken(Exception):
    """An answer that is none: the connection ended, or its bytes are not HTTP."""


@dataclass(frozen=True)
class Answer:
    status: int
    head: bytes
    body: bytes


@dataclass
class Tally:
    """What clients of one kind saw.

    Attributes:
        asked: requests whose bytes were sent.
        failures: what went wrong, by words.
        reopened: connections that had been closed between two requests, properly.
    """

    asked: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    reopened: int = 0


@dataclass
class Client:
    """One caller with one connection, opened again where an answer or the other side closed it between requests.

    Attributes:
        upload_seconds: the time that sending a body takes, at least.
        read_seconds: the time that reading an answer takes, at least, for one of `read_bytes`.
    """

    port: int
    tally: Tally
    upload_seconds: float = 0.0
    read_seconds: float = 0.0
    read_bytes: int = 1
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None

    async def ask(self, request: bytes, check: Callable[[Answer], str]) -> None:
        """Send a request and judge the answer: `check` returns what is wrong with it, or nothing."""
        self.tally.asked += 1
        try:
            answer = await self.exchange(request)
            wrong = check(answer) if answer.status == 200 else f"status {answer.status}: {answer.body[:80]!r}"
        except (OSError, EOFError, Broken) as error:
            wrong = f"{type(error).__name__}: {str(error)[:60]}"
            await self.close()
        if wrong:
            self.tally.failures[wrong] += 1

    async def exchange(self, request: bytes) -> Answer:
        """The whole answer to a request.

        Raises:
            OSError, EOFError, Broken: there is none.
        """
        if self._reader is not None and (self._reader.at_eof() or self._reader.exception() is not None):
            self.tally.reopened += 1
            await self.close()
        if self._reader is None or self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self.port, limit=WINDOW)
        reader, writer = self._reader, self._writer
        await self._send(writer, request)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 "):
            raise Broken(f"the answer begins with {head[:20]!r}")
        body = await self._chunks(reader) if CHUNKED.search(head) else await self._read(reader, _length(head))
        if CLOSES.search(head):
            await self.close()
        return Answer(int(head[9:12]), head, body)

    async def _send(self, writer: asyncio.StreamWriter, request: bytes) -> None:
        if not self.upload_seconds:
            writer.write(request)
            return
        parts = [request[i : i + WINDOW] for i in range(0, len(request), WINDOW)]
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(self.upload_seconds / len(parts))

    async def _chunks(self, reader: asyncio.StreamReader) -> bytes:
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).strip().partition(b";")[0], 16):
            parts.append(await self._read(reader, size))
            await reader.readexactly(2)
        await reader.readexactly(2)
        return b"".join(parts)

    async def _read(self, reader: asyncio.StreamReader, size: int) -> bytes:
        part = await reader.readexactly(size)
        if self.read_seconds:
            await asyncio.sleep(self.read_seconds * size / self.read_bytes)
        return part

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._reader = self._writer = None


def _length(head: bytes) -> int:
    found = LENGTH.search(head)
    if found is None:
        raise Broken("the answer has no length")
    return int(found[1])


def post(path: str, body: bytes, media_type: str = "application/json", **headers: str) -> bytes:
    """A request as bytes."""
    lines = [f"POST {path} HTTP/1.1", "Host: duet", f"Content-Type: {media_type}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def get(port: int, path: str) -> Answer:
    """One request on a connection of its own.

    Raises:
        OSError, EOFError, Broken: there is no answer.
    """
    client = Client(port, Tally())
    try:
        return await client.exchange(f"GET {path} HTTP/1.1\r\nHost: duet\r\n\r\n".encode())
    finally:
        await client.close()


async def status_of(port: int, path: str) -> int:
    """The status of a page; 0 if nobody answers."""
    with contextlib.suppress(OSError, EOFError, Broken):
        return (await get(port, path)).status
    return 0
