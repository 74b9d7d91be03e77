"""Runs that a real service and the simulation both get: the same requests, due at the same moments."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from loadtests.capacity import arrivals, simulate
from loadtests.capacity.costs import Costs
from loadtests.capacity.pod import Record
from loadtests.capacity.popularity import Popularity

LEVELS = (0.3, 0.5, 0.7, 0.9, 1.2)  # of capacity
SPIKE = (0.4, 1.5)  # of capacity: before and after, and for the third quarter of the run
CACHED = 0.7  # of the capacity without the cache
POPULAR = Popularity(20_000, 1.0)
KILLED = 0.5  # of the capacity of the three
REPLICAS = 3
WANTED = 0.1  # relative difference, at most


@dataclass(frozen=True)
class Run:
    """One run.

    Attributes:
        kind: `steady`, `spike`, `cached` or `killed`.
        items: images a request.
        load: of the capacity.
        rate: requests a second; of a spike, before it.
        seconds: length.
        deadline: seconds that clients wait.
        seed: of the moments.
        killed, noticed: when a replica was killed, and when its proxy knew; 0 in other runs.
    """

    kind: str
    items: int
    load: float
    rate: float
    seconds: float
    deadline: float
    seed: int
    killed: float = 0.0
    noticed: float = 0.0

    @property
    def name(self) -> str:
        of = {"steady": f"{self.load:g} of capacity", "spike": "spike", "cached": "with cache", "killed": "kill"}
        return f"{self.items} image{'s' if self.items > 1 else ''}, {of[self.kind]}"

    def moments(self) -> np.ndarray:
        """When requests are due, seconds from the start."""
        random = np.random.default_rng(self.seed)
        if self.kind != "spike":
            return arrivals.poisson(self.rate, self.seconds, random)
        peak = self.rate * SPIKE[1] / SPIKE[0]
        begin, end = self.seconds / 2, 0.75 * self.seconds
        return arrivals.varying(arrivals.spike(self.rate, peak, begin, end), peak, self.seconds, random)

    def images(self) -> np.ndarray | None:
        """The number of the image that each request asks for; None: all the same, without the cache."""
        count = len(self.moments())
        return POPULAR.draw(np.random.default_rng(1000 + self.seed), count) if self.kind == "cached" else None

    def simulate(self, costs: Costs) -> Record:
        due = self.moments()
        if self.kind != "killed":
            return simulate.one_pod(costs, due, deadline=self.deadline, images=self.images())
        return simulate.shared_core(
            costs, due, count=REPLICAS, deadline=self.deadline, killed=self.killed, noticed=self.noticed
        )


@dataclass(frozen=True)
class Seen:
    """What a run showed; times in milliseconds from due to received, of answers with status 200."""

    requests: int
    p50_ms: float
    p99_ms: float
    refused: float
    late_sent_ms: float = 0.0  # p99 of what the generator itself was late
    others: float | None = None  # share of a core that other processes used meanwhile; None: not known

    @staticmethod
    def of(record: Record, late: float = 0.0) -> Seen:
        p50, p99 = (1000 * record.percentile(percent) for percent in (50, 99))
        return Seen(len(record.due), p50, p99, record.refused, 1000 * late)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def misses(measured: Seen, simulated: Seen) -> list[str]:
    """Which of p50, p99 and the refused share differ by more than a tenth; a share also by a point in a hundred."""
    missed = [
        name
        for name, one, other in (
            ("p50", measured.p50_ms, simulated.p50_ms),
            ("p99", measured.p99_ms, simulated.p99_ms),
        )
        if abs(other - one) > WANTED * one
    ]
    apart = abs(simulated.refused - measured.refused)
    return missed + ["refused"] * (apart > max(WANTED * measured.refused, 0.001))
