"""Simulated replicas give what arithmetic gives, and what queueing theory gives."""

import numpy as np
import pytest

from loadtests.capacity import arrivals, simulate
from loadtests.capacity.pod import Record
from loadtests.capacity.popularity import Popularity
from tests.loadtests.capacity.cheap import constant, costs


def test_three_requests_take_what_arithmetic_says() -> None:
    """The thread computes the first from 1 ms on, and stands still for 2 ms while the other two are read."""
    record = simulate.one_pod(costs(), np.array([0.0, 0.002, 0.003]))
    assert record.received.tolist() == pytest.approx([0.013, 0.025, 0.025], abs=1e-9)
    assert record.status.tolist() == [200, 200, 200]


def test_costs_outside_of_the_model_count() -> None:
    """A wake-up of 0.1 ms, HTTP of 0.2 ms and compute of 0.5 ms on the event loop, 0.4 ms on the way."""
    alone = costs(
        sizes=(1,), compute=(0.0005,), item=0.0005, request=0.0002, refusal=0.0002, wake=0.0001, network=0.0004
    )
    record = simulate.one_pod(alone, np.array([1.0, 2.0]))
    assert record.latency.tolist() == pytest.approx([0.0012, 0.0012], abs=1e-9)
    twice = simulate.one_pod(alone, np.array([1.0, 2.0]), speed=2.0)
    assert twice.latency.tolist() == pytest.approx([0.0008, 0.0008], abs=1e-9)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_the_mean_wait_is_that_of_a_queue_with_constant_service(load: float) -> None:
    """M/D/1 (Pollaczek and Khinchine): the mean wait is load / (2 (1 - load)) services."""
    service = 0.001
    due = arrivals.poisson(load / service, 25.0, np.random.default_rng(1))
    record = simulate.one_pod(constant(service), due)
    expected = service * (1 + load / (2 * (1 - load)))
    assert record.latency.mean() == pytest.approx(expected, rel=0.07)
    assert record.refused == 0


def test_twice_the_capacity_has_half_of_it_refused_and_none_answered_late() -> None:
    due = arrivals.poisson(1000, 5.0, np.random.default_rng(1))
    record = simulate.one_pod(constant(0.002), due, deadline=0.1)
    assert record.refused == pytest.approx(0.5, abs=0.03)
    assert set(record.status.tolist()) <= {200, 429, 504}
    assert record.latency.max() <= 0.102
    again = simulate.one_pod(constant(0.002), due, deadline=0.1)
    assert again.received.tolist() == record.received.tolist()


def test_a_batch_is_what_waits_so_a_batcher_answers_more_than_one_by_one() -> None:
    due = arrivals.poisson(150, 4.0, np.random.default_rng(1))
    assert simulate.one_pod(costs(), due, deadline=0.2).refused < 0.01
    assert simulate.one_pod(costs(batched=0.010, gains=False, compute=(0.01, 0.02)), due, deadline=0.2).refused > 0.2


def test_equal_requests_come_from_the_cache() -> None:
    due = np.linspace(0, 1, 50)
    fast = costs(hit=0.0001, refusal=0.0001)
    same = simulate.one_pod(fast, due, images=np.zeros(50, int))
    other = simulate.one_pod(fast, due, images=np.arange(1, 51))
    assert same.latency.tolist() == pytest.approx([0.0001] * 50, abs=1e-9)
    assert other.latency.min() >= 0.011 - 1e-9


def test_the_kill_of_a_replica_loses_what_it_had_and_what_is_sent_to_it() -> None:
    due = np.arange(0, 3, 0.01)  # 100 a second, each third to the one that is killed
    record = simulate.shared_core(constant(0.001, proxy=0.0001), due, count=3, deadline=0.1, killed=1.0, noticed=2.0)
    assert len(record.due) == len(due)
    assert (record.status == 503).sum() == pytest.approx(33, abs=1)
    assert record.between(2.0, 3.0).refused == 0


def test_replicas_that_share_a_core_have_its_capacity_together() -> None:
    due = arrivals.poisson(500, 5.0, np.random.default_rng(1))
    assert simulate.shared_core(constant(0.001), due, count=3).latency.mean() == pytest.approx(0.0015, rel=0.1)
    more = arrivals.poisson(1500, 2.0, np.random.default_rng(1))
    assert 1 / 3 - 0.05 < simulate.shared_core(constant(0.001), more, count=3, deadline=0.1).refused < 0.6


def test_percentiles_are_of_answers_and_shares_of_all() -> None:
    record = Record.of([(0.0, 1.0, 200), (1.0, 4.0, 200), (2.0, 2.0, 429), (3.0, 3.0, 0)])
    assert (record.refused, record.percentile(50), record.between(2, 9).percentile(99)) == (0.5, 2.0, 0.0)


def test_hit_ratios_are_those_of_the_memory_tier() -> None:
    """Che's approximation beside the tier itself, which drops the least recently used entries."""
    from services.caching.memory import MemoryTier, _cost  # noqa: PLC0415

    popular = Popularity(5000, 0.9)
    entries, value = 500, bytes(40)
    tier = MemoryTier(entries * _cost("00000", value))
    drawn = popular.draw(np.random.default_rng(1), 40_000).tolist()
    hits = []
    for image in drawn:
        key = f"{image:05}"
        hits.append(bool(tier.get([key])))
        tier.put({key: value})
    assert np.mean(hits[10_000:]) == pytest.approx(popular.hit_ratio(entries), abs=0.01)
    assert np.mean(hits[:1000]) < popular.hit_ratio(entries) - 0.05
    assert popular.cold(0, entries) == 0
    assert popular.cold(popular.requests_until(0.9, entries), entries) == pytest.approx(
        0.9 * popular.hit_ratio(entries)
    )
