"""Counts of a slice, and that those of several processes add up to the counts of one."""

from __future__ import annotations

import numpy as np

from services.inference.drift.detector import Drift
from services.inference.drift.events import Events
from services.inference.drift.slice import Slice

EVENTS = Events(300, (200, 100), 0.02)


def test_images_are_counted_by_client_cell_and_class() -> None:
    counted = Slice(EVENTS)
    counted.count("a", [1 / 301, 0.9, 0.1], [0, 1, 1], [0, 1], 3)
    counted.count("a", [1.0], [0], [0], 1)
    counted.count("b", [0.4], [1], [], 1)
    assert counted.counts == {"a": [1, 0, 0, 0, 2, 2, 1]}
    assert (counted.images, counted.repeats) == (5, 2)


def test_a_p_value_of_exactly_a_level_is_below_it_in_float32_too() -> None:
    counted = Slice(Events(300, (), 0))
    values = [float(np.float32(k / 301)) for k in (3, 4, 15, 16)]
    counted.count("a", values, None, range(4), 4)
    assert counted.counts == {"a": [1, 2, 1, 0, 0]}


def test_two_processes_are_as_one() -> None:
    random = np.random.default_rng(0)
    whole = Drift("whole", 300, (200, 100), ("x", "y"))
    shared = Drift("shared", 300, (200, 100), ("x", "y"))
    for number in range(40):
        everything, parts = Slice(whole.events), [Slice(whole.events), Slice(whole.events)]
        for request in range(6):
            name = f"client-{request % 3}"
            whole.clients.of(name.encode(), number)
            shared.clients.of(name.encode(), number)
            arguments = random.random(4).tolist(), random.integers(0, 2, 4).tolist(), range(3), 4
            everything.count(name, *arguments)
            parts[request % 2].count(name, *arguments)
        parts[0].add(parts[1])
        whole.take(everything, number)
        shared.take(parts[0], number)
    assert shared.evidence() == whole.evidence()
    assert shared.rates() == whole.rates()
    assert shared.repeats == whole.repeats == 0.25
    assert whole.slices == 40


def test_a_client_that_has_no_stream_here_votes_with_the_rest() -> None:
    drift = Drift("one", 300)
    counted = Slice(drift.events)
    counted.count("elsewhere", [1.0], None, [0], 1)
    counted.count("*", [1 / 301], None, [0], 1)
    drift.take(counted, 0.0)
    assert drift.rates()["rate"][0].observed == 0.5
