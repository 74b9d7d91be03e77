"""Which input moves the number of replicas most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from loadtests.capacity.autoscaler import Autoscaler
from loadtests.capacity.costs import Costs
from loadtests.capacity.plan import Assumptions, Goals, count, measure_replica
from loadtests.capacity.popularity import Popularity


def sensitivity(
    costs: Costs, goals: Goals, assumed: Assumptions, scaler: Autoscaler, rate: float, seconds: float, by: float = 0.2
) -> dict[str, tuple[int, int]]:
    """Replicas with each input lowered and raised by the share `by`, the others as they are."""
    changed_costs: dict[str, Callable[[float], Costs]] = {
        "compute of a batch": lambda by: replace(costs, compute=tuple(by * each for each in costs.compute)),
        "miss without its compute": lambda by: replace(costs, miss=by * costs.miss),
        "request that hits the cache": lambda by: replace(costs, hit=by * costs.hit),
        "refusal": lambda by: replace(costs, refusal=by * costs.refusal),
    }
    popular = assumed.popularity
    changed_assumptions: dict[str, Callable[[float], Assumptions]] = {
        "bytes of the cache": lambda by: replace(assumed, cache_bytes=int(by * assumed.cache_bytes)),
        "exponent of popularity": lambda by: replace(
            assumed, popularity=Popularity(popular.images, by * popular.exponent)
        ),
        "different images": lambda by: replace(
            assumed, popularity=Popularity(int(by * popular.images), popular.exponent)
        ),
        "deadline": lambda by: replace(assumed, deadline=by * assumed.deadline),
        "speed of a core": lambda by: replace(assumed, speed=by * assumed.speed),
    }

    def needed(costs: Costs, assumed: Assumptions, scaler: Autoscaler) -> int:
        return count(rate, measure_replica(costs, goals, assumed, 1, seconds), costs, assumed, scaler).replicas

    found = {
        name: (needed(make(1 - by), assumed, scaler), needed(make(1 + by), assumed, scaler))
        for name, make in changed_costs.items()
    }
    for name, change in changed_assumptions.items():
        found[name] = (needed(costs, change(1 - by), scaler), needed(costs, change(1 + by), scaler))
    if scaler.busy:
        low, high = (replace(scaler, busy=min(1.0, way * scaler.busy)) for way in (1 - by, 1 + by))
        found["target of the autoscaler"] = (needed(costs, assumed, low), needed(costs, assumed, high))
    return found
