"""A spike, the loss of a zone, a change of the model: how long the objectives are missed."""

from __future__ import annotations

from dataclasses import dataclass

from loadtests.capacity import fleet
from loadtests.capacity.autoscaler import Autoscaler
from loadtests.capacity.costs import Costs
from loadtests.capacity.plan import Assumptions, Goals

SETTLED = 5.0  # seconds before a disturbance
PATIENCE = 60.0  # seconds after it


@dataclass(frozen=True)
class Lag:
    """How a fleet goes through a disturbance.

    Attributes:
        seconds: from its begin until the objectives are met again, one entry a seed; the length of the simulation:
            they were not met again.
        refused: the share of requests without an answer from then on, one entry a seed.
        replicas: at the end.
    """

    seconds: tuple[float, ...]
    refused: tuple[float, ...]
    replicas: int


def disturbed(costs: Costs, goals: Goals, replicas: int, world: fleet.World, seeds: int) -> Lag:
    """What happens in a world whose disturbance begins after `SETTLED` seconds."""
    lags, refused, last = [], [], replicas
    for seed in range(seeds):
        outcome = fleet.run(costs, world, replicas, seed)
        lags.append(outcome.recovered(SETTLED, world.seconds, goals.late, goals.good, goals.refused))
        refused.append(outcome.refused(SETTLED, world.seconds))
        last = outcome.replicas[-1][1]
    return Lag(tuple(lags), tuple(refused), last)


def spiked(costs: Costs, assumed: Assumptions, rate: float, scaler: Autoscaler) -> fleet.World:
    """The load rises, and stays."""
    hits = assumed.hits(costs)
    return fleet.World(
        rate=lambda now: rate * (assumed.spike if now >= SETTLED else 1.0),
        seconds=SETTLED + PATIENCE,
        hits=lambda _: hits,
        deadline=assumed.deadline,
        cached=assumed.cached,
        speed=assumed.speed,
        scaler=scaler,
        start=assumed.start,
    )


def without_zone(costs: Costs, assumed: Assumptions, rate: float) -> fleet.World:
    """A zone is gone; nothing is added."""
    hits = assumed.hits(costs)
    return fleet.World(
        rate=lambda _: rate,
        seconds=SETTLED + assumed.noticed + 10,
        hits=lambda _: hits,
        deadline=assumed.deadline,
        cached=assumed.cached,
        speed=assumed.speed,
        zones=assumed.zones,
        zone_lost=SETTLED,
        noticed=assumed.noticed,
    )


def changed(costs: Costs, assumed: Assumptions, rate: float, replicas: int) -> fleet.World:
    """Another model: every cache is empty, and fills."""
    entries, each = assumed.entries(costs), rate / replicas
    return fleet.World(
        rate=lambda _: rate,
        seconds=SETTLED + 15,
        hits=lambda now: (
            assumed.hits(costs)
            if now < SETTLED
            else assumed.cached * assumed.popularity.cold(each * (now - SETTLED), entries)
        ),
        deadline=assumed.deadline,
        cached=assumed.cached,
        speed=assumed.speed,
    )
