"""Interleaved rounds: every target is measured in every round, so that drift of the machine hits all alike.

Every other round goes in the reverse order, so that no target always follows the same one.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from loadtests.bench import rawloop, wrk
from loadtests.bench.interval import Interval, interval
from loadtests.bench.request import Request
from loadtests.bench.server import Server
from services.inference.bundle import Bundle

CONNECTIONS = 16
SETTLE = 0.2  # seconds after a measurement: wrk leaves requests behind that the server may still compute


@dataclass(frozen=True)
class Case:
    name: str
    server: Server
    request: Request


@dataclass(frozen=True)
class Figures:
    """Of one target in one round.

    Attributes:
        cpu_us: CPU time of all the server's processes, user and system, in microseconds a request.
        p50_ms: latency; None for a loop without a server.
    """

    images_per_second: float
    cpu_us: float
    p50_ms: float | None = None
    p99_ms: float | None = None


Round = dict[str, Figures]  # by target
Targets = Mapping[str, Callable[[], Figures]]


def served(case: Case, seconds: int) -> Figures:
    """Load a server with one request for so many seconds."""
    before = case.server.cpu_seconds()
    found = wrk.load(case.server, case.request, connections=CONNECTIONS, seconds=seconds)
    cpu = case.server.cpu_seconds() - before
    time.sleep(SETTLE)
    images = case.request.items * found.requests_per_second
    return Figures(images, 1e6 * cpu / found.requests, found.p50_ms, found.p99_ms)


def raw(model: Bundle, batch: int, seconds: float) -> Figures:
    """Run the graph in a loop without a server."""
    run = rawloop.measure(model, batch, seconds)
    return Figures(batch / run.mean, 1e6 * run.cpu)


def play(targets: Targets, count: int) -> list[Round]:
    """Measure every target in each of `count` rounds."""
    rounds = []
    for number in range(count):
        names = list(targets)[:: -1 if number % 2 else 1]
        found = {name: targets[name]() for name in names}
        rounds.append({name: found[name] for name in targets})
    return rounds


def ratios(rounds: list[Round], this: str, that: str, what: str = "images_per_second") -> list[float]:
    """One figure of two targets, divided within each round."""
    return [getattr(each[this], what) / getattr(each[that], what) for each in rounds]


def across(rounds: list[Round], name: str, what: str) -> Interval | None:
    """One figure of a target over the rounds; None where it has none."""
    values = [getattr(each[name], what) for each in rounds]
    return None if None in values else interval(values)
