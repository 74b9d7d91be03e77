"""Poison, full queues and stops: only the culprit errs, and nobody is left hanging."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.call import Call
from services.errors import InferenceFailed, NotReady, QueueFull
from services.scheduling.batcher import Batcher
from services.scheduling.job import Job
from tests.services.scheduling.squares import LABELS, Square, ask, enqueued, items, running, squares, waiting


async def test_a_poisonous_item_fails_alone(square: Square) -> None:
    square.poison = 13
    square.gate.clear()
    async with running(square) as batcher:
        first = ask(batcher, 1)
        await square.held()
        before, culprit, after = await enqueued(batcher, (2,), (3, 13), (4, 5))
        square.gate.set()
        with pytest.raises(InferenceFailed, match="item 1"):
            await culprit
        assert [squares(job) for job in await asyncio.gather(first, before, after)] == [[1], [4], [16, 25]]
        assert squares(await batcher.submit(items(6), Call())) == [36], "the batcher goes on"


async def test_a_model_that_answers_another_number_of_items_fails_and_does_not_stop_the_batcher() -> None:
    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": inputs["x"][1:] if 7 in inputs["x"] else inputs["x"]}

    async with running(run) as batcher:
        with pytest.raises(InferenceFailed):
            await batcher.submit(items(7, 7), Call())
        assert squares(await batcher.submit(items(8), Call())) == [8]


async def test_a_request_without_items_is_refused_rather_than_waited_for(square: Square) -> None:
    async with running(square) as batcher:
        with pytest.raises(ValueError, match="at least one item"):
            await batcher.submit({"x": np.zeros(0)}, Call())


async def test_a_full_queue_refuses_and_its_accounting_returns_to_zero(square: Square) -> None:
    square.gate.clear()
    async with running(square, queue_items=4) as batcher:
        first = ask(batcher, 1)
        await square.held()
        rest = await enqueued(batcher, (2, 3), (4, 5))
        assert waiting() == 4
        with pytest.raises(QueueFull, match="the limit is 4") as caught:
            await batcher.submit(items(6), Call())
        square.gate.set()
        await asyncio.gather(first, *rest)
        assert waiting() == 0
        assert squares(await batcher.submit(items(6), Call())) == [36], "there is room again"
    assert caught.value.status == 429
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    assert sorted(chain.from_iterable(square.batches)) == [1, 2, 3, 4, 5, 6]


async def test_an_empty_queue_takes_a_request_that_is_larger_than_the_queue(square: Square) -> None:
    async with running(square, queue_items=4) as batcher:
        assert squares(await batcher.submit(items(*range(10)), Call())) == [n * n for n in range(10)]


async def test_stopping_leaves_nobody_hanging(square: Square) -> None:
    square.gate.clear()
    async with running(square, batch_items=2) as batcher:
        inside = ask(batcher, 1, 2, 3)
        await square.held()
        queued = await enqueued(batcher, (4,), (5,))
        await batcher.stop()
        outcomes = await asyncio.wait_for(asyncio.gather(inside, *queued, return_exceptions=True), 5)
        assert [type(outcome) for outcome in outcomes] == [NotReady] * 3
        with pytest.raises(NotReady, match="tested is stopped"):
            await batcher.submit(items(6), Call())
        assert waiting() == 0
        square.gate.set()
    assert square.batches == [[1, 2]]


async def test_stopping_before_starting_and_twice_is_harmless(square: Square) -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(square, LABELS, executor, batch_items=1, queue_items=1)
        with pytest.raises(NotReady):
            await batcher.submit(items(1), Call())
        await batcher.stop()
        await batcher.start()
        await batcher.stop()
        await batcher.stop()


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), min_size=1, max_size=12),
    poison=st.integers(0, 20),
)
def test_only_the_requests_with_the_poison_fail(requests: list[list[int]], poison: int) -> None:
    async def together() -> list[Job | BaseException]:
        async with running(Square(poison), batch_items=7) as batcher:
            asked = (batcher.submit(items(*request), Call()) for request in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

    for request, outcome in zip(requests, asyncio.run(together()), strict=True):
        if poison in request:
            assert isinstance(outcome, InferenceFailed)
        else:
            assert isinstance(outcome, Job)
            assert squares(outcome) == [n * n for n in request]
    assert waiting() == 0


async def test_the_log_of_a_failing_batch_names_its_requests(caplog: pytest.LogCaptureFixture) -> None:
    square = Square(poison=7)
    async with running(square) as batcher:
        with pytest.raises(InferenceFailed):
            await batcher.submit(items(7), Call(id="the-one"))
    assert "of 1 requests (the-one)" in caplog.text
