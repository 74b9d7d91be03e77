"""The scale table: one row a load, and what each row assumes beyond what was measured."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loadtests.capacity import disturbances, shards
from loadtests.capacity.autoscaler import Autoscaler
from loadtests.capacity.costs import Costs
from loadtests.capacity.disturbances import Lag
from loadtests.capacity.plan import Assumptions, Goals, Replica, count
from loadtests.capacity.validity import EXTRAPOLATED, Validity

LIKE_MANY = 21  # from so many replicas on, rounding no longer changes how a fleet goes through a disturbance


@dataclass(frozen=True)
class Row:
    """Replicas for one load.

    Attributes:
        rate: requests a second.
        replicas, low, high: needed, and for the best and the worst seed.
        reason: which demand decides.
        cores: of replicas and Redis.
        price: for an hour.
        hits: hit ratio of a warm replica.
        warm_again: seconds after a model change until the hit ratio is 90 % of that.
        changed: the model change.
        spikes: the spike, by autoscaler.
        zone: the loss of a zone.
        redis: servers.
        beyond: why it is extrapolated; empty: it was measured.
    """

    rate: float
    replicas: int
    low: int
    high: int
    reason: str
    cores: int
    price: float
    hits: float
    warm_again: float
    changed: Lag
    spikes: dict[str, Lag]
    zone: Lag
    redis: shards.Shards
    beyond: list[str]

    @property
    def status(self) -> str:
        return EXTRAPOLATED if self.beyond else "measured"


def table(
    rates: Sequence[float],
    costs: Costs,
    goals: Goals,
    assumed: Assumptions,
    scalers: Sequence[Autoscaler],
    replica: Replica,
    validity: Validity,
    seeds: int,
    tick: Callable[[], object] = int,
) -> list[Row]:
    """One row a rate; the first autoscaler keeps the replicas before a disturbance."""
    known: dict[tuple[str, int, float], Lag] = {}
    hits, entries = assumed.hits(costs), assumed.entries(costs)
    found = []
    for rate in rates:
        needed = count(rate, replica, costs, assumed, scalers[0])
        # Large fleets go through a disturbance alike, for each replica has the same load: one is simulated for all.
        some = min(needed.replicas, LIKE_MANY)
        each = float(f"{rate / needed.replicas:.2g}")
        worlds = {scaler.name: disturbances.spiked(costs, assumed, each * some, scaler) for scaler in scalers}
        worlds["zone"] = disturbances.without_zone(costs, assumed, each * some)
        worlds["change"] = disturbances.changed(costs, assumed, each * some, some)
        lags = {}
        for name, world in worlds.items():
            key = (name, some, each)
            if key not in known:
                known[key] = disturbances.disturbed(costs, goals, some, world, seeds)
            lags[name] = known[key]
            tick()
        redis = shards.needed(costs, rate, hits)
        cores = needed.replicas + redis.count
        warm = assumed.popularity.requests_until(0.9, entries) / (rate / needed.replicas) if hits else 0.0
        found.append(
            Row(
                rate=rate,
                replicas=needed.replicas,
                low=needed.low,
                high=needed.high,
                reason=needed.reason,
                cores=cores,
                price=cores * assumed.price,
                hits=hits,
                warm_again=warm,
                changed=lags["change"],
                spikes={scaler.name: lags[scaler.name] for scaler in scalers},
                zone=lags["zone"],
                redis=redis,
                beyond=validity.beyond(rate, needed.replicas, hits, assumed),
            )
        )
    return found


def span(values: Sequence[float], form: str = ".0f") -> str:
    """A mean, with the lowest and the highest value where they differ."""
    low, mean, high = (f"{value:{form}}" for value in (min(values), statistics.fmean(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"
