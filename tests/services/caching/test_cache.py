"""The cache answers with what was computed or not at all."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.caching.cache import Cache, CachedOperation
from services.caching.memory import MemoryTier
from services.caching.values import Layout
from services.call import Call
from services.errors import DeadlineExceeded
from services.inference.bundle import Bundle
from services.inference.classifier import Classifier

Squares = Any  # of the folder's conftest

MIB = 2**20


def in_memory() -> Cache:
    return Cache(MemoryTier(MIB))


async def test_what_was_asked_before_is_found_and_nothing_else(squares: Squares) -> None:
    cache, first, second = in_memory(), Call(), Call()
    assert await squares.ask(cache, 1, 2, call=first) == [1, 4]
    assert await squares.ask(cache, 2, 3, 1, 2, call=second) == [4, 9, 1, 4]
    assert squares.batches == [[1, 2], [3]]
    assert (first.cache_status, second.cache_status) == ("miss; hits=0/2", "partial; hits=3/4")


@given(requests=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=12), max_size=8))
async def test_every_number_is_computed_once_and_hits_are_counted(
    make_squares: Callable[[], Squares], requests: list[list[int]]
) -> None:
    cache, known, squares = in_memory(), set[int](), make_squares()
    for numbers in requests:
        call = Call()
        assert await squares.ask(cache, *numbers, call=call) == [number**2 for number in numbers]
        assert (call.hits, call.lookups) == (sum(number in known for number in numbers), len(numbers))
        assert (call.age is None) == (call.hits == 0)
        known |= set(numbers)
    assert squares.computed == sorted(known)


async def test_without_tiers_nothing_is_kept(squares: Squares) -> None:
    for _ in range(2):
        call = Call()
        assert await squares.ask(Cache(), 1, 1, call=call) == [1, 1]
        assert call.cache_status == "bypass"
    assert squares.batches == [[1, 1], [1, 1]]


@pytest.mark.parametrize(("bound", "found"), [(0, "hit; hits=1/1"), (-1, "miss; hits=0/1")])
async def test_a_value_over_the_bound_is_not_kept_and_one_at_the_bound_is(
    squares: Squares, bound: int, found: str
) -> None:
    cache = Cache(MemoryTier(MIB), value_bytes=squares.subject.layout.value_bytes + bound)
    await squares.ask(cache, 1)
    call = Call()
    await squares.ask(cache, 1, call=call)
    assert call.cache_status == found


async def test_no_store_neither_reads_nor_writes(squares: Squares) -> None:
    cache = in_memory()
    for _ in range(2):
        call = Call(read_cache=False, write_cache=False)
        assert await squares.ask(cache, 2, call=call) == [4]
        assert (call.cache_status, call.age) == ("bypass", None)
    after = Call()
    await squares.ask(cache, 2, call=after)
    assert after.cache_status == "miss; hits=0/1"


async def test_no_cache_computes_anew_and_keeps_the_answer(squares: Squares) -> None:
    cache, call, after = in_memory(), Call(read_cache=False), Call()
    await squares.ask(cache, 2)
    assert await squares.ask(cache, 2, 3, call=call) == [4, 9]
    assert squares.batches == [[2], [2, 3]]
    assert (call.cache_status, call.age) == ("bypass", None)
    await squares.ask(cache, 3, call=after)
    assert after.cache_status == "hit; hits=1/1"


async def test_a_call_is_as_old_as_its_oldest_hit(squares: Squares, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, now = in_memory(), time.time()
    for number, age in ((1, 500), (2, 9000), (3, 70)):
        monkeypatch.setattr("services.caching.values.time.time", lambda age=age: now - age)
        await squares.ask(cache, number)
    monkeypatch.setattr("services.caching.values.time.time", lambda: now)
    for numbers, age in (((1, 2, 3, 4), 9000), ((3, 1), 500), ((3,), 70), ((4,), 0)):
        call = Call()
        await squares.ask(cache, *numbers, call=call)
        assert call.age is not None
        assert abs(call.age - age) <= 1


async def test_an_answer_that_is_found_too_late_is_none(squares: Squares) -> None:
    cache = in_memory()
    await squares.ask(cache, 1)
    with pytest.raises(DeadlineExceeded) as caught:
        await squares.ask(cache, 1, call=Call(deadline=time.monotonic() - 1))
    assert caught.value.field == "X-Request-Timeout-Ms"


async def test_other_operations_and_bundles_have_answers_of_their_own(make_squares: Callable[..., Squares]) -> None:
    cache, one, other = in_memory(), make_squares(), make_squares(digest="ab" * 31 + "cd")
    await one.ask(cache, 1)
    await other.ask(cache, 1)
    one.subject = CachedOperation(one.digest, "another", one.subject.layout, one.subject.item_seconds)
    await one.ask(cache, 1)
    assert (one.batches, other.batches) == ([[1], [1]], [[1]])


async def test_what_is_answered_belongs_to_the_caller(squares: Squares) -> None:
    cache, numbers = in_memory(), {"x": np.array([3])}

    async def compute(rows: np.ndarray | None) -> dict[str, np.ndarray]:
        return squares.run(numbers["x"])

    for _ in range(3):
        outputs = await cache.answer(squares.subject, numbers, Call(), compute)
        assert outputs["square"].tolist() == [9]
        outputs["square"][:] = -1


async def test_a_cached_answer_is_the_computed_one_bit_by_bit(make_bundle: Any) -> None:
    bundle: Bundle = make_bundle(weight=0.01)
    model, cache = Classifier(bundle), in_memory()
    images = {"images": np.random.default_rng(0).integers(0, 256, (32, 1, 2, 2), np.uint8)}
    computed = model.run("classify", images)
    subject = CachedOperation(bundle.digest, "classify", Layout.of(computed), lambda: 1e-6)

    async def compute(rows: np.ndarray | None) -> dict[str, np.ndarray]:
        assert rows is None
        return computed

    for expected in ("miss; hits=0/32", "hit; hits=32/32"):
        call = Call()
        found = await cache.answer(subject, images, call, compute)
        assert call.cache_status == expected
        for name, array in computed.items():
            assert found[name].tobytes() == array.tobytes()
