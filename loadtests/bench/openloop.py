"""Open-loop load: requests leave when they are due, whether or not the server keeps up.

Latency counts from the moment a request was due, so that a stalled server cannot hide by making its clients wait
("coordinated omission", G. Tene). Raw HTTP/1.1 over many keep-alive connections, one request at a time on each.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field
from typing import cast

import numpy as np

CONNECTIONS = 512  # open at the start, so that what is measured is requests, not the server's accepting
SETTLE = 1.0  # seconds until the server has accepted them: a connection is open for its client before that
LIMIT = 1024  # connections; what is due beyond waits, and its clock runs


@dataclass
class Answers:
    """One entry a request that was due: seconds on the monotonic clock; status 0 where none came."""

    due: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    received: list[float] = field(default_factory=list)
    status: list[int] = field(default_factory=list)

    def latency(self, status: int) -> np.ndarray:
        """Seconds from due to received of the answers with `status`."""
        times = np.subtract(self.received, self.due)
        chosen: np.ndarray = times[np.equal(self.status, status)]
        return chosen

    def count(self, status: int) -> int:
        return self.status.count(status)


class Connection(asyncio.Protocol):
    """One keep-alive connection."""

    def __init__(self, load: "Load") -> None:
        self._load = load
        self._buffer = b""
        self._due = self._sent = 0.0
        self._busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._load.opened(self)

    def close(self) -> None:
        self._transport.abort()

    def ask(self, due: float) -> None:
        self._busy, self._due, self._sent = True, due, time.monotonic()
        self._transport.write(self._load.request)

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:") + len(b"content-length:")
        if len(self._buffer) < end + 4 + int(head[at:].partition(b"\r\n")[0]):
            return
        self._buffer = b""
        self._busy = False
        self._load.answered(self._due, self._sent, int(head[9:12]))
        if b"\r\nconnection: close" not in head:
            self._load.idle(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._busy:
            self._load.answered(self._due, self._sent, 0)
        self._load.lost(self)


class Load:
    """The connections to one server and the answers so far."""

    def __init__(self, port: int, request: bytes) -> None:
        self.request = request
        self.answers = Answers()
        self._port = port
        self._idle: deque[Connection] = deque()
        self._waiting: deque[float] = deque()
        self._open: set[Connection] = set()
        self._outstanding = 0
        self._opening: set[asyncio.Task[object]] = set()
        self._closed = False

    async def connect(self, connections: int) -> None:
        for _ in range(connections):
            self._dial()
        await asyncio.gather(*self._opening)

    def _dial(self) -> None:
        loop = asyncio.get_running_loop()
        task: asyncio.Task[object] = loop.create_task(
            loop.create_connection(lambda: Connection(self), "127.0.0.1", self._port)
        )
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    def due(self, moment: float) -> None:
        """Send a request that was due at `moment`, now or as soon as a connection is free."""
        self._outstanding += 1
        if self._idle:
            self._idle.popleft().ask(moment)  # in turn, so that none idles until the server closes it
            return
        self._waiting.append(moment)
        if len(self._open) + len(self._opening) < LIMIT:
            self._dial()

    def opened(self, connection: Connection) -> None:
        self._open.add(connection)
        self.idle(connection)

    def idle(self, connection: Connection) -> None:
        if self._waiting:
            connection.ask(self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self._closed:
            self._dial()

    def answered(self, due: float, sent: float, status: int) -> None:
        self._outstanding -= 1
        self.answers.due.append(due)
        self.answers.sent.append(sent)
        self.answers.received.append(time.monotonic())
        self.answers.status.append(status)

    async def settle(self, patience: float) -> None:
        """Wait for what is outstanding; whatever has no answer then gets status 0."""
        end = time.monotonic() + patience
        while self._outstanding and time.monotonic() < end:  # noqa: ASYNC110  # the hot path sets no events
            await asyncio.sleep(0.01)
        self._closed = True
        for moment in self._waiting:
            self.answered(moment, time.monotonic(), 0)
        self._waiting.clear()
        await asyncio.gather(*self._opening, return_exceptions=True)
        for connection in self._open:
            connection.close()
        while self._open:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def offer(
    port: int, request: bytes, rate: float, seconds: float, *, patience: float = 5, seed: int = 0
) -> Answers:
    """Poisson arrivals at `rate` requests a second for `seconds`."""
    gaps = np.random.default_rng(seed).exponential(1 / rate, int(2 * rate * seconds) + 10)
    moments = np.cumsum(gaps)
    assert moments[-1] > seconds, "too few arrivals were drawn"
    return await send(Load(port, request), moments[moments <= seconds], patience=patience)


async def send(load: Load, moments: np.ndarray, *, patience: float = 5) -> Answers:
    """Requests that are due at these moments, seconds from the start, ascending."""
    await load.connect(CONNECTIONS)
    await asyncio.sleep(SETTLE)
    begin = time.monotonic()
    for moment in (begin + moments).tolist():
        # The loop's timers tick in milliseconds: the last two are waited out by turning it. It turns once even when
        # requests are overdue, so that answers are read when they come.
        while True:
            ahead = moment - time.monotonic()
            await asyncio.sleep(ahead - 0.002 if ahead > 0.002 else 0)
            if ahead <= 0:
                break
        load.due(moment)
    await load.settle(patience)
    return load.answers


class Saturation(Load):
    """A closed loop: every connection asks again as soon as it was answered."""

    stop = 0.0

    def idle(self, connection: Connection) -> None:
        now = time.monotonic()
        if now < self.stop:
            self._outstanding += 1
            connection.ask(now)
        else:
            super().idle(connection)


async def saturate(port: int, request: bytes, connections: int, seconds: float) -> float:
    """Answers with status 200 a second, with `connections` requests always under way; the first fifth is warm-up."""
    load = Saturation(port, request)
    begin = time.monotonic()
    load.stop = begin + seconds
    await load.connect(connections)
    await asyncio.sleep(max(0.0, load.stop - time.monotonic()))
    await load.settle(5)
    received = np.array(load.answers.received)[np.array(load.answers.status) == 200]
    counted = ((received > begin + seconds / 5) & (received <= load.stop)).sum()
    return float(counted / (0.8 * seconds))
