"""Others are given up after the bound, unless it was this event loop that was busy."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator

import pytest

from services.caching.loop_aware_timeout import MORE, LoopAwareTimeout

BOUND = 0.05
Peer = tuple[asyncio.StreamReader, socket.socket]


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    """What a connection is read by, and its other end."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    with theirs:
        yield reader, theirs
    writer.close()


async def patient(reader: asyncio.StreamReader) -> bytes:
    async with LoopAwareTimeout(BOUND):
        return await reader.readexactly(1)


async def test_an_answer_in_time_is_taken(peer: Peer) -> None:
    reader, theirs = peer
    theirs.send(b"x")
    assert await patient(reader) == b"x"


async def test_whoever_is_silent_is_given_up(peer: Peer) -> None:
    with pytest.raises(TimeoutError):
        await patient(peer[0])


async def test_an_answer_that_came_while_the_loop_was_busy_is_in_time(peer: Peer) -> None:
    reader, theirs = peer
    waiting = asyncio.create_task(patient(reader))
    await asyncio.sleep(0)
    theirs.send(b"x")
    time.sleep(3 * BOUND)  # noqa: ASYNC251  # the fault to be caused
    assert await waiting == b"x"


async def test_a_loop_that_stays_busy_does_not_wait_for_ever(peer: Peer) -> None:
    waiting = asyncio.create_task(patient(peer[0]))
    turns = 0
    while not waiting.done():
        time.sleep(2 * BOUND)  # noqa: ASYNC251
        await asyncio.sleep(0)
        turns += 1
        assert turns < 10 * MORE
    with pytest.raises(TimeoutError):
        await waiting


async def test_a_cancelled_caller_is_cancelled(peer: Peer) -> None:
    waiting = asyncio.create_task(patient(peer[0]))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
