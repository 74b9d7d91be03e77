"""How long requests wait for a model: those that are served, those that are dropped, and those that are refused."""

from __future__ import annotations

import asyncio
import time

import pytest

from services.call import Call
from services.errors import DeadlineExceeded, QueueFull
from services.telemetry import metrics
from services.telemetry.histogram import Series
from tests.services.scheduling.squares import LABELS, Square, ask, enqueued, items, running, squares


def waits(outcome: str) -> Series:
    return metrics.QUEUE_SECONDS.labels(LABELS[0], outcome)


class Since:
    """What is observed from now on."""

    def __init__(self, outcome: str) -> None:
        self._series = waits(outcome)
        self._count, self._total = sum(self._series.counts), self._series.total

    @property
    def count(self) -> int:
        return sum(self._series.counts) - self._count

    @property
    def total(self) -> float:
        return self._series.total - self._total


async def test_each_served_request_is_observed_once_however_many_batches_it_takes(square: Square) -> None:
    seen = Since("served")
    square.gate.clear()
    async with running(square, batch_items=2) as batcher:
        first = ask(batcher, 1)
        await square.held()
        (long,) = await enqueued(batcher, (2, 3, 4, 5, 6))
        await asyncio.sleep(0.02)
        square.gate.set()
        assert squares(await long) == [4, 9, 16, 25, 36]
        await first
    assert seen.count == 2
    assert seen.total > 0.015  # what the second one waited


async def test_a_request_that_is_computed_at_once_waits_no_time(square: Square) -> None:
    seen = Since("served")
    async with running(square, item_seconds=1e-6, inline=True) as batcher:
        batcher._inline_items = 8
        assert batcher.compute_now(items(2), Call()) is not None
    assert (seen.count, seen.total) == (1, 0.0)


async def test_a_full_queue_observes_the_wait_that_it_spares(square: Square) -> None:
    seen = Since("refused")
    square.gate.clear()
    async with running(square, queue_items=3, item_seconds=0.5) as batcher:
        first = ask(batcher, 1)
        await square.held()
        waiting = await enqueued(batcher, (2, 3, 4))
        with pytest.raises(QueueFull):
            await batcher.submit(items(5), Call())
        assert (seen.count, seen.total) == (1, pytest.approx(1.5))
        square.gate.set()
        await asyncio.gather(first, *waiting)


async def test_a_request_that_would_miss_its_deadline_observes_the_estimate(square: Square) -> None:
    seen = Since("refused")
    square.gate.clear()
    async with running(square, item_seconds=50) as batcher:
        first = ask(batcher, 1)
        await square.held()
        waiting = await enqueued(batcher, (2,))
        with pytest.raises(QueueFull, match="the deadline is in"):
            await batcher.submit(items(5), Call(deadline=time.monotonic() + 60))
        assert (seen.count, seen.total) == (1, pytest.approx(100))  # one item computes, and one waits
        square.gate.set()
        await asyncio.gather(first, *waiting)


async def test_a_request_that_comes_too_late_observes_the_wait_that_it_would_have_had(square: Square) -> None:
    seen = Since("refused")
    async with running(square, item_seconds=0.5) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(items(2), Call(deadline=time.monotonic() - 1))
    assert (seen.count, seen.total) == (1, 0.0)  # nothing waited


@pytest.mark.parametrize("way", ["deadline", "left"])
async def test_a_dropped_request_observes_how_long_it_waited(square: Square, way: str) -> None:
    dropped, served = Since("dropped"), Since("served")
    square.gate.clear()
    async with running(square) as batcher:
        first = ask(batcher, 1)
        await square.held()
        if way == "left":
            (gone,) = await enqueued(batcher, (2, 3))
            await asyncio.sleep(0.02)
            gone.cancel()
        else:
            with pytest.raises(DeadlineExceeded):
                await batcher.submit(items(2, 3), Call(deadline=time.monotonic() + 0.02))
        square.gate.set()
        await first
        assert squares(await batcher.submit(items(4), Call())) == [16]
    assert dropped.count == 1
    assert dropped.total > 0.015
    assert served.count == 2
