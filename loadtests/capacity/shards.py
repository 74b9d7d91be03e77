"""How many Redis servers the misses of all replicas need, by a simulation of one in simpy."""

from __future__ import annotations

import math
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simpy

from loadtests.capacity import arrivals
from loadtests.capacity.costs import Costs
from services.caching.admission import AdmissionEstimate

QUERIES = 10_000  # in one simulation
LOADS = tuple(share / 20 for share in range(19, 0, -1))  # of what a server can do, the highest first


@dataclass(frozen=True)
class Shards:
    """Redis servers for a load.

    Attributes:
        queries: of all replicas, a second; 0: the replicas do not ask, because computing takes less than asking.
        load: of each server's core, at most, for its p99 to stay below what a hit saves.
        count: of servers.
    """

    queries: float
    load: float
    count: int


def asked(costs: Costs) -> bool:
    """Whether requests ask Redis: the services' own rule."""
    return AdmissionEstimate("auto", costs.item, costs.round_trip).asks(costs.items)


def service(costs: Costs) -> float:
    """Seconds of a server's core for a request: one query of all keys, and as many writes where it misses."""
    return costs.redis * costs.items


def round_trip(costs: Costs, load: float, seed: int) -> float:
    """The p99 of a round trip in seconds, when the server's core works for this share of the time."""
    each = service(costs)
    rate = load / each
    moments = arrivals.poisson(rate, QUERIES / rate, np.random.default_rng(seed))
    env = simpy.Environment()
    core = simpy.Resource(env, capacity=1)
    took: list[float] = []

    def query(moment: float) -> Generator[simpy.Event, Any, None]:
        yield env.timeout(moment)
        with core.request() as turn:
            yield turn
            yield env.timeout(each)
        took.append(env.now - moment)

    for moment in moments.tolist():
        env.process(query(moment))
    env.run()
    return float(np.percentile(took, 99)) + max(0.0, costs.round_trip - costs.redis)


def needed(costs: Costs, rate: float, hits: float, seed: int = 0) -> Shards:
    """Servers for so many requests a second, of which the replicas' own caches answer the share `hits`."""
    if not asked(costs):
        return Shards(0.0, 0.0, 0)
    saved = costs.batch(costs.items)
    load = next((share for share in LOADS if round_trip(costs, share, seed) < saved), LOADS[-1])
    queries = rate * (1 - hits)
    return Shards(queries, load, math.ceil(2 * queries * service(costs) / load))
