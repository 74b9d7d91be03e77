"""Streams of one test of drift, slice by slice on a clock that the program sets."""

from __future__ import annotations

from typing import Any

import numpy as np

from loadtests.bench.drift_source import Source
from services.inference.drift.detector import SLICE_SECONDS

IMAGES = 8  # a slice, of each client
BEFORE, BEFORE_SHARE = 256, 0.01  # slices before a change, and the share of anomalies in them
PATIENCE = 4000  # slices after, when a run is given up
CLIENTS = 50


class Clock:
    """A stream of one test, slice by slice."""

    def __init__(self, source: Source, seed: int) -> None:
        self.source, self.drift, self.random = source, source.drift(), np.random.default_rng([3, seed])
        self.slice = self.images = 0

    def send(self, images: int, share: float, client: int | None = None) -> None:
        drawn = self.source.draw(self.random, images, share)
        name = None if client is None else b"client-%d" % client
        marks = range(self.images, self.images + images)  # images that are all different
        self.images += images
        self.drift.see(*drawn, marks, self.slice * SLICE_SECONDS, name)

    def tick(self) -> None:
        self.slice += 1
        self.drift.settle(self.slice * SLICE_SECONDS)


def ends(sources: list[Source], share: float, lasts: int) -> dict[str, Any]:
    """Whether an alarm lasts as long as the change, and ends after it."""
    early, after, back = 0, [], 0
    for seed, source in enumerate(sources):
        run = Clock(source, seed)
        for number in range(BEFORE + lasts + PATIENCE):
            changed = BEFORE <= number < BEFORE + lasts
            run.send(IMAGES, share if changed else BEFORE_SHARE)
            run.tick()
            if number >= BEFORE + lasts and not run.drift.alarms.active:
                break
        turned_back = (BEFORE + lasts) * SLICE_SECONDS
        early += any(alarm.ended is not None and alarm.ended <= turned_back for alarm in run.drift.alarms.all)
        after.append(number + 1 - BEFORE - lasts)
        back += run.drift.alarms.active is not None
    return {
        "calibration_size": sources[0].size,
        "share": share,
        "runs": len(sources),
        "slices_of_change": lasts,
        "alarms_that_ended_before_the_change": early,
        "slices_to_the_end": {"median": float(np.median(after)), "most": max(after)},
        "without_end": back,
    }


def some_clients(sources: list[Source], strange: int, slices: int) -> dict[str, Any]:
    """What some wholly strange clients do among others that send eight images a slice each too."""
    found, named = [], 0
    for seed, source in enumerate(sources):
        run = Clock(source, 100 + seed)
        for number in range(slices):
            for client in range(CLIENTS):
                run.send(IMAGES, float(client < strange), client)
            run.tick()
            if run.drift.alarms.all:
                found.append(number + 1)
                named += set(run.drift.alarms.all[0].clients) == {f"client-{client}" for client in range(strange)}
                break
    return {
        "calibration_size": sources[0].size,
        "strange_clients": strange,
        "clients": CLIENTS,
        "runs": len(sources),
        "slices": slices,
        "alarms": len(found),
        "slices_to_the_alarm": {"median": float(np.median(found)), "most": max(found)} if found else None,
        "alarms_that_name_exactly_them": named,
    }


def bursts(source: Source, images: int, over: int, slices: int) -> dict[str, Any]:
    """What uploads of anomalies do, by the only client, beside eight normal images a slice; they take 1 % of slices."""
    run = Clock(source, images)
    for number in range(slices):
        run.send(IMAGES, 0.0)
        if number % (100 * over) < over:
            run.send(images // over, 1.0)
        run.tick()
    return {"images": images, "over_slices": over, "slices": slices, "alarms": len(run.drift.alarms.all)}


def two_clients(source: Source, runs: int) -> dict[str, Any]:
    """Two clients with eight images a slice each; the second turns to strange images only."""
    alarms, found = [], []
    for seed in range(runs):
        run = Clock(source, 200 + seed)
        while not run.drift.alarms.all and run.slice < BEFORE + PATIENCE:
            run.send(IMAGES, 0.0, 1)
            run.send(IMAGES, float(run.slice >= BEFORE), 2)
            run.tick()
        found.append(run.slice - BEFORE)
        alarms += list(run.drift.alarms.all)
    return {
        "runs": runs,
        "alarms": len(alarms),
        "slices_to_the_alarm": {"median": float(np.median(found)), "least": min(found), "most": max(found)},
        "alarms_that_name_exactly_the_second": sum(alarm.clients == ["client-2"] for alarm in alarms),
    }
