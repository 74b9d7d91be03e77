"""A request that comes alone is computed at once; requests that come together form batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from services.call import Call
from services.errors import InferenceFailed
from services.scheduling.batcher import Batcher
from tests.services.scheduling.squares import LABELS, Square, items


@asynccontextmanager
async def running(square: Square) -> AsyncIterator[Batcher]:
    batcher = Batcher(square, LABELS, None, batch_items=8, queue_items=100, item_seconds=0.001, inline_seconds=0.004)
    await batcher.start()
    try:
        yield batcher
    finally:
        await batcher.stop()


def now(batcher: Batcher, *values: int, call: Call | None = None) -> list[int] | None:
    outputs = batcher.compute_now(items(*values), call or Call())
    return None if outputs is None else list(outputs["y"].tolist())


async def test_requests_one_by_one_need_no_queue() -> None:
    async with running(square := Square()) as batcher:
        for value in (2, 3):
            call = Call()
            assert now(batcher, value, call=call) == [value**2]
            assert list(call.seconds) == ["queue", "compute"]
            await asyncio.sleep(0)
    assert square.batches == [[2], [3]]


async def test_of_requests_that_come_together_all_but_the_first_are_queued_until_one_comes_alone() -> None:
    async with running(square := Square()) as batcher:
        assert now(batcher, 1) == [1]
        assert now(batcher, 2) is None
        await asyncio.sleep(0)
        assert now(batcher, 3) is None, "the one before did not come alone"
        await asyncio.gather(batcher.submit(items(4), Call()), batcher.submit(items(5), Call()))
        assert now(batcher, 6) is None
        await batcher.submit(items(7), Call())
        await asyncio.sleep(0)
        assert now(batcher, 8) == [64]
    assert square.batches == [[1], [4, 5], [7], [8]]


async def test_more_items_than_run_on_the_event_loop_are_queued() -> None:
    async with running(square := Square()) as batcher:
        assert now(batcher, 1, 2, 3, 4, 5) is None
        assert now(batcher, 1, 2, 3, 4) == [1, 4, 9, 16]
    assert square.batches == [[1, 2, 3, 4]]


@pytest.mark.parametrize("call", [Call(deadline=time.monotonic() - 1), Call(gone=lambda: True)])
async def test_whoever_does_not_wait_is_left_to_the_queue(call: Call) -> None:
    async with running(square := Square()) as batcher:
        assert now(batcher, 1, call=call) is None
    assert square.batches == []


async def test_a_failure_is_told_by_the_queue() -> None:
    async with running(square := Square(poison=3)) as batcher:
        assert now(batcher, 3) is None
        with pytest.raises(InferenceFailed, match="item 0"):
            await batcher.submit(items(3), Call())
        await asyncio.sleep(0)
        assert now(batcher, 4) == [16]
    assert square.batches[0] == [3]


async def test_a_batcher_that_is_stopped_computes_nothing() -> None:
    async with running(square := Square()) as batcher:
        pass
    assert now(batcher, 1) is None
    assert square.batches == []
