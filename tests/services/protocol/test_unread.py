"""Clients that read nothing: the buffers of their answers are bounded, and whoever waits longest goes first."""

from __future__ import annotations

import asyncio
import tracemalloc
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import uvloop
from prometheus_client import REGISTRY

from services.call import Call
from services.dataplane import DataPlane
from tests.services.protocol.test_direct import connected, post, serving

ANSWER = 16 * 2**20  # more than the system buffers


async def large(content: bytes, call: Call) -> bytes:
    return bytes(ANSWER)


def ended(reason: str) -> float:
    return REGISTRY.get_sample_value("duet_connections_ended_total", {"reason": reason}) or 0.0


@pytest.fixture
def plane(empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> DataPlane:
    monkeypatch.setenv("DUET_UNREAD_BYTES", str(2**22))
    monkeypatch.setenv("DUET_REQUEST_TIMEOUT_MS", "60000")
    return DataPlane([])


async def test_the_answers_that_wait_longest_are_given_up(plane: DataPlane) -> None:
    before = ended("unread-bytes")
    async with serving(plane, large) as (port, state), AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(connected(port, post())) for _ in range(8)]
        async with asyncio.timeout(20):
            while ended("unread-bytes") < before + 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert len(state.connections) < 8
        status, _, body = await clients[-1].next()
        assert (status, len(body)) == (200, ANSWER)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await clients[0].next()


@pytest.mark.parametrize("path", ["/echo", "/echo?through=asgi"])
async def test_one_large_answer_alone_has_its_time(plane: DataPlane, path: str) -> None:
    plane.settings = plane.settings.model_copy(update={"unread_bytes": 0})
    before = ended("unread-bytes")
    async with serving(plane, large) as (port, _), connected(port, post(path=path), pause=0.5) as client:
        assert len((await client.next())[2]) == ANSWER
    assert ended("unread-bytes") == before


@pytest.mark.parametrize("path", ["/echo", "/echo?through=asgi"])
def test_what_the_system_has_taken_of_an_answer_is_freed(plane: DataPlane, path: str) -> None:
    async def held() -> tuple[int, int]:
        """Bytes that have been allocated for an answer that waits, and those of it that the system has not taken."""
        async with serving(plane, large) as (port, state), connected(port, post(path=path), pause=0.5):
            (connection,) = state.connections
            return tracemalloc.get_traced_memory()[0] - before, connection.transport.get_write_buffer_size()

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        allocated, waiting = uvloop.run(held())  # the server's event loop
    finally:
        tracemalloc.stop()
    assert 0 < waiting < ANSWER - 2**20
    assert allocated < waiting + 2**20


@pytest.mark.parametrize("path", ["/echo", "/echo?through=asgi"])
@pytest.mark.parametrize("more", ["", "Connection: close\r\n"])
async def test_an_answer_that_is_never_read_ends_with_its_time(plane: DataPlane, path: str, more: str) -> None:
    plane.settings = plane.settings.model_copy(update={"request_timeout_ms": 500})
    before = ended("unread")
    async with serving(plane, large) as (port, state), connected(port, post(path=path, more=more)):
        async with asyncio.timeout(20):
            while state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert ended("unread") == before + 1


async def test_computing_and_reading_share_the_time_of_a_request(plane: DataPlane) -> None:
    plane.settings = plane.settings.model_copy(update={"request_timeout_ms": 4000})

    async def slow(content: bytes, call: Call) -> bytes:
        await asyncio.sleep(2)
        return bytes(ANSWER)

    loop = asyncio.get_running_loop()
    async with serving(plane, slow) as (port, state), connected(port, post()):
        begin = loop.time()
        async with asyncio.timeout(20):
            while state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert 3.5 < loop.time() - begin < 5.5


async def test_a_short_rest_that_is_never_read_ends_with_its_time(plane: DataPlane) -> None:
    plane.settings = plane.settings.model_copy(update={"request_timeout_ms": 500})

    async def sized(content: bytes, call: Call) -> bytes:
        return bytes(int(content))

    before = ended("unread")
    async with serving(plane, sized) as (port, state), AsyncExitStack() as stack:
        for size in range(2**16, ANSWER, 2**15):  # the system takes more or less of an answer
            await stack.enter_async_context(connected(port, post(b"%d" % size), pause=0.002))
            if any(connection.transport.get_write_buffer_size() for connection in state.connections):
                break
        async with asyncio.timeout(20):
            while ended("unread") == before:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


async def test_a_client_that_sends_only_half_a_body_is_answered_and_then_disconnected(plane: DataPlane) -> None:
    plane.settings = plane.settings.model_copy(update={"head_seconds": 30.0})
    before = ended("unsent")

    async def refuse(content: bytes, call: Call) -> bytes:
        return content

    sent = post(b"x" * 100, more="X-Request-Timeout-Ms: 100\r\n")
    async with serving(plane, refuse) as (port, state), connected(port, sent[:-50]) as client:
        assert (await client.next())[0] == 504
        async with asyncio.timeout(10):
            while state.connections:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
    assert ended("unsent") == before + 1


async def test_of_a_refused_head_no_more_than_a_little_is_read(plane: DataPlane) -> None:
    sent = 0
    async with serving(plane, large) as (port, _), connected(port, b"GET / HTTP/1.1\r\nHost: x\r\nA: ") as client:
        try:
            async with asyncio.timeout(20):
                while True:
                    client.writer.write(bytes(b"a" * 2**16))
                    await client.writer.drain()
                    sent += 2**16
        except (ConnectionError, TimeoutError):
            pass
    assert sent < 2**24, "a head without an end is read"
