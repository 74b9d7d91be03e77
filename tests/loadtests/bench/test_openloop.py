"""Requests leave when they are due; latency counts from then; every one is accounted for."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

import numpy as np
import pytest

from loadtests.bench import openloop
from loadtests.bench.openloop import Answers
from loadtests.bench.overload import summary

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


@pytest.fixture(autouse=True)
def few_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openloop, "CONNECTIONS", 8)
    monkeypatch.setattr(openloop, "SETTLE", 0.0)


class Answering(asyncio.Protocol):
    def __init__(self, answer: Callable[[asyncio.Transport], None]) -> None:
        self._answer = answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert data == REQUEST
        self._answer(self._transport)


@asynccontextmanager
async def answering(answer: Callable[[asyncio.Transport], None]) -> AsyncIterator[int]:
    server = await asyncio.get_running_loop().create_server(lambda: Answering(answer), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_the_offered_rate_is_poisson_about_what_was_asked() -> None:
    async with answering(lambda transport: transport.write(OK)) as port:
        answers = await openloop.offer(port, REQUEST, 500, 0.5)
    assert 180 < len(answers.status) < 330  # 250 ± 5 standard deviations
    assert set(answers.status) == {200}
    gaps = np.diff(sorted(answers.due))
    assert 0.5 < gaps.std() / gaps.mean() < 1.5  # 1 for exponential gaps, 0 for a clock's


async def test_a_slow_server_does_not_slow_what_is_due() -> None:
    """Every request is sent although none is answered yet."""
    sent: list[asyncio.Transport] = []
    async with answering(sent.append) as port:
        await openloop.offer(port, REQUEST, 400, 0.25, patience=0.1)
    assert len(sent) > 50


async def test_latency_counts_from_due_although_no_connection_was_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openloop, "CONNECTIONS", 1)
    monkeypatch.setattr(openloop, "LIMIT", 1)

    def slowly(transport: asyncio.Transport) -> None:
        asyncio.get_running_loop().call_later(0.03, transport.write, OK)

    async with answering(slowly) as port:
        answers = await openloop.offer(port, REQUEST, 200, 0.1)
    count = len(answers.status)
    assert count > 5
    assert answers.latency(200).max() > 0.03 * count - 0.1  # the last one waited for all before it


async def test_split_answers_and_other_statuses_are_told_apart() -> None:
    count = 0

    def mixed(transport: asyncio.Transport) -> None:
        nonlocal count
        count += 1
        if count % 2:
            transport.write(BUSY)
        else:
            transport.write(OK[:30])
            asyncio.get_running_loop().call_later(0.01, transport.write, OK[30:])

    async with answering(mixed) as port:
        answers = await openloop.offer(port, REQUEST, 200, 0.2)
    assert answers.count(200) + answers.count(429) == len(answers.status) == count
    assert abs(answers.count(200) - answers.count(429)) <= 1


async def test_what_is_never_answered_is_counted() -> None:
    async with answering(lambda transport: transport.abort()) as port:
        answers = await openloop.offer(port, REQUEST, 100, 0.1, patience=1)
    assert answers.status
    assert set(answers.status) == {0}


async def test_what_hangs_is_counted() -> None:
    async with answering(lambda transport: None) as port:
        answers = await openloop.offer(port, REQUEST, 100, 0.1, patience=0.1)
        assert answers.status
        assert set(answers.status) == {0}


async def test_saturation_keeps_every_connection_asking() -> None:
    async with answering(lambda transport: transport.write(OK)) as port:
        rate = await openloop.saturate(port, REQUEST, 4, 0.25)
    assert rate > 100


def test_a_summary_separates_good_late_refused_and_failed() -> None:
    answers = Answers(
        due=[0.0] * 5, sent=[0.0] * 5, received=[0.05, 0.3, 0.01, 0.2, 1.0], status=[200, 200, 429, 504, 0]
    )
    level = summary(1.5, answers, seconds=0.5, deadline=0.2, rss_mb=1.0)
    assert (level.offered, level.goodput, level.late, level.latest_ms) == (10, 2, 1, 300)
    assert (level.share_429, level.share_504, level.share_failed) == (0.2, 0.2, 0.2)
    assert level.p50_429_ms == 10
