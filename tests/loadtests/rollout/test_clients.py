"""Clients of the rollout harness notice every kind of failure: without that, a count of 0 would say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from loadtests.rollout.clients import Client, Tally, post, status_of
from tests.conftest import free_port

Serving = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKS = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
CLOSING = GOOD.replace(b"content", b"connection: close\r\ncontent")


async def asked(answers: list[bytes], *, close_between: bool = False, times: int = 2) -> Tally:
    """What a client sees of a server that sends these bytes to its requests, in turn, and then ends the connection."""
    waiting = iter(answers)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in waiting:
            try:
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(4)
            except EOFError:
                break
            writer.write(answer)
            await writer.drain()
            if close_between or answer is CLOSING or answer not in (GOOD, CHUNKS):
                break
        writer.close()

    port, tally = free_port(), Tally()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        client = Client(port, tally)
        for _ in range(times):
            await client.ask(post("/", b"four"), lambda answer: "" if answer.body == b"ok" else "other bytes")
            await asyncio.sleep(0.05)
        await client.close()
    return tally


@pytest.mark.parametrize("answers", [[GOOD, GOOD], [CHUNKS, GOOD], [CLOSING, CHUNKS]])
async def test_whole_answers_are_no_failures(answers: list[bytes]) -> None:
    tally = await asked(answers)
    assert (tally.asked, dict(tally.failures), tally.reopened) == (2, {}, 0)


async def test_a_connection_that_ends_between_requests_is_opened_again() -> None:
    tally = await asked([GOOD, GOOD], close_between=True)
    assert (tally.asked, dict(tally.failures), tally.reopened) == (2, {}, 1)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"", "IncompleteReadError"),
        (GOOD[:-1], "IncompleteReadError"),
        (CHUNKS[:-8], "IncompleteReadError"),
        (GOOD.replace(b"ok", b"no"), "other bytes"),
        (GOOD.replace(b"200 OK", b"502 no"), "status 502"),
        (b"nonsense\r\n\r\n", "Broken"),
        (GOOD.replace(b"content-length: 2\r\n", b""), "Broken"),
    ],
)
async def test_every_broken_answer_is_a_failure(answer: bytes, said: str) -> None:
    tally = await asked([answer, GOOD], times=1)
    [(words, count)] = tally.failures.items()
    assert words.startswith(said)
    assert count == 1


async def test_nobody_there_is_a_failure() -> None:
    tally = Tally()
    await Client(free_port(), tally).ask(post("/", b"four"), lambda answer: "")
    assert tally.failures.total() == 1
    assert await status_of(free_port(), "/readyz") == 0
