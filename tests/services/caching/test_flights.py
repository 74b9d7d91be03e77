"""What is being computed is not computed beside it, and nobody pays for what befalls the one who computes."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.caching.cache import Cache
from services.caching.flights import Flights, follow
from services.caching.memory import MemoryTier
from services.call import Call
from services.errors import DeadlineExceeded, InferenceFailed
from services.telemetry import metrics

Squares = Enqueue = Any  # of the folder's conftest

LONG = 30  # seconds in which whatever does not hang is done


@pytest.fixture
def cache() -> Cache:
    return Cache(MemoryTier(2**20))


def followed() -> float:
    return float(metrics.CACHE_REQUESTS.labels("flight", "followed").count)


async def outcomes(tasks: Sequence[asyncio.Task[Any]]) -> list[Any]:
    return await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), LONG)


def landed(cache: Cache) -> bool:
    return not cache._flights._flying


async def test_the_first_claims_and_the_others_follow() -> None:
    flights = Flights()
    first, none = flights.claim(["a", "b"])
    second, theirs = flights.claim(["b", "c"])
    assert (list(first), none, list(second), list(theirs)) == (["a", "b"], {}, ["c"], ["b"])
    flights.land(first, {"a": b"1", "b": b"2", "of somebody else": b"3"})
    assert await follow(theirs, None) == {"b": b"2"}
    flights.abandon(first)  # all landed: nothing is left to abandon
    assert list(flights.claim(["a", "b", "c"])[0]) == ["a", "b"]


async def test_what_is_abandoned_can_be_claimed_anew() -> None:
    flights = Flights()
    mine, _ = flights.claim(["a", "b"])
    _, theirs = flights.claim(["a", "b"])
    flights.land(mine, {"a": b"1"})
    flights.abandon(mine)
    assert await follow(theirs, None) == {"a": b"1"}
    assert list(flights.claim(["b"])[0]) == ["b"]


async def test_nobody_follows_for_longer_than_they_may() -> None:
    flights = Flights()
    mine, _ = flights.claim(["a", "b"])
    _, theirs = flights.claim(["a", "b"])
    flights.land(mine, {"a": b"1"})
    for seconds in (0.01, 0, -1):
        with pytest.raises(TimeoutError):
            await follow(theirs, seconds)
    flights.land(mine, {"b": b"2"})
    assert await follow(theirs, -1) == {"a": b"1", "b": b"2"}


async def test_many_who_ask_for_one_key_compute_it_once(squares: Squares, cache: Cache, enqueue: Enqueue) -> None:
    before = followed()
    squares.gate.clear()
    tasks = await enqueue(squares, cache, *[[7]] * 200)
    squares.gate.set()
    assert await outcomes(tasks) == [[49]] * 200
    assert squares.batches == [[7]]
    assert followed() - before == 199
    assert landed(cache)


async def test_overlapping_batches_compute_each_key_once(squares: Squares, cache: Cache, enqueue: Enqueue) -> None:
    squares.gate.clear()
    tasks = await enqueue(squares, cache, range(1, 11), range(5, 16), range(15, 0, -1))
    squares.gate.set()
    expected = [[n * n for n in numbers] for numbers in (range(1, 11), range(5, 16), range(15, 0, -1))]
    assert await outcomes(tasks) == expected
    assert squares.batches == [list(range(1, 11)), list(range(11, 16))]


async def test_followers_get_values_that_are_too_large_to_be_kept(squares: Squares, enqueue: Enqueue) -> None:
    cache = Cache(MemoryTier(2**20), value_bytes=1)
    squares.gate.clear()
    tasks = await enqueue(squares, cache, [7], [7])
    squares.gate.set()
    assert await outcomes(tasks) == [[49], [49]]
    assert squares.batches == [[7]]


async def test_who_is_cancelled_while_leading_hands_over(squares: Squares, cache: Cache, enqueue: Enqueue) -> None:
    squares.gate.clear()
    leader, *followers = await enqueue(squares, cache, *[[7, 8]] * 10)
    leader.cancel()
    await asyncio.sleep(0)
    squares.gate.set()
    assert await outcomes(followers) == [[49, 64]] * 9
    assert leader.cancelled()
    assert squares.batches == [[7, 8]] * 2
    assert landed(cache)


async def test_what_was_computed_while_somebody_followed_another_is_not_computed_anew(
    squares: Squares, cache: Cache, enqueue: Enqueue
) -> None:
    squares.gate.clear()
    gone, successor, slow = await enqueue(squares, cache, [7], [7], [8])
    both = asyncio.create_task(squares.ask(cache, 7, 8))
    await asyncio.sleep(0)
    gone.cancel()
    quick, squares.gate = squares.gate, asyncio.Event()
    squares.entered.clear()
    await squares.entered.wait()  # the successor, at a gate of its own
    squares.gate.set()
    assert await asyncio.wait_for(successor, LONG) == [49]
    quick.set()
    assert await outcomes([slow, both]) == [[64], [49, 64]]
    assert squares.batches == [[7], [8], [7]]


async def test_leaders_who_are_cancelled_one_after_another_leave_answers_for_the_rest(
    squares: Squares, cache: Cache, enqueue: Enqueue
) -> None:
    squares.gate.clear()
    tasks = await enqueue(squares, cache, *[[7]] * 10)
    for leader in tasks[:5]:
        leader.cancel()
        await asyncio.sleep(0.001)
    squares.gate.set()
    assert await outcomes(tasks[5:]) == [[49]] * 5
    assert all(leader.cancelled() for leader in tasks[:5])
    assert landed(cache)


async def test_a_follower_that_is_cancelled_disturbs_nobody(squares: Squares, cache: Cache, enqueue: Enqueue) -> None:
    squares.gate.clear()
    leader, gone, stays = await enqueue(squares, cache, [7], [7], [7])
    gone.cancel()
    await asyncio.sleep(0)
    squares.gate.set()
    assert await outcomes([leader, stays]) == [[49], [49]]
    assert gone.cancelled()
    assert squares.batches == [[7]]


async def test_only_the_culprit_errs_and_the_others_compute_for_themselves(
    squares: Squares, cache: Cache, enqueue: Enqueue
) -> None:
    squares.poison = 13
    squares.gate.clear()
    tasks = await enqueue(squares, cache, [12, 13, 14], [12, 14], [14], [13])
    squares.gate.set()
    culprit, *good, other = await outcomes(tasks)
    assert good == [[144, 196], [196]]
    assert isinstance(culprit, InferenceFailed)
    assert isinstance(other, InferenceFailed)
    assert culprit is not other, "whoever asks for the poison meets an error of their own"
    assert landed(cache)
    assert await squares.ask(cache, 12, 14) == [144, 196]
    assert squares.batches.count([12, 14]) == 1, "what the others computed was kept"


async def test_a_leader_that_runs_out_of_time_takes_no_follower_along(
    squares: Squares, cache: Cache, enqueue: Enqueue
) -> None:
    async def hurried() -> list[int]:
        async with asyncio.timeout(0.01):
            return list(await squares.ask(cache, 7))

    squares.gate.clear()
    leader = asyncio.create_task(hurried())
    await squares.entered.wait()
    followers = await enqueue(squares, cache, [7], [7])
    await asyncio.wait([leader])
    squares.gate.set()
    assert await outcomes(followers) == [[49], [49]]
    assert isinstance(leader.exception(), TimeoutError)
    assert squares.batches == [[7], [7]]


async def test_a_follower_waits_no_longer_than_its_own_deadline(
    squares: Squares, cache: Cache, enqueue: Enqueue
) -> None:
    squares.gate.clear()
    leader, patient = await enqueue(squares, cache, [7], [7])
    hurried = squares.ask(cache, 7, call=Call(deadline=time.monotonic() + 0.01))
    with pytest.raises(DeadlineExceeded) as caught:
        await asyncio.wait_for(hurried, LONG)
    assert (caught.value.status, caught.value.field) == (504, "X-Request-Timeout-Ms")
    squares.gate.set()
    assert await outcomes([leader, patient]) == [[49], [49]]
    assert squares.batches == [[7]]


async def test_no_cache_follows_nobody(squares: Squares, cache: Cache, enqueue: Enqueue) -> None:
    squares.gate.clear()
    [leader] = await enqueue(squares, cache, [7])
    anew = asyncio.create_task(squares.ask(cache, 7, call=Call(read_cache=False)))
    await asyncio.sleep(0)
    squares.gate.set()
    assert await outcomes([leader, anew]) == [[49], [49]]
    assert squares.batches == [[7], [7]]


requests = st.lists(st.lists(st.integers(0, 15), min_size=1, max_size=8), min_size=1, max_size=12)
turns = st.lists(st.integers(0, 6), min_size=1, max_size=8)


@given(requests=requests, turns=turns, memory=st.booleans())
async def test_whatever_overlaps_each_key_is_computed_once(
    make_squares: Callable[..., Squares], requests: list[list[int]], turns: list[int], memory: bool
) -> None:
    """Also where the memory tier has no room: all are there before the first answer."""
    cache = Cache(MemoryTier(2**20 if memory else 0))
    squares = make_squares(turns=lambda: turns[len(squares.batches) % len(turns)])
    squares.gate.clear()
    tasks = [asyncio.create_task(squares.ask(cache, *numbers)) for numbers in requests]
    await asyncio.sleep(0)
    squares.gate.set()
    assert await outcomes(tasks) == [[n * n for n in numbers] for numbers in requests]
    assert squares.computed == sorted({number for numbers in requests for number in numbers})
    assert landed(cache)


@settings(max_examples=300)
@given(
    requests=requests,
    turns=turns,
    begins=st.lists(st.integers(0, 10), min_size=12, max_size=12),
    cancelled=st.dictionaries(st.integers(0, 11), st.integers(0, 10), max_size=8),
    poison=st.none() | st.integers(0, 15),
)
async def test_whoever_leaves_or_fails_the_others_get_answers(
    make_squares: Callable[..., Squares],
    requests: list[list[int]],
    turns: list[int],
    begins: list[int],
    cancelled: dict[int, int],
    poison: int | None,
) -> None:
    """Requests that begin, are cancelled and fail at any turn of the event loop."""
    cache = Cache(MemoryTier(2**20))
    squares = make_squares(turns=lambda: turns[len(squares.batches) % len(turns)], poison=poison)

    async def late(number: int) -> list[int]:
        for _ in range(begins[number]):
            await asyncio.sleep(0)
        return list(await squares.ask(cache, *requests[number]))

    tasks = [asyncio.create_task(late(number)) for number in range(len(requests))]
    for turn in range(11):
        await asyncio.sleep(0)
        for number, when in cancelled.items():
            if when == turn and number < len(tasks):
                tasks[number].cancel()
    with suppress(asyncio.CancelledError):
        await outcomes(tasks)
    for task, numbers in zip(tasks, requests, strict=True):
        if task.cancelled():
            continue
        if poison in numbers:
            assert isinstance(task.exception(), InferenceFailed)
        else:
            assert task.result() == [number**2 for number in numbers]
    for number, times in Counter(squares.computed).items():
        assert times <= sum(number in numbers for numbers in requests), "nobody computes for others"
    assert landed(cache)
