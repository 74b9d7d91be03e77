"""The course of a fault: steady load before, while and after it, and what the server says of itself meanwhile."""

import asyncio
import contextlib
import itertools
import math
import re
import time
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field

import httpx
import orjson

ITEMS = 16  # images a request
RATE = 200.0  # requests a second
HOT = 16  # seeds that come again and again; every other request has a new one
BEFORE, AFTER = 1.5, 1.0  # seconds; after counts from when the breaker is closed again
RECOVERY = 20.0  # seconds, at most, for the breaker to close and for Redis to know an answer


@dataclass(frozen=True)
class Answer:
    """Times in seconds, `sent` on the monotonic clock; status 0: none came."""

    seed: int
    sent: float
    took: float
    status: int
    hit: bool
    body: bytes = field(repr=False)


class Client:
    """Raw HTTP/1.1 over keep-alive connections, as many as it takes."""

    def __init__(self, port: int, model: str) -> None:
        self._port, self._model = port, model
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def ask(self, seed: int) -> Answer:
        begin = time.monotonic()
        status, hit, body = 0, False, b""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await self._connection()
            writer.write(self._request(seed))
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = re.search(rb"\r\ncontent-length: (\d+)", head)
            assert length is not None
            body = await reader.readexactly(int(length[1]))
            status, hit = int(head[9:12]), b"\r\nx-cache: hit" in head
            self._idle.append((reader, writer))
        return Answer(seed, begin, time.monotonic() - begin, status, hit, body)

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._idle:
            reader, writer = self._idle.pop()
            if not reader.at_eof():
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    def _request(self, seed: int) -> bytes:
        output = [{"name": "images", "parameters": {"binary_data": True}}]
        body = orjson.dumps({"parameters": {"seed": seed, "count": ITEMS}, "outputs": output})
        head = f"POST /v2/models/{self._model}/infer HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
        return head.encode() + body

    async def offer(self, answers: list[Answer], ended: asyncio.Event, rate: float) -> None:
        """Send `rate` requests a second, whether or not answers come, until it is `ended`; wait for all answers."""
        asking: set[asyncio.Task[Answer]] = set()
        due = time.monotonic()
        for number in itertools.count():
            if ended.is_set():
                break
            task = asyncio.create_task(self.ask(number // 2 % HOT if number % 2 else HOT + number // 2))
            asking.add(task)
            task.add_done_callback(asking.discard)
            task.add_done_callback(lambda done: answers.append(done.result()))
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        await asyncio.gather(*asking)

    def close(self) -> None:
        for _, writer in self._idle:
            writer.close()


@dataclass
class Watch:
    """What a server says of itself while it is looked at.

    Attributes:
        asks: whether it asks Redis at all.
        ready: whether it always was.
        opened: sides whose breaker was seen open.
        open: sides whose breaker was open when last looked at.
    """

    client: httpx.AsyncClient
    asks: bool = False
    ready: bool = True
    opened: set[str] = field(default_factory=set)
    open: set[str] = field(default_factory=set)

    async def look(self) -> None:
        self.ready &= (await self.client.get("/readyz")).status_code == 200
        text = (await self.client.get("/metrics")).text
        states = re.findall(r'duet_cache_redis_breaker\{side="(\w+)"\} ([\d.]+)', text)
        self.asks = bool(states)
        self.open = {side for side, state in states if float(state) > 0}
        self.opened |= self.open

    async def during(self, seconds: float, opens: str = "") -> None:
        """Look for so many seconds, and until the breaker of the side `opens` was seen open, if one is named."""
        end = time.monotonic() + seconds
        while time.monotonic() < end or (opens and opens not in self.opened and time.monotonic() < end + RECOVERY):
            await self.look()
            await asyncio.sleep(0.5)


@dataclass
class Course:
    """All that happened.

    Attributes:
        answers: to all requests.
        begin, end: of the fault, on the monotonic clock.
        closed: when no breaker was open again; None: one stayed open.
        watch: what the server said of itself.
    """

    answers: list[Answer]
    begin: float
    end: float
    closed: float | None
    watch: Watch

    def _between(self, begin: float, end: float) -> list[Answer]:
        return [answer for answer in self.answers if begin <= answer.sent < end]

    @property
    def phases(self) -> tuple[list[Answer], list[Answer], list[Answer]]:
        """Answers to requests sent before the fault, during it, and after the breaker closed again."""
        closed = math.inf if self.closed is None else self.closed
        return self._between(0, self.begin), self._between(self.begin, self.end), self._between(closed, math.inf)


async def course(
    port: int,
    model: str,
    cause: AbstractContextManager[object],
    *,
    before: float = BEFORE,
    during: float,
    after: float = AFTER,
    rate: float = RATE,
    opens: str = "",
) -> Course:
    """Load a server, cause a fault, end it, and wait for the breaker to close.

    Args:
        port: of the server.
        model: a generator.
        cause: the fault.
        before: seconds of load until it begins.
        during: seconds that it lasts.
        after: seconds of load once the breaker is closed.
        rate: requests a second.
        opens: the side whose breaker ends the fault, after `during`; empty: time alone ends it.
    """
    client = Client(port, model)
    watch = Watch(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30))
    answers: list[Answer] = []
    ended = asyncio.Event()
    load = asyncio.create_task(client.offer(answers, ended, rate))
    with ExitStack() as stack:
        await asyncio.sleep(before)
        begin = time.monotonic()
        await asyncio.to_thread(stack.enter_context, cause)
        await watch.during(during, opens)
        await asyncio.to_thread(stack.close)
    end = time.monotonic()
    await watch.look()
    while watch.open and time.monotonic() < end + RECOVERY:
        await asyncio.sleep(0.05)
        await watch.look()
    closed = None if watch.open else time.monotonic()
    await watch.during(after)
    while watch.asks and closed and not any(answer.hit and answer.sent > closed for answer in answers):
        await watch.during(0.5)
        if time.monotonic() > closed + RECOVERY:
            break
    ended.set()
    await load
    client.close()
    await watch.client.aclose()
    return Course(answers, begin, end, closed, watch)
