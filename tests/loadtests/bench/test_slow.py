"""Slow clients are slow as they say, against a server that records and ends what it gets."""

import asyncio
import contextlib
import math
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace

import pytest

from loadtests.bench import slow, slow_clients
from loadtests.bench.slow import Row
from loadtests.bench.slow_clients import Client, Kind

BODY = b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n0123456789"
KINDS = {kind.name: kind for kind in slow_clients.kinds(BODY, BODY)}
ROW = Row("silent", slow_clients.HEAD, 6, 1000, 6.9, 150, 170, 151, 2, 3.9, 30, 0, 9)


@asynccontextmanager
async def recording() -> AsyncIterator[tuple[int, list[bytearray], list[asyncio.StreamWriter]]]:
    """A server that keeps what each connection sends."""
    came: list[bytearray] = []
    writers: list[asyncio.StreamWriter] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(mine := bytearray())
        writers.append(writer)
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1000):
                mine.extend(data)

    listening = await asyncio.start_server(take, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1], came, writers
    finally:
        listening.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.sleep(0.05)  # the handlers end


async def until(condition: object) -> None:
    assert callable(condition)
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def end(clients: set[Client]) -> None:
    for client in list(clients):
        client.close()
    await until(lambda: not clients)


@pytest.mark.parametrize(
    ("name", "sent"),
    [("silent", b""), ("half a head", BODY[:34]), ("half a body", BODY[:-5]), ("reads nothing", BODY)],
)
async def test_each_connection_sends_its_part(name: str, sent: bytes) -> None:
    async with recording() as (port, came, _):
        clients = await slow_clients.open_all(port, KINDS[name], 5, 0.0)
        await until(lambda: len(came) == 5 and all(len(each) >= len(sent) for each in came))
        assert {bytes(each) for each in came} == {sent}
        assert len(clients) == 5
        await end(clients)


async def test_bytes_drip_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slow_clients, "EVERY", 0.05)
    kind = KINDS["a byte each half second"]
    async with recording() as (port, came, _):
        clients = await slow_clients.open_all(port, kind, 3, 0.0)
        dripping = asyncio.create_task(slow_clients.drip(clients))
        await until(lambda: len(came) == 3 and all(len(each) >= len(kind.sends) + 3 for each in came))
        dripping.cancel()
        for each in came:
            assert each.startswith(kind.sends)
            assert set(each[len(kind.sends) :]) == set(b"a")
        await end(clients)


async def test_a_client_leaves_when_the_server_ends_the_connection() -> None:
    async with recording() as (port, came, writers):
        clients = await slow_clients.open_all(port, KINDS["silent"], 3, 0.0)
        await until(lambda: len(came) == 3)
        for writer in writers:
            writer.close()
        await until(lambda: not clients)


async def test_a_reader_that_stops_leaves_an_answer_unread() -> None:
    async with recording() as (port, came, writers):
        clients = await slow_clients.open_all(port, KINDS["reads nothing"], 1, 0.0)
        await until(lambda: len(came) == 1)
        size = 200_000  # as the benchmark's answer
        writers[0].write(bytes(size))
        await asyncio.sleep(0.2)
        assert writers[0].transport.get_write_buffer_size() > size / 4  # the system buffers no more than the rest
        await end(clients)


@contextmanager
def refusing(after: int) -> Iterator[int]:
    """A server that answers 431 after so many bytes and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                left = after
                while left > 0 and (data := connection.recv(4096)):
                    left -= len(data)
                connection.sendall(b"HTTP/1.1 431 Request Header Fields Too Large\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_a_header_without_an_end_is_counted_until_it_is_refused() -> None:
    with refusing(70_000) as port:
        found = slow_clients.endless_header(port, 10**7)
    assert found.gone_after < 10**7
    assert found.gone_after >= 70_000 - 100  # the request line is not counted
    assert found.status in (431, 0)  # a system drops the answer of a connection that is closed with bytes unread


def test_a_server_that_takes_everything_is_sent_everything() -> None:
    with refusing(10**6) as port:
        assert slow_clients.endless_header(port, 10**5 * 9).gone_after == 10**5 * 9


@pytest.mark.parametrize(
    ("missed", "changes"),
    [
        ("closed", {"closed_seconds": 7.1}),
        ("closed", {"closed_seconds": math.inf}),
        ("memory", {"most_mb": 181}),
        ("p99", {"p99_beside_ms": 4.1}),
        ("stop", {"stop_seconds": 17}),
        ("answers", {"failed": 1}),
    ],
)
def test_each_bound_is_judged_by_itself(missed: str, changes: dict[str, float]) -> None:
    assert all(ROW.judged().values())
    judged = replace(ROW, **changes).judged()  # type: ignore[arg-type]
    assert [name for name, met in judged.items() if not met] == [missed]


def test_kinds_are_bounded_by_the_settings_that_bound_them() -> None:
    assert {kind.bound for kind in slow.kinds()} == {slow_clients.HEAD, slow_clients.REQUEST}
    unfinished: list[Kind] = [kind for kind in slow.kinds() if kind.name == "half a body"]
    head, _, body = unfinished[0].sends.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    assert 0 < len(body) < length
