"""Whether Redis is asked follows from two measured numbers, or from a setting."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.caching.admission import LEASE_ROUND_TRIPS, LEASE_SECONDS, AdmissionEstimate

seconds = st.floats(1e-8, 100)
counts = st.integers(1, 10_000)


@given(seconds, seconds, counts)
def test_a_request_asks_if_computing_would_take_longer(item: float, round_trip: float, items: int) -> None:
    worth = AdmissionEstimate("auto", item, round_trip)
    if items * item > round_trip * (1 + 1e-9):
        assert worth.asks(items)
    if items * item < round_trip * (1 - 1e-9):
        assert not worth.asks(items)


@given(seconds, seconds, counts)
def test_the_smallest_request_that_asks_is_told(item: float, round_trip: float, items: int) -> None:
    worth = AdmissionEstimate("auto", item, round_trip)
    assert worth.from_items is not None
    assert worth.from_items >= 1
    assert worth.asks(items) == (items >= worth.from_items)


@pytest.mark.parametrize(
    ("item", "round_trip", "smallest"), [(0.0001, 0.001, 10), (0.0003, 0.001, 4), (0.001, 0.001, 1), (1.0, 0.001, 1)]
)
def test_the_smallest_request_of_some_models(item: float, round_trip: float, smallest: int) -> None:
    assert AdmissionEstimate("auto", item, round_trip).from_items == smallest


@given(seconds, st.none() | seconds, counts)
def test_a_setting_forces_either_way(item: float, round_trip: float | None, items: int) -> None:
    assert AdmissionEstimate("always", item, round_trip).asks(items)
    assert AdmissionEstimate("always", item, round_trip).from_items == 1
    never = AdmissionEstimate("never", item, round_trip)
    assert not never.asks(items)
    assert never.from_items is None
    assert not never.leases


@given(seconds, counts)
def test_a_redis_that_never_answered_is_not_asked(item: float, items: int) -> None:
    worth = AdmissionEstimate("auto", item, None)
    assert not worth.asks(items)
    assert worth.from_items is None
    assert not worth.leases
    assert not AdmissionEstimate("always", item, None).leases


def test_what_takes_no_time_is_not_asked_for() -> None:
    assert not AdmissionEstimate("auto", 0.0, 0.001).asks(10_000)


@given(seconds, seconds, st.sampled_from(["auto", "always"]))
def test_replicas_agree_on_expensive_items_only(item: float, round_trip: float, admission: str) -> None:
    worth = AdmissionEstimate(admission, item, round_trip)  # type: ignore[arg-type]
    assert worth.leases == (item > LEASE_ROUND_TRIPS * round_trip)
    assert not worth.leases or worth.asks(1)


@given(seconds, seconds, counts)
def test_a_lease_outlasts_the_computing_but_not_for_ever(item: float, round_trip: float, items: int) -> None:
    shortest, longest = LEASE_SECONDS
    lease = AdmissionEstimate("auto", item, round_trip).lease_seconds(items)
    assert shortest <= lease <= longest
    assert lease >= min(items * item, longest)
