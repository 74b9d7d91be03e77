"""Many replicas in simpy: arrivals, an autoscaler, the loss of a zone, a change of the model.

Requests are dealt at random, so each replica gets independent arrivals at the same rate. A few are simulated request
by request, and stand for all. What they are sent changes once a second, with the offered rate and with the number of
replicas that are ready.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy

from loadtests.capacity import arrivals
from loadtests.capacity.autoscaler import SYNC, Autoscaler, Signals
from loadtests.capacity.costs import Costs
from loadtests.capacity.loop import virtual_time
from loadtests.capacity.pod import PRELOADED, Pod, Record

TICK = 1.0  # seconds


@dataclass(frozen=True)
class World:
    """What replicas are exposed to.

    Attributes:
        rate: requests a second for all replicas, at a time in seconds.
        seconds: length.
        hits: the share of requests that the cache answers, at a time.
        scaler: None: the number of replicas stays.
        start: seconds from a decision until a new replica is ready.
        zones: in which replicas are spread evenly.
        zone_lost: when one of them is gone; infinity: never.
        noticed: seconds after which no request is sent there.
        deadline: seconds that clients wait.
        cached: whether replicas have a cache.
        speed: of a core, in multiples of the one that was measured.
        exact: replicas that are simulated.
    """

    rate: Callable[[float], float]
    seconds: float
    hits: Callable[[float], float]
    deadline: float
    scaler: Autoscaler | None = None
    start: float = 0.0
    zones: int = 3
    zone_lost: float = math.inf
    noticed: float = 0.0
    cached: bool = True
    speed: float = 1.0
    exact: int = 1


@dataclass
class Outcome:
    """What happened.

    Attributes:
        record: of the requests to the replicas that were simulated.
        replicas: (second, ready), after each change.
        failed: (second, share of all requests that a lost zone did not answer).
    """

    record: Record
    replicas: list[tuple[float, int]] = field(default_factory=list)
    failed: list[tuple[float, float]] = field(default_factory=list)

    def recovered(self, since: float, seconds: float, late: float, good: float, budget: float) -> float:
        """Seconds from `since` to the end of the last second that misses the objectives; 0: none does.

        Args:
            since: when the disturbance began.
            seconds: length of the world.
            late: seconds; what takes longer is late.
            good: the share of answers that must not be late.
            budget: the share of requests that may be refused.
        """
        failed = dict(self.failed)
        for second in range(math.ceil(seconds) - 1, math.floor(since) - 1, -1):
            part = self.record.between(second, second + 1)
            slow = float((part.latency > late).mean()) if len(part.latency) else 0.0
            if slow > 1 - good or part.refused > budget or failed.get(float(second), 0.0) > budget:
                return second + 1 - since
        return 0.0

    def refused(self, begin: float, end: float) -> float:
        """The share of requests in that time that got no answer with 200."""
        part = self.record.between(begin, end)
        return max(part.refused, float(np.mean([share for at, share in self.failed if begin <= at < end] or [0.0])))


def run(costs: Costs, world: World, replicas: int, seed: int) -> Outcome:
    """Let a fleet of so many replicas live through a world."""
    with virtual_time():
        fleet = _Fleet(costs, world, replicas, seed)
        fleet.env.process(fleet.offer())
        if world.scaler is not None:
            fleet.env.process(fleet.scale(world.scaler))
        if world.zone_lost < math.inf:
            fleet.env.process(fleet.lose_zone())
        fleet.env.run(world.seconds)
        entries = []
        for pod, begin in zip(fleet.pods, fleet.begins, strict=True):
            pod.run()
            entries += [(due - begin, received - begin, status) for due, received, status in pod.entries]
    record = Record.of(sorted(entries))
    return Outcome(record, fleet.changes, fleet.failed)


class _Fleet:
    def __init__(self, costs: Costs, world: World, replicas: int, seed: int) -> None:
        self.env = simpy.Environment()
        self.ready = self.asked_for = replicas
        self.gone = 0  # replicas that are still sent requests, and answer none
        self.changes = [(0.0, replicas)]
        self.failed: list[tuple[float, float]] = []
        self.pods = [
            Pod(costs, deadline=world.deadline, cached=world.cached, speed=world.speed) for _ in range(world.exact)
        ]
        self.begins = [pod.loop.now for pod in self.pods]
        self._world = world
        self._random = np.random.default_rng(seed)
        self._fresh = PRELOADED  # number of the last image that no cache knew
        self._seen = [0] * world.exact  # entries of each replica that signals have counted

    def offer(self) -> Generator[simpy.Event, Any, None]:
        world = self._world
        while True:
            now = self.env.now
            known = self.ready + self.gone
            share = world.rate(now) / known
            if self.gone:
                self.failed.append((now, self.gone / known))
            for pod, begin in zip(self.pods, self.begins, strict=True):
                moments = arrivals.poisson(share, TICK, self._random)
                hits = self._random.random(len(moments)) < world.hits(now)
                for moment, hit in zip(moments.tolist(), hits.tolist(), strict=True):
                    self._fresh += not hit
                    pod.ask(begin + now + moment, PRELOADED if hit else self._fresh)
            yield self.env.timeout(TICK)
            self._live()

    def _live(self) -> None:
        """Let the replicas that are simulated come to the present."""
        for pod, begin in zip(self.pods, self.begins, strict=True):
            pod.run(begin + self.env.now)

    def scale(self, scaler: Autoscaler) -> Generator[simpy.Event, Any, None]:
        busy = [pod.loop.busy for pod in self.pods]
        while True:
            yield self.env.timeout(SYNC)
            self._live()
            wanted = scaler.wanted(self.asked_for, self._signals(busy))
            busy = [pod.loop.busy for pod in self.pods]
            if wanted > self.asked_for:
                self.env.process(self._add(wanted - self.asked_for))
                self.asked_for = wanted

    def _signals(self, before: list[float]) -> Signals:
        worked = [pod.loop.busy - was for pod, was in zip(self.pods, before, strict=True)]
        refused = 0
        for number, pod in enumerate(self.pods):
            refused += sum(status != 200 for _, _, status in pod.entries[self._seen[number] :])
            self._seen[number] = len(pod.entries)
        each = self.ready / len(self.pods)
        return Signals(
            busy=min(1.0, float(np.mean(worked)) / SYNC),
            backlog=each * sum(pod.backlog for pod in self.pods),
            refused=each * refused / SYNC,
        )

    def _add(self, count: int) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self._world.start)
        self.ready += count
        self.changes.append((self.env.now, self.ready))

    def lose_zone(self) -> Generator[simpy.Event, Any, None]:
        yield self.env.timeout(self._world.zone_lost)
        self.gone = math.ceil(self.ready / self._world.zones)
        self.ready -= self.gone
        self.changes.append((self.env.now, self.ready))
        yield self.env.timeout(self._world.noticed)
        self.gone = 0
