"""The micro-batcher, around a computation that the test can hold, watch and break."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.errors import DeadlineExceeded, InferenceFailed, NotReady, QueueFull
from services.scheduling.batcher import Batcher, Job
from services.telemetry import metrics

LABELS = ("tested", "square")


class Square:
    """Squares its items; remembers the batches, may be held at the gate, fails on poisonous items."""

    def __init__(self, poison: int | None = None) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.poison = poison

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        items = inputs["x"].tolist()
        self.batches.append(items)
        self.entered.set()
        assert self.gate.wait(30)
        if self.poison in items:
            raise RuntimeError("poison")
        return {"y": inputs["x"] ** 2, "twice": np.stack([inputs["x"]] * 2, axis=1)}

    async def held(self) -> None:
        """Until a batch is inside."""
        assert await asyncio.to_thread(self.entered.wait, 30)


@pytest.fixture
def square() -> Iterator[Square]:
    square = Square()
    yield square
    square.gate.set()


@asynccontextmanager
async def running(
    run: Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]],
    *,
    batch_items: int = 8,
    queue_items: int = 1024,
    batch_bytes: int = 2**20,
    item_seconds: float = 0.0,
    inline: bool = False,
) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(
            run,
            LABELS,
            None if inline else executor,
            batch_items=batch_items,
            queue_items=queue_items,
            batch_bytes=batch_bytes,
            item_seconds=item_seconds,
        )
        await batcher.start()
        try:
            yield batcher
        finally:
            await batcher.stop()


def items(*values: int) -> dict[str, np.ndarray]:
    return {"x": np.array(values)}


def squares(job: Job) -> list[int]:
    return list(job.outputs["y"].tolist())


def waiting() -> float:
    value = REGISTRY.get_sample_value("duet_queue_items", dict(zip(("model", "operation"), LABELS, strict=True)))
    assert value is not None
    return value


def abandoned(reason: str) -> float:
    return metrics.ABANDONED.labels(LABELS[0], reason)._value.get()


def ask(batcher: Batcher, *values: int, deadline: float | None = None) -> asyncio.Task[Job]:
    return asyncio.create_task(batcher.submit(items(*values), deadline=deadline))


async def enqueued(batcher: Batcher, *requests: tuple[int, ...]) -> list[asyncio.Task[Job]]:
    """Submit requests in this order and let them enter the queue."""
    tasks = [ask(batcher, *values) for values in requests]
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_item_is_computed_alone_and_at_once(square: Square) -> None:
    async with running(square) as batcher:
        job = await batcher.submit(items(3))
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
        job = await batcher.submit(items(*range(11)))
    assert [len(batch) for batch in square.batches] == [4, 4, 3]
    assert squares(job) == [n * n for n in range(11)]
    assert job.outputs["twice"].tolist() == [[n, n] for n in range(11)]


async def test_no_batch_has_more_bytes_than_the_limit_unless_one_item_has(square: Square) -> None:
    async with running(square, batch_bytes=3 * 8) as batcher:
        await batcher.submit(items(*range(7)))
    async with running(square, batch_bytes=7) as batcher:
        await batcher.submit(items(8, 9))
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
        job, _ = await asyncio.gather(batcher.submit(items(1, 2, 3)), other())
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
            await batcher.submit(items(1000 + small))
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


async def test_a_deadline_that_passes_while_waiting_drops_the_job_before_compute(square: Square) -> None:
    square.gate.clear()
    before = abandoned("deadline")
    async with running(square) as batcher:
        first = ask(batcher, 1)
        await square.held()
        with pytest.raises(DeadlineExceeded) as caught:
            await batcher.submit(items(2, 3), deadline=time.monotonic() + 0.01)
        square.gate.set()
        await first
        assert squares(await batcher.submit(items(4))) == [16]
        assert waiting() == 0
    assert caught.value.status == 504
    assert square.batches == [[1], [4]]
    assert abandoned("deadline") - before == 2


async def test_a_deadline_that_has_passed_already_computes_nothing(square: Square) -> None:
    async with running(square) as batcher:
        with pytest.raises(DeadlineExceeded):
            await batcher.submit(items(2), deadline=time.monotonic() - 1)
        await batcher.submit(items(4))
    assert square.batches == [[4]]


async def test_a_caller_that_left_is_dropped(square: Square) -> None:
    square.gate.clear()
    before = abandoned("caller-left")
    async with running(square) as batcher:
        first = ask(batcher, 1)
        await square.held()
        gone, stays = await enqueued(batcher, (2, 3), (4,))
        gone.cancel()
        square.gate.set()
        assert squares(await stays) == [16]
        await first
        assert waiting() == 0
    assert gone.cancelled()
    assert square.batches == [[1], [4]]
    assert abandoned("caller-left") - before == 2


async def test_a_caller_that_leaves_between_two_batches_is_computed_no_further(square: Square) -> None:
    square.gate.clear()
    async with running(square, batch_items=4) as batcher:
        gone = ask(batcher, *range(100))
        await square.held()
        gone.cancel()
        await asyncio.sleep(0)
        square.gate.set()
        assert squares(await batcher.submit(items(200))) == [40000]
        assert waiting() == 0
    assert square.batches == [[0, 1, 2, 3], [200]]


async def test_a_caller_whose_connection_is_gone_is_dropped_before_compute(square: Square) -> None:
    square.gate.clear()
    async with running(square) as batcher:
        first = ask(batcher, 1)
        await square.held()
        gone = asyncio.create_task(batcher.submit(items(2), gone=lambda: True))
        stays = asyncio.create_task(batcher.submit(items(3), gone=lambda: False))
        await asyncio.sleep(0)
        square.gate.set()
        assert squares(await stays) == [9]
        with pytest.raises(NotReady, match="the caller left"):
            await gone
        await first
        assert waiting() == 0
    assert square.batches == [[1], [3]]


async def test_who_cannot_be_answered_in_time_is_refused_at_once(square: Square) -> None:
    square.gate.clear()
    async with running(square, item_seconds=100) as batcher:
        first = ask(batcher, 1)
        await square.held()
        second = ask(batcher, 2, deadline=time.monotonic() + 50)  # nothing waits yet: the estimate may be wrong
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="the deadline is in") as caught:
            await batcher.submit(items(3), deadline=time.monotonic() + 50)
        patient = ask(batcher, 4)
        square.gate.set()
        assert [squares(job) for job in await asyncio.gather(first, second, patient)] == [[1], [4], [16]]
    assert caught.value.field == "X-Request-Timeout-Ms"
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 100


async def test_a_deadline_that_passes_while_the_event_loop_computes_is_kept(square: Square) -> None:
    def slow(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        time.sleep(0.05)  # no timer runs meanwhile
        return square(inputs)

    async with running(slow, inline=True) as batcher:
        with pytest.raises(DeadlineExceeded, match="no answer was ready"):
            await batcher.submit(items(1), deadline=time.monotonic() + 0.02)
    assert square.batches == [[1]]


async def test_an_answer_after_the_deadline_is_none(square: Square) -> None:
    square.gate.clear()
    async with running(square) as batcher:
        late = ask(batcher, 1, deadline=time.monotonic() + 0.01)
        with pytest.raises(DeadlineExceeded):
            await late
        square.gate.set()
        assert squares(await batcher.submit(items(2))) == [4]


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
        assert squares(await batcher.submit(items(6))) == [36], "the batcher goes on"


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
        assert squares(await batcher.submit(items(6))) == [36]


async def test_a_model_that_answers_another_number_of_items_fails_and_does_not_stop_the_batcher() -> None:
    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"y": inputs["x"][1:] if 7 in inputs["x"] else inputs["x"]}

    async with running(run) as batcher:
        with pytest.raises(InferenceFailed):
            await batcher.submit(items(7, 7))
        assert squares(await batcher.submit(items(8))) == [8]


async def test_a_request_without_items_is_refused_rather_than_waited_for(square: Square) -> None:
    async with running(square) as batcher:
        with pytest.raises(ValueError, match="at least one item"):
            await batcher.submit({"x": np.zeros(0)})


async def test_a_full_queue_refuses_and_its_accounting_returns_to_zero(square: Square) -> None:
    square.gate.clear()
    async with running(square, queue_items=4) as batcher:
        first = ask(batcher, 1)
        await square.held()
        rest = await enqueued(batcher, (2, 3), (4, 5))
        assert waiting() == 4
        with pytest.raises(QueueFull, match="the limit is 4") as caught:
            await batcher.submit(items(6))
        square.gate.set()
        await asyncio.gather(first, *rest)
        assert waiting() == 0
        assert squares(await batcher.submit(items(6))) == [36], "there is room again"
    assert caught.value.status == 429
    assert caught.value.retry_after is not None
    assert caught.value.retry_after >= 1
    assert sorted(chain.from_iterable(square.batches)) == [1, 2, 3, 4, 5, 6]


async def test_an_empty_queue_takes_a_request_that_is_larger_than_the_queue(square: Square) -> None:
    async with running(square, queue_items=4) as batcher:
        assert squares(await batcher.submit(items(*range(10)))) == [n * n for n in range(10)]


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
            await batcher.submit(items(6))
        assert waiting() == 0
        square.gate.set()
    assert square.batches == [[1, 2]]


async def test_stopping_before_starting_and_twice_is_harmless(square: Square) -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(square, LABELS, executor, batch_items=1, queue_items=1)
        with pytest.raises(NotReady):
            await batcher.submit(items(1))
        await batcher.stop()
        await batcher.start()
        await batcher.stop()
        await batcher.stop()


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
            return await asyncio.gather(*(batcher.submit(items(*request)) for request in requests)), square

    jobs, square = asyncio.run(together())
    assert [squares(job) for job in jobs] == [[n * n for n in request] for request in requests]
    assert max(map(len, square.batches)) <= batch_items
    assert sum(map(len, square.batches)) == sum(map(len, requests)), "nothing is computed twice"


@settings(max_examples=25, deadline=None)
@given(
    requests=st.lists(st.lists(st.integers(0, 20), min_size=1, max_size=6), min_size=1, max_size=12),
    poison=st.integers(0, 20),
)
def test_only_the_requests_with_the_poison_fail(requests: list[list[int]], poison: int) -> None:
    async def together() -> list[Job | BaseException]:
        async with running(Square(poison), batch_items=7) as batcher:
            asked = (batcher.submit(items(*request)) for request in requests)
            return await asyncio.gather(*asked, return_exceptions=True)

    for request, outcome in zip(requests, asyncio.run(together()), strict=True):
        if poison in request:
            assert isinstance(outcome, InferenceFailed)
        else:
            assert isinstance(outcome, Job)
            assert squares(outcome) == [n * n for n in request]
    assert waiting() == 0
