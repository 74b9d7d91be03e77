"""From a load to replicas: what one replica can do, and what objectives, zones, model changes and autoscaler ask."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from loadtests.capacity import arrivals, simulate
from loadtests.capacity.autoscaler import Autoscaler
from loadtests.capacity.costs import Costs
from loadtests.capacity.pod import Record
from loadtests.capacity.popularity import Popularity
from services.caching.keys import item_keys
from services.caching.memory import OVERHEAD

STEPS = 7  # halvings of the interval in which the highest rate lies
CACHES = ("warm", "cold")
POPULARITY = Popularity(10_000_000, 0.9)


@dataclass(frozen=True)
class Goals:
    """The objectives that a plan has to meet.

    Attributes:
        refused: the share of requests that may be refused.
        late: seconds; an answer that takes longer is late.
        good: the share of answers that must not be late.
    """

    refused: float
    late: float
    good: float

    def met(self, record: Record) -> bool:
        slow = float((record.latency > self.late).mean()) if len(record.latency) else 1.0
        return record.refused <= self.refused and slow <= 1 - self.good


@dataclass(frozen=True)
class Assumptions:
    """What no measurement says; each is an option of the command.

    Attributes:
        deadline: seconds that clients wait.
        popularity: of images.
        cached: whether replicas have a cache.
        cache_bytes: of each replica's memory tier.
        zones: in which replicas are spread evenly; one may be lost.
        start: seconds from the decision to add a replica until it is ready.
        noticed: seconds until no request is sent to a zone that is gone.
        spike: times the load.
        price: of a core for an hour.
        speed: of a core, in multiples of the one that was measured.
    """

    deadline: float = 0.1
    popularity: Popularity = POPULARITY
    cached: bool = True
    cache_bytes: int = 64 * 2**20
    zones: int = 3
    start: float = 15.0
    noticed: float = 10.0
    spike: float = 2.0
    price: float = 0.04
    speed: float = 1.0

    def entries(self, costs: Costs) -> float:
        """Requests whose answers fit into a replica's cache."""
        (key,) = item_keys("0" * 64, "classify", {"images": np.zeros((1, 1), np.uint8)}, 1)
        return self.cache_bytes / (len(key) + costs.value_bytes + OVERHEAD) / costs.items

    def hits(self, costs: Costs) -> float:
        """The hit ratio of a warm replica."""
        return self.popularity.hit_ratio(self.entries(costs)) if self.cached else 0.0


@dataclass(frozen=True)
class Replica:
    """The highest rate in requests a second at which one replica meets the goals, by seed and state of its cache."""

    warm: tuple[float, ...]
    cold: tuple[float, ...]

    def rate(self, cache: str) -> float:
        return statistics.fmean(getattr(self, cache))


@dataclass(frozen=True)
class Count:
    """Replicas for a load.

    Attributes:
        replicas: by the mean over the seeds.
        low, high: by the seed with the highest and the lowest rate of a replica.
        reason: which demand decides.
    """

    replicas: int
    low: int
    high: int
    reason: str


def measure_replica(
    costs: Costs, goals: Goals, assumed: Assumptions, seeds: int, seconds: float, tick: Callable[[], object] = int
) -> Replica:
    """Simulate one replica at rising rates.

    Args:
        costs: measured.
        goals: to be met.
        assumed: what else holds.
        seeds: how many simulations of each rate.
        seconds: length of each.
        tick: called after each seed.
    """
    found: dict[str, list[float]] = {cache: [] for cache in CACHES}
    for cache in CACHES:
        hits = assumed.hits(costs) if cache == "warm" else 0.0
        for seed in range(seeds):
            found[cache].append(_highest(costs, goals, assumed, hits, seconds, seed))
            tick()
    return Replica(tuple(found["warm"]), tuple(found["cold"]))


def work(costs: Costs, assumed: Assumptions, hits: float) -> float:
    """Seconds of a core for a request, in batches of the most efficient size."""
    images = min(costs.batch(size) / size for size in costs.sizes if size >= costs.items)
    missed = costs.miss if assumed.cached else costs.request
    return (hits * costs.hit + (1 - hits) * (missed + costs.items * images)) / assumed.speed


def _highest(costs: Costs, goals: Goals, assumed: Assumptions, hits: float, seconds: float, seed: int) -> float:
    low, high = 0.0, 1.2 / work(costs, assumed, hits)
    for _ in range(STEPS):
        rate = (low + high) / 2
        random = np.random.default_rng(seed)
        due = arrivals.poisson(rate, seconds, random)
        fresh = np.arange(1, len(due) + 1)  # images that no cache knows
        images = np.where(random.random(len(due)) < hits, 0, fresh) if assumed.cached else None
        record = simulate.one_pod(costs, due, deadline=assumed.deadline, images=images, speed=assumed.speed)
        low, high = (rate, high) if len(due) and goals.met(record) else (low, rate)
    return low


def count(rate: float, replica: Replica, costs: Costs, assumed: Assumptions, scaler: Autoscaler) -> Count:
    """Replicas that meet the goals at this rate, with one zone lost, and with an empty cache.

    They are also as many as the autoscaler keeps, and at least one in each zone.
    """

    def demands(warm: float, cold: float) -> Mapping[str, int]:
        spare = assumed.zones / (assumed.zones - 1) if assumed.zones > 1 else 1.0
        busy = rate * work(costs, assumed, assumed.hits(costs))
        return {
            "objectives": math.ceil(rate / warm),
            "loss of a zone": math.ceil(spare * rate / warm),
            "cold cache": math.ceil(rate / cold),
            "autoscaler": math.ceil(busy / scaler.busy) if scaler.busy else 0,
            "least": max(scaler.least, assumed.zones),
        }

    mean = demands(replica.rate("warm"), replica.rate("cold"))
    most = demands(min(replica.warm), min(replica.cold))
    least = demands(max(replica.warm), max(replica.cold))
    reason = max(mean, key=lambda name: mean[name])
    return Count(mean[reason], max(least.values()), max(most.values()), reason)
