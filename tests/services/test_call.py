"""A call's headers tell what happened to it."""

from __future__ import annotations

import time

import pytest

from services.call import Call


def test_a_call_without_a_deadline_has_no_end() -> None:
    assert Call().remaining() is None


def test_what_remains_shrinks_and_goes_below_zero() -> None:
    call = Call(deadline=time.monotonic() + 1000)
    first, second = call.remaining(), call.remaining()
    assert first is not None
    assert second is not None
    assert 0 < second <= first <= 1000
    late = Call(deadline=time.monotonic() - 1).remaining()
    assert late is not None
    assert late < 0


@pytest.mark.parametrize(
    ("hits", "lookups", "header"),
    [
        (0, 0, "bypass"),
        (0, 4, "miss; hits=0/4"),
        (1, 4, "partial; hits=1/4"),
        (4, 4, "hit; hits=4/4"),
    ],
)
def test_the_cache_header_counts_items(hits: int, lookups: int, header: str) -> None:
    assert Call(hits=hits, lookups=lookups).cache_status == header


def test_a_call_is_as_old_as_its_oldest_hit() -> None:
    call = Call()
    assert call.age is None
    now = int(time.time())
    for age in (50, 7000, 300):
        call.dated(now - age)
    assert call.oldest == now - 7000
    assert call.age is not None
    assert 7000 <= call.age < 7060


def test_a_hit_from_a_replica_whose_clock_is_ahead_is_not_of_negative_age() -> None:
    call = Call()
    call.dated(int(time.time()) + 3600)
    assert call.age == 0


def test_stages_add_up_and_are_told_in_milliseconds_in_order() -> None:
    call = Call()
    call.add("queue", 0.0015)
    call.add("compute", 0.25)
    call.add("queue", 0.001)
    assert call.server_timing == "queue;dur=2.500, compute;dur=250.000"
    assert Call().server_timing == ""


def test_a_stage_that_fails_is_timed_too() -> None:
    call = Call()
    with pytest.raises(ZeroDivisionError), call.stage("decode"):
        _ = 1 / 0
    assert call.seconds["decode"] >= 0


def test_a_stage_takes_the_time_it_takes() -> None:
    call = Call()
    begin = time.perf_counter()
    with call.stage("decode"):
        time.sleep(0.01)
    whole = time.perf_counter() - begin
    assert 0.01 <= call.seconds["decode"] <= whole


def test_calls_share_nothing() -> None:
    Call().add("queue", 1)
    assert Call().seconds == {}
