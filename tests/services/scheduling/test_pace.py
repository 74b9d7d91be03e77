"""The estimate of the time that one item takes: pauses and suspended processes do not count."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace

import numpy as np
import pytest

from services.call import Call
from services.scheduling import batcher as module
from tests.services.scheduling.squares import Square, enqueued, items, running, squares

Later = Callable[[float], None]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Moves the batcher's clock ahead."""
    ahead = 0.0

    def move(seconds: float) -> None:
        nonlocal ahead
        ahead += seconds

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.monotonic() + ahead))
    return move


async def test_a_pause_after_dropped_jobs_is_not_the_pace(square: Square, later: Later) -> None:
    """Callers that left with items in the queue, silence, then a burst: nobody is refused."""
    square.gate.clear()
    async with running(square, item_seconds=1e-4) as batcher:
        [first] = await enqueued(batcher, (1,))
        await square.held()
        [left] = await enqueued(batcher, (2,))
        left.cancel()
        square.gate.set()
        assert squares(await first) == [1]
        assert batcher.waiting == 0
        later(60)
        await batcher.submit(items(3), Call())
        assert batcher.item_seconds < 0.1
        burst = await enqueued(batcher, *((number,) for number in range(40)))
        for waits in burst:
            await waits


async def test_a_process_that_was_suspended_during_a_batch_does_not_refuse_later_requests(later: Later) -> None:
    def suspended(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if inputs["x"].tolist() == [1]:
            later(600)
        return {"y": inputs["x"] ** 2}

    async with running(suspended, item_seconds=1e-3, inline=True) as batcher:
        await batcher.submit(items(1), Call())
        assert batcher.item_seconds < 2e-3


async def test_a_model_that_has_become_slower_is_noticed(later: Later) -> None:
    def slow(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        later(1)
        return {"y": inputs["x"] ** 2}

    async with running(slow, item_seconds=1e-3, inline=True) as batcher:
        for number in range(50):
            await batcher.submit(items(number), Call())
        assert 0.5 < batcher.item_seconds < 1.5
