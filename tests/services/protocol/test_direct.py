"""Which requests are answered without ASGI, and that they are bounded, counted and ordered as all others are.

The connections are real; in the place of BentoML stands an application that says that it was asked.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from starlette.responses import PlainTextResponse
from uvicorn.config import Config
from uvicorn.server import ServerState

from services.call import Call
from services.dataplane import DataPlane
from services.protocol.body import Body
from services.protocol.direct import BODY_BYTES, BODY_SECONDS, DirectConnection, connection_class
from services.protocol.gateway import Gateway
from services.protocol.raw_response import RawResponse

Respond = Callable[[bytes, Call], Awaitable[bytes]]


class Echo:
    """In the place of a native route."""

    streams = False

    def __init__(self, respond: Respond) -> None:
        self._respond = respond

    async def respond(self, plane: DataPlane, headers: object, body: Body, call: Call) -> RawResponse:
        return RawResponse(200, [(b"x-way", way(call))], await self._respond(bytes(await body.read(call)), call))


def way(call: Call) -> bytes:
    """How the request came, told by whose method says that the client has left."""
    return b"direct" if "Cycle" in getattr(call.gone, "__qualname__", "") else b"asgi"


async def same(content: bytes, call: Call) -> bytes:
    return content


@asynccontextmanager
async def serving(plane: DataPlane, respond: Respond = same) -> AsyncIterator[tuple[int, ServerState]]:
    plane.problems, plane.loaded = [], True
    gateway = Gateway(PlainTextResponse("BentoML"), plane, {"/echo": Echo(respond)}, "tested")  # type: ignore[dict-item]
    config, state, kind = Config(gateway, lifespan="off", log_config=None), ServerState(), connection_class(gateway)
    server = await asyncio.get_running_loop().create_server(lambda: kind(config, state, {}), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.shutdown()


@pytest.fixture
def plane(empty_store: Path) -> DataPlane:
    return DataPlane([])


def post(body: bytes = b"hello", more: str = "", path: str = "/echo", version: str = "1.1") -> bytes:
    return f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


class Answers:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def next(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(20):
            first, *lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines if line)
            return int(first.split()[1]), headers, await self.reader.readexactly(int(headers["content-length"]))


@asynccontextmanager
async def connected(port: int, *pieces: bytes, pause: float = 0.01) -> AsyncIterator[Answers]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)
        yield Answers(reader, writer)
    finally:
        writer.close()


async def ask(port: int, *pieces: bytes, pause: float = 0.01) -> tuple[str, bytes]:
    async with connected(port, *pieces, pause=pause) as client:
        status, headers, body = await client.next()
        assert status == 200, body
        return headers["x-way"], body


async def test_a_request_in_one_piece_is_answered_without_asgi(plane: DataPlane) -> None:
    async with serving(plane) as (port, _), connected(port) as client:
        for body in (b"hello", b"", b"again"):
            client.writer.write(post(body))
            status, headers, content = await client.next()
            assert (status, headers["x-way"], content) == (200, "direct", body)
            assert headers["x-cache"] == "bypass"
            assert headers["x-request-id"]
            assert "connection" not in headers


async def test_head_and_body_may_come_in_two_pieces(plane: DataPlane) -> None:
    sent = post(b"x" * 1000)
    async with serving(plane) as (port, _):
        assert await ask(port, sent[:-1000], sent[-1000:-10], sent[-10:], pause=0.002) == ("direct", b"x" * 1000)


async def test_a_body_that_takes_longer_or_is_longer_comes_through_asgi(plane: DataPlane) -> None:
    sent, long = post(b"x" * 1000), b"x" * (BODY_BYTES + 1)
    async with serving(plane) as (port, _):
        assert await ask(port, sent[:-1000], sent[-1000:-1], sent[-1:], pause=2 * BODY_SECONDS) == ("asgi", b"x" * 1000)
        head, body = post(long)[: -len(long)], long
        assert await ask(port, head, body) == ("asgi", long)


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
OTHERS = {
    "direct": [post(), post(more="Content-Type: text/plain\r\n"), CHUNKED],
    "asgi": [post(version="1.0"), post(path="/echo?a=b"), post(path="/%65cho"), post(more="Expect: tea\r\n")],
}


@pytest.mark.parametrize(("expected", "sent"), [(name, sent) for name, each in OTHERS.items() for sent in each])
async def test_which_way_a_request_takes(plane: DataPlane, expected: str, sent: bytes) -> None:
    async with serving(plane) as (port, _):
        found, content = await ask(port, sent)
    assert content == b"hello"
    assert found == (expected if b"Expect" not in sent else "direct")


async def test_of_requests_in_one_piece_only_the_first_is_direct_and_answers_keep_their_order(plane: DataPlane) -> None:
    waits: list[asyncio.Future[None]] = []

    async def respond(content: bytes, call: Call) -> bytes:
        if content == b"a":
            waits.append(asyncio.get_running_loop().create_future())
            await waits[0]
        return content

    async with serving(plane, respond) as (port, _), connected(port, post(b"a") + post(b"b") + post(b"c")) as client:
        while not waits:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        waits[0].set_result(None)
        found = [await client.next() for _ in range(3)]
    assert [(headers["x-way"], body) for _, headers, body in found] == [
        ("direct", b"a"),
        ("asgi", b"b"),
        ("asgi", b"c"),
    ]


async def test_a_model_route_may_wait_with_a_timeout(plane: DataPlane) -> None:
    async def respond(content: bytes, call: Call) -> bytes:
        await call.within(asyncio.sleep(0.01))
        return content

    async with serving(plane, respond) as (port, _):
        assert await ask(port, post()) == ("direct", b"hello")


async def test_a_deadline_counts_from_the_head(plane: DataPlane) -> None:
    async def respond(content: bytes, call: Call) -> bytes:
        call.check()
        return content

    sent = post(more="X-Request-Timeout-Ms: 10\r\n")
    async with serving(plane, respond) as (port, _), connected(port, sent[:-5], sent[-5:], pause=0.03) as client:
        assert (await client.next())[0] == 504


def counted(status: int) -> float:
    labels = {"route": "/echo", "status": str(status)}
    return REGISTRY.get_sample_value("duet_request_duration_seconds_count", labels) or 0.0


@pytest.mark.parametrize("body", [b"hello", b"hel"], ids=["while it waits", "within its body"])
async def test_a_client_that_leaves_is_counted(plane: DataPlane, body: bytes) -> None:
    async def respond(content: bytes, call: Call) -> bytes:
        while True:
            await asyncio.sleep(0.001)
            call.check()

    before = counted(499)
    async with serving(plane, respond) as (port, state):
        async with connected(port, post()[: len(post()) - 5 + len(body)]):
            pass
        async with asyncio.timeout(20):
            while counted(499) == before:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        assert not state.connections
    assert counted(499) == before + 1


@pytest.mark.parametrize("sent", [post(), post(path="/pages"), post()[:-2]], ids=["direct", "asgi", "within its body"])
async def test_a_closed_connection_is_freed_without_a_garbage_collection(plane: DataPlane, sent: bytes) -> None:
    gc.collect()
    gc.disable()
    try:
        async with serving(plane) as (port, state):
            async with connected(port, sent) as client:
                if sent.endswith(b"hello"):
                    await client.next()
                [kept] = [weakref.ref(connection) for connection in state.connections]
            async with asyncio.timeout(20):
                while kept() is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
    finally:
        gc.enable()


async def test_errors_are_answers_and_the_connection_stays(plane: DataPlane) -> None:
    async with serving(plane) as (port, _), connected(port) as client:
        for sent, status in ((post(more="X-Request-Timeout-Ms: 0\r\n"), 422), (post(), 200)):
            client.writer.write(sent)
            assert (await client.next())[0] == status
        client.writer.write(post(more="Content-Type: application/vnd.bentoml+pickle\r\n"))
        assert (await client.next())[0] == 415


@pytest.mark.parametrize("how", ["client", "draining"])
async def test_a_connection_is_closed_after_its_answer(plane: DataPlane, how: str) -> None:
    plane.draining = how == "draining"
    sent = post(more="Connection: close\r\n" if how == "client" else "")
    async with serving(plane) as (port, _), connected(port, sent) as client:
        _, headers, _ = await client.next()
        assert headers["connection"] == "close"
        assert await client.reader.read() == b""


async def test_a_server_that_stops_answers_first(plane: DataPlane) -> None:
    release = asyncio.Event()

    async def respond(content: bytes, call: Call) -> bytes:
        await release.wait()
        return content

    async with (
        serving(plane, respond) as (port, state),
        connected(port, post()) as waiting,
        connected(port, post()[:-1], pause=0.001) as half,
    ):
        for connection in list(state.connections):
            connection.shutdown()
        release.set()
        half.writer.write(b"o")
        for client in (waiting, half):
            status, headers, body = await client.next()
            assert (status, headers["connection"], body) == (200, "close", b"hello")


async def test_before_the_models_are_loaded_asgi_answers(plane: DataPlane) -> None:
    async with serving(plane) as (port, _):
        plane.loaded = False
        assert await ask(port, post()) == ("asgi", b"hello")
        plane.loaded = True
        assert await ask(port, post()) == ("direct", b"hello")


async def test_the_setting_turns_it_off(plane: DataPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("direct", "fast_lane"):
        plane.settings = plane.settings.model_copy(update={"direct": True, "fast_lane": True} | {name: False})
        made: Any = connection_class(Gateway(PlainTextResponse(""), plane, {}, "tested"))
        assert not issubclass(made, DirectConnection)
