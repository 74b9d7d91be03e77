"""Callers that leave, and deadlines that pass: nothing is computed for them, and nobody is answered too late."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import numpy as np
import pytest

from services.call import Call
from services.errors import CallerLeft, DeadlineExceeded, QueueFull
from services.scheduling.batcher import Batcher
from tests.services.scheduling.squares import Square, abandoned, ask, enqueued, items, running, squares, waiting, wasted


@asynccontextmanager
async def occupied(square: Square, item_seconds: float = 0.0) -> AsyncIterator[Batcher]:
    """One that computes the square of 1 until the test opens the gate: what comes meanwhile waits."""
    square.gate.clear()
    async with running(square, item_seconds=item_seconds) as batcher:
        first = ask(batcher, 1)
        await square.held()
        yield batcher
        assert squares(await first) == [1]
        assert waiting() == 0


async def test_a_deadline_that_passes_while_waiting_drops_the_job_before_compute(square: Square) -> None:
    before = abandoned("deadline")
    async with occupied(square) as batcher:
        with pytest.raises(DeadlineExceeded) as caught:
            await batcher.submit(items(2, 3), Call(deadline=time.monotonic() + 0.01))
        square.gate.set()
        assert squares(await batcher.submit(items(4), Call())) == [16]
    assert caught.value.status == 504
    assert square.batches == [[1], [4]]
    assert abandoned("deadline") - before == 2


@pytest.mark.parametrize("how", ["late", "cancelled", "gone"])
async def test_the_inputs_of_a_dropped_job_are_freed_without_a_garbage_collection(square: Square, how: str) -> None:
    error = {"late": DeadlineExceeded, "cancelled": asyncio.CancelledError, "gone": CallerLeft}[how]
    call = Call(deadline=time.monotonic() + 0.05) if how == "late" else Call(gone=lambda: how == "gone")
    gc.collect()
    gc.disable()
    try:
        async with occupied(square) as batcher:
            inputs = items(2, 3)
            kept = weakref.ref(next(iter(inputs.values())))
            asked = asyncio.create_task(batcher.submit(inputs, call))
            del inputs
            await asyncio.sleep(0)
            if how == "cancelled":
                asked.cancel()
            if how == "gone":
                square.gate.set()
            with pytest.raises(error):
                await asked
            del asked
            square.gate.set()
            assert squares(await batcher.submit(items(4), Call())) == [16]
            async with asyncio.timeout(20):
                while kept() is not None:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
    finally:
        gc.enable()


async def test_a_deadline_that_has_passed_already_computes_nothing(square: Square) -> None:
    async with running(square) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(items(2), Call(deadline=time.monotonic() - 1))
        await batcher.submit(items(4), Call())
    assert square.batches == [[4]]


async def test_a_caller_that_left_is_dropped(square: Square) -> None:
    before = abandoned("caller-left")
    async with occupied(square) as batcher:
        gone, stays = await enqueued(batcher, (2, 3), (4,))
        gone.cancel()
        square.gate.set()
        assert squares(await stays) == [16]
    assert gone.cancelled()
    assert square.batches == [[1], [4]]
    assert abandoned("caller-left") - before == 2


async def test_a_caller_that_leaves_between_two_batches_is_computed_no_further(square: Square) -> None:
    before = abandoned("caller-left"), wasted("caller-left")
    square.gate.clear()
    async with running(square, batch_items=4) as batcher:
        gone = ask(batcher, *range(100))
        await square.held()
        gone.cancel()
        await asyncio.sleep(0)
        square.gate.set()
        assert squares(await batcher.submit(items(200), Call())) == [40000]
        assert waiting() == 0
    assert square.batches == [[0, 1, 2, 3], [200]]
    assert (abandoned("caller-left") - before[0], wasted("caller-left") - before[1]) == (96, 4)


async def test_a_caller_whose_connection_is_gone_is_dropped_before_compute(square: Square) -> None:
    async with occupied(square) as batcher:
        gone = asyncio.create_task(batcher.submit(items(2), Call(gone=lambda: True)))
        stays = asyncio.create_task(batcher.submit(items(3), Call(gone=lambda: False)))
        await asyncio.sleep(0)
        square.gate.set()
        assert squares(await stays) == [9]
        with pytest.raises(CallerLeft, match="the client left"):
            await gone
    assert square.batches == [[1], [3]]


async def test_who_cannot_be_answered_in_time_is_refused_at_once(square: Square) -> None:
    async with occupied(square, item_seconds=100) as batcher:
        second = ask(batcher, 2, deadline=time.monotonic() + 50)  # nothing waits yet: the estimate may be wrong
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="the deadline is in") as caught:
            await batcher.submit(items(3), Call(deadline=time.monotonic() + 50))
        patient = ask(batcher, 4)
        square.gate.set()
        assert [squares(job) for job in await asyncio.gather(second, patient)] == [[4], [16]]
    assert caught.value.field == "X-Request-Timeout-Ms"
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 100


async def test_a_deadline_that_passes_while_the_event_loop_computes_is_kept(square: Square) -> None:
    def slow(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.05)  # no timer runs meanwhile
        return square(inputs)

    before = abandoned("deadline"), wasted("deadline")
    async with running(slow, inline=True) as batcher:
        with pytest.raises(DeadlineExceeded, match="no answer was ready"):
            await batcher.submit(items(1), Call(deadline=time.monotonic() + 0.02))
    assert square.batches == [[1]]
    assert (abandoned("deadline") - before[0], wasted("deadline") - before[1]) == (0, 1)


async def test_an_answer_after_the_deadline_is_none(square: Square) -> None:
    before = wasted("deadline")
    square.gate.clear()
    async with running(square) as batcher:
        late = ask(batcher, 1, deadline=time.monotonic() + 0.01)
        with pytest.raises(DeadlineExceeded):
            await late
        square.gate.set()
        assert squares(await batcher.submit(items(2), Call())) == [4]
    assert wasted("deadline") - before == 1


async def test_a_caller_that_leaves_while_its_poison_is_isolated_harms_nobody() -> None:
    isolating, gone = threading.Event(), threading.Event()
    calls = 0

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        nonlocal calls
        calls += 1
        if calls == 2:  # the first call was the batch, this one is the item alone
            isolating.set()
            assert gone.wait(30)
        if 13 in inputs["x"]:
            raise RuntimeError("poison")
        return {"y": inputs["x"] ** 2}

    async with running(run) as batcher:
        culprit = ask(batcher, 13)
        assert await asyncio.to_thread(isolating.wait, 30)
        culprit.cancel()
        await asyncio.gather(culprit, return_exceptions=True)
        gone.set()
        assert squares(await batcher.submit(items(6), Call())) == [36]
