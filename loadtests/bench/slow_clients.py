"""Clients that are slow in one way each, by the thousand: open connections that send, or read, too little.

A client closes its end when it sees that the server has ended the connection. Readers that stop never see it.
"""

import asyncio
import select
import socket
from dataclasses import dataclass
from typing import cast

EVERY = 0.5  # seconds between two bytes
SLOTS = 25  # parts of that time, in which an equal share of the clients sends: clients are not in step
SEGMENT = 1460  # bytes, as over Ethernet: with the segments of the loopback a system's buffers take whole answers
HEAD, REQUEST = "DUET_HEAD_SECONDS", "DUET_REQUEST_TIMEOUT_MS"
RECEIVE = 4096  # bytes of a reader's buffer in the system


@dataclass(frozen=True)
class Kind:
    """A way to be slow.

    Attributes:
        bound: the setting that bounds its time.
        sends: what a client sends at once.
        drips: bytes that it sends afterwards, one each half second; empty: nothing.
        reads: whether it reads what the server sends.
    """

    name: str
    bound: str
    sends: bytes
    drips: bytes = b""
    reads: bool = True


def kinds(body: bytes, answered: bytes) -> tuple[Kind, ...]:
    """All ways to be slow.

    Args:
        body: a request whose second half never comes.
        answered: a request with a large answer.
    """
    head = b"POST /classify HTTP/1.1\r\nHost: x\r\n"
    return (
        Kind("silent", HEAD, b""),
        Kind("half a head", HEAD, head),
        Kind("a byte each half second", HEAD, b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: ", drips=b"a"),
        Kind("half a body", REQUEST, body[: (body.index(b"\r\n\r\n") + 4 + len(body)) // 2]),
        Kind("reads nothing", REQUEST, answered, reads=False),
    )


class Client(asyncio.Protocol):
    """One connection."""

    def __init__(self, kind: Kind, held: set["Client"]) -> None:
        self._kind, self._held = kind, held

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._held.add(self)

    def begin(self) -> None:
        """Send what is sent at once; not before the loop reads, for uvloop would go on reading."""
        if not self._kind.reads:
            self._transport.pause_reading()
        if self._kind.sends:
            self._transport.write(self._kind.sends)

    def drip(self) -> None:
        self._transport.write(self._kind.drips)

    def connection_lost(self, exc: Exception | None) -> None:
        self._held.discard(self)

    def close(self) -> None:
        self._transport.abort()


async def open_all(port: int, kind: Kind, count: int, seconds: float) -> set[Client]:
    """Open so many connections, spread evenly over so many seconds."""
    loop, held = asyncio.get_running_loop(), set[Client]()
    begin = loop.time()
    for number in range(count):
        await asyncio.sleep(max(0.0, begin + seconds * number / count - loop.time()))
        made = socket.socket()
        made.setblocking(False)
        if not kind.reads:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SEGMENT)
        await loop.sock_connect(made, ("127.0.0.1", port))
        _, client = await loop.create_connection(lambda: Client(kind, held), sock=made)
        client.begin()
    return held


async def drip(held: set[Client]) -> None:
    """Let every client send a byte each half second, until cancelled."""
    while True:
        clients = list(held)
        for slot in range(SLOTS):
            for client in clients[slot::SLOTS]:
                if client in held:
                    client.drip()
            await asyncio.sleep(EVERY / SLOTS)


@dataclass(frozen=True)
class Header:
    """What became of one client that sends a header without an end.

    Attributes:
        refused_after: bytes that the client had sent when the answer came.
        gone_after: bytes that it had sent when the connection was gone, for it went on after the answer.
    """

    status: int
    refused_after: int
    gone_after: int


def endless_header(port: int, size: int) -> Header:
    """Send a header of so many bytes; what the system buffers on the way counts as sent."""
    status, refused, sent = 0, 0, 0
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        client.connect(("127.0.0.1", port))
        client.settimeout(30)
        client.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Long: ")
        try:
            while sent < size:
                sent += client.send(b"a" * min(4096, size - sent))
                if not status and (answer := _waiting(client)):
                    status, refused = int(answer[9:12]), sent
        except OSError:  # the server has closed the connection
            pass
    return Header(status, refused, sent)


def _waiting(client: socket.socket) -> bytes:
    """What has come, without waiting for it."""
    return client.recv(4096) if select.select([client], [], [], 0)[0] else b""
