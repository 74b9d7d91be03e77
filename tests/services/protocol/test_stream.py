"""Lines that are made while they are sent: each end that a stream can come to."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.types import Message

from services.call import Call
from services.errors import InferenceFailed, InvalidInput
from services.protocol.stream import Stream
from tests.services.protocol.gateway.samples import total

ROUTE = "/streamed"


class Client:
    """Reads an answer; leaves, or reads no further, after so many parts."""

    def __init__(self, *, leaves_after: int | None = None, stops_after: int | None = None) -> None:
        self.sent: list[Message] = []
        self._leaves_after = leaves_after
        self._stops_after = stops_after
        self._left = asyncio.Event()

    async def receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if len(self.sent) == self._stops_after:
            await asyncio.Event().wait()
        self.sent.append(message)
        if len(self.sent) == self._leaves_after:
            self._left.set()

    async def read(self, stream: Stream) -> list[Any]:
        stream.route = ROUTE
        await stream({"type": "http"}, self.receive, self.send)
        return [json.loads(line) for message in self.sent[1:] for line in message["body"].splitlines()]


class Parts:
    """So many lines, one a part, and an error in place of the one after them."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.made = 0
        self.closed = False
        self._count = count
        self._error = error

    async def lines(self) -> AsyncGenerator[bytes, None]:
        try:
            for number in range(self._count):
                self.made += 1
                yield b"%d\n" % number
            if self._error is not None:
                raise self._error
        finally:
            self.closed = True


async def test_all_parts_come_in_turn_and_the_answer_ends() -> None:
    client = Client()
    call = Call(seconds={"compute": 1.0})
    before = total("duet_stage_duration_seconds_count", route=ROUTE, stage="compute")
    assert await client.read(await Stream.start(Parts(3).lines(), call)) == [0, 1, 2]
    start, *bodies = client.sent
    assert (start["status"], dict(start["headers"])) == (200, {b"content-type": b"application/x-ndjson"})
    assert [body["more_body"] for body in bodies] == [True, True, True, False]
    assert total("duet_stage_duration_seconds_count", route=ROUTE, stage="compute") == before + 1


async def test_what_goes_wrong_at_once_is_raised_before_the_answer_begins() -> None:
    with pytest.raises(InvalidInput, match="seed"):
        await Stream.start(Parts(0, InvalidInput("seed: no")).lines(), Call())


async def test_what_goes_wrong_later_is_the_last_line() -> None:
    before = total("duet_rejections_total", route=ROUTE, reason="inference-failed")
    parts = Parts(2, InferenceFailed("it failed"))
    *lines, last = await Client().read(await Stream.start(parts.lines(), Call()))
    assert lines == [0, 1]
    assert (last["status"], last["detail"], last["error"]) == (500, "it failed", "it failed")
    assert total("duet_rejections_total", route=ROUTE, reason="inference-failed") == before + 1


async def test_a_bug_tells_the_log_everything_and_the_caller_nothing(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("duet"), "propagate", True)  # a server's set-up switches it off
    *_, last = await Client().read(await Stream.start(Parts(1, KeyError("secret")).lines(), Call()))
    assert (last["status"], last["type"]) == (500, "urn:duet:problem:internal")
    assert "secret" not in json.dumps(last)
    assert "KeyError: 'secret'" in caplog.text


@pytest.mark.parametrize("leaves_after", [1, 2, 5])
async def test_nothing_is_made_for_a_client_that_left(leaves_after: int) -> None:
    parts = Parts(100)
    await Client(leaves_after=leaves_after).read(await Stream.start(parts.lines(), Call()))
    assert parts.made <= leaves_after + 2
    assert parts.closed


async def test_a_client_that_reads_no_further_is_not_waited_for_after_the_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.protocol.stream.GRACE_SECONDS", 0.0)
    parts, client = Parts(100), Client(stops_after=4)
    lines = await client.read(await Stream.start(parts.lines(), Call(deadline=time.monotonic() + 0.05)))
    assert lines == [0, 1, 2]
    assert parts.made == 4
    assert parts.closed
    assert client.sent[-1]["more_body"]


async def test_a_stream_that_is_cancelled_makes_nothing_more() -> None:
    parts, client = Parts(100), Client(stops_after=4)
    task = asyncio.create_task(client.read(await Stream.start(parts.lines(), Call())))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert parts.closed
