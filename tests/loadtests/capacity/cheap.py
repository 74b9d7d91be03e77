"""Costs that are easy to compute with."""

from dataclasses import replace
from typing import Any

from loadtests.capacity.costs import Costs

COSTS = Costs(
    items=1,
    sizes=(1, 2),
    compute=(0.010, 0.012),
    request=0.001,
    miss=0.001,
    hit=0.001,
    refusal=0.001,
    turn=0.0,
    wake=0.0,
    network=0.0,
    proxy=0.0,
    item=0.010,
    batched=0.006,
    gains=True,
    value_bytes=40,
    redis=0.00001,
    round_trip=0.0002,
)


def costs(**changes: Any) -> Costs:
    return replace(COSTS, **changes)


def constant(seconds: float, **changes: Any) -> Costs:
    """Each request takes so long, alone or in a batch, and HTTP takes nothing."""
    free = {"request": 0.0, "miss": 0.0, "hit": 0.0, "refusal": 0.0}
    alone = {"sizes": (1,), "compute": (seconds,), "item": seconds, "batched": seconds, "gains": False}
    return costs(**free | alone | changes)
