"""Fleets under an autoscaler, without a zone, and Redis servers."""

import math
from typing import Any

import pytest

from loadtests.capacity import autoscaler, fleet, shards
from loadtests.capacity.autoscaler import SYNC, Autoscaler, Signals
from loadtests.capacity.fleet import World
from tests.loadtests.capacity.cheap import constant, costs

CPU = Autoscaler("cpu", 2, 10, busy=0.7)
GOALS = {"late": 0.25, "good": 0.99, "budget": 0.001}


def world(**changes: Any) -> World:
    usual: dict[str, Any] = {"rate": lambda _: 100.0, "seconds": 20.0, "hits": lambda _: 0.0, "deadline": 0.1}
    return World(**usual | changes)


def test_the_settings_are_those_of_the_components() -> None:
    assert autoscaler.read("cpu-hpa") == Autoscaler("cpu-hpa", 2, 10, busy=0.7)
    assert autoscaler.read("keda") == Autoscaler("keda", 2, 10, backlog=0.25, refused=0.5)


@pytest.mark.parametrize(
    ("replicas", "signals", "wanted"),
    [
        (10, Signals(0.70, 0, 0), 10),
        (10, Signals(0.76, 0, 0), 10),  # within the tolerance
        (10, Signals(1.00, 0, 0), 15),  # a full core is all that can be seen: at most 1 / 0.7 of what is there
        (10, Signals(0.20, 0, 0), 10),  # fewer only after minutes
    ],
)
def test_replicas_follow_the_share_of_the_cores_that_work(replicas: int, signals: Signals, wanted: int) -> None:
    assert CPU.wanted(replicas, signals) == wanted


def test_replicas_follow_waiting_work_and_refusals_within_the_policies() -> None:
    keda = Autoscaler("keda", 2, 10, backlog=0.25, refused=0.5)
    assert keda.wanted(4, Signals(1, 1.5, 0)) == 6
    assert keda.wanted(4, Signals(1, 0, 100)) == 8
    assert keda.wanted(1, Signals(1, 0, 100)) == 5
    assert keda.wanted(4, Signals(1, 0, 0)) == 4


def test_a_spike_is_refused_until_new_replicas_are_ready() -> None:
    spiked = world(rate=lambda now: 200.0 if now < 5 else 480.0, seconds=60.0, scaler=CPU, start=5.0)
    outcome = fleet.run(constant(0.005), spiked, 2, seed=1)
    times, counts = zip(*outcome.replicas, strict=True)
    assert times[1] == pytest.approx(SYNC + 5.0)
    assert counts[0] == 2
    assert counts[-1] * 200 * 0.7 >= 480 / (1 + autoscaler.TOLERANCE)
    assert outcome.record.between(0, 5).refused == 0
    assert outcome.record.between(8, SYNC).refused == pytest.approx(1 - 400 / 480, abs=0.07)
    assert 0 < outcome.recovered(5.0, 60.0, **GOALS) < 40
    still = fleet.run(constant(0.005), world(rate=spiked.rate, seconds=30.0), 2, seed=1)
    assert still.recovered(5.0, 30.0, **GOALS) == 25.0


def test_a_lost_zone_fails_its_share_until_it_is_noticed() -> None:
    outcome = fleet.run(constant(0.001), world(zone_lost=5.0, noticed=4.0), 3, seed=1)
    assert outcome.refused(5, 9) == pytest.approx(1 / 3)
    assert outcome.replicas[-1] == (5.0, 2)
    assert outcome.recovered(5.0, 20.0, **GOALS) == 4.0


def test_an_empty_cache_is_slow_and_a_full_one_is_not() -> None:
    changing = world(rate=lambda _: 300.0, hits=lambda now: 0.0 if 5 <= now < 10 else 1.0)
    outcome = fleet.run(costs(hit=0.0001, refusal=0.0001), changing, 1, seed=1)
    assert outcome.record.between(0, 5).refused == 0
    assert outcome.record.between(6, 10).refused > 0.05
    assert outcome.recovered(5.0, 20.0, **GOALS) == pytest.approx(5.0, abs=1)


def test_redis_is_not_asked_where_computing_takes_less() -> None:
    assert shards.needed(costs(item=0.0001), 1e6, 0.5) == shards.Shards(0.0, 0.0, 0)
    found = shards.needed(costs(item=0.001, compute=(0.001, 0.002)), 1e5, 0.5)
    assert found.queries == 5e4
    assert found.count == math.ceil(2 * 5e4 * 0.00001 / found.load)
    assert 0.5 < found.load < 1


def test_a_round_trip_takes_longer_where_others_ask() -> None:
    trips = [shards.round_trip(costs(), load, 1) for load in (0.1, 0.5, 0.9)]
    assert trips == sorted(trips)
    assert trips[0] == pytest.approx(0.0002, rel=0.2)
