"""The micro-batcher, around a computation that the test can hold, watch and break."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from services.call import Call
from services.scheduling.job import Job
from tests.services.scheduling.squares import Square, ask, enqueued, items, running, squares


async def test_a_lone_item_is_computed_alone_and_at_once(square: Square) -> None:
    async with running(square) as batcher:
        job = await batcher.submit(items(3), Call())
    assert squares(job) == [9]
    assert square.batches == [[3]]


async def test_what_waits_while_the_model_is_busy_becomes_one_batch(square: Square) -> None:
    square.gate.clear()
    async with running(square) as batcher:
        first = ask(batcher, 1)
        await square.held()
        rest = await enqueued(batcher, (2,), (3, 4), (5,))
        square.gate.set()
        jobs = await asyncio.gather(first, *rest)
    assert [sorted(batch) for batch in square.batches] == [[1], [2, 3, 4, 5]]
    assert [squares(job) for job in jobs] == [[1], [4], [9, 16], [25]]


async def test_no_batch_is_larger_than_the_limit(square: Square) -> None:
    async with running(square, batch_items=4) as batcher:
        job = await batcher.submit(items(*range(11)), Call())
    assert [len(batch) for batch in square.batches] == [4, 4, 3]
    assert squares(job) == [n * n for n in range(11)]
    assert job.outputs["twice"].tolist() == [[n, n] for n in range(11)]


async def test_no_batch_has_more_bytes_than_the_limit_unless_one_item_has(square: Square) -> None:
    async with running(square, batch_bytes=3 * 8) as batcher:
        await batcher.submit(items(*range(7)), Call())
    async with running(square, batch_bytes=7) as batcher:
        await batcher.submit(items(8, 9), Call())
    assert square.batches == [[0, 1, 2], [3, 4, 5], [6], [8], [9]]


async def test_a_cheap_model_runs_on_the_event_loop_and_lets_others_in_between_batches() -> None:
    threads, turns = set(), []

    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        threads.add(threading.get_ident())
        turns.append("batch")
        return {"y": inputs["x"] ** 2}

    async def other() -> None:
        for _ in range(3):
            turns.append("other")
            await asyncio.sleep(0)

    async with running(run, batch_items=1, inline=True) as batcher:
        job, _ = await asyncio.gather(batcher.submit(items(1, 2, 3), Call()), other())
    assert squares(job) == [1, 4, 9]
    assert threads == {threading.get_ident()}
    assert "bob" in "".join(turn[0] for turn in turns)


async def test_one_item_does_not_wait_behind_a_thousand(square: Square) -> None:
    square.gate.clear()
    async with running(square, batch_items=64) as batcher:
        many = ask(batcher, *range(1000))
        await square.held()
        (one,) = await enqueued(batcher, (5000,))
        square.gate.set()
        assert squares(await one) == [5000**2]
        assert squares(await many) == [n * n for n in range(1000)]
    assert 5000 in square.batches[1]
    # The small request's share that it did not need went to the large one.
    assert len(square.batches[1]) == 64


async def test_a_large_request_is_not_starved_by_small_ones_that_keep_coming(square: Square) -> None:
    square.gate.clear()
    async with running(square, batch_items=1) as batcher:
        first = ask(batcher, -1)
        await square.held()
        (large,) = await enqueued(batcher, tuple(range(40)))
        square.gate.set()
        small = 0
        while not large.done():
            await batcher.submit(items(1000 + small), Call())
            small += 1
        await first
        assert squares(await large) == [n * n for n in range(40)]
    assert small < 120, "with one small request at a time, the large one waits for about as many items as it has"


async def test_equal_requests_finish_one_after_the_other_not_all_at_last(square: Square) -> None:
    square.gate.clear()
    async with running(square, batch_items=8) as batcher:
        first = ask(batcher, -1)
        await square.held()
        rest = await enqueued(batcher, *[tuple(range(10 * n, 10 * n + 2)) for n in range(8)])
        square.gate.set()
        await asyncio.gather(first, *rest)
    assert square.batches[1] == [0, 1, 10, 11, 20, 21, 30, 31]


async def test_times_of_a_job_count_each_batch_once(square: Square) -> None:
    square.gate.clear()
    async with running(square, batch_items=64) as batcher:
        first = ask(batcher, -1)
        await square.held()
        begin = time.monotonic()
        # The large request gets its share of the batch and then what the small one left.
        many, _ = tasks = await enqueued(batcher, tuple(range(60)), (-2,))
        square.gate.set()
        await asyncio.gather(first, *tasks)
        elapsed = time.monotonic() - begin
    job = await many
    assert len(square.batches) == 2
    assert 0 < job.queue_seconds + job.compute_seconds <= elapsed


@settings(max_examples=50, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 10_000), min_size=1, max_size=20), min_size=1, max_size=30),
    batch_items=st.integers(1, 40),
)
def test_every_request_gets_its_own_answer(requests: list[list[int]], batch_items: int) -> None:
    async def together() -> tuple[list[Job], Square]:
        square = Square()
        async with running(square, batch_items=batch_items) as batcher:
            return await asyncio.gather(*(batcher.submit(items(*request), Call()) for request in requests)), square

    jobs, square = asyncio.run(together())
    assert [squares(job) for job in jobs] == [[n * n for n in request] for request in requests]
    assert max(map(len, square.batches)) <= batch_items
    assert sum(map(len, square.batches)) == sum(map(len, requests)), "nothing is computed twice"
