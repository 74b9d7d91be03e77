"""Whether other work on this machine disturbed a measurement; then it is made again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import psutil  # type: ignore[import-untyped]

T = TypeVar("T")

ALLOWED = 0.05  # of a core, used by other processes
PATIENCE = 10.0  # seconds to wait for them to end
TRIES = 3


@dataclass(frozen=True)
class Undisturbed(Generic[T]):
    """The try that was disturbed least; `others` is the share of one core that other processes used meanwhile."""

    result: T
    others: float


def least_disturbed(measure: Callable[[], tuple[T, float]]) -> Undisturbed[T]:
    """Measure until other processes hardly work meanwhile, a few times at most.

    Args:
        measure: returns a result, and the CPU seconds that the measurement itself used, in this process and others.
    """
    best: Undisturbed[T] | None = None
    for _ in range(TRIES):
        wait()
        begin, before = time.monotonic(), _busy()
        own = time.process_time()
        result, used = measure()
        used += time.process_time() - own
        found = Undisturbed(result, max(0.0, (_busy() - before - used) / (time.monotonic() - begin)))
        if best is None or found.others < best.others:
            best = found
        if best.others <= ALLOWED:
            break
    assert best is not None
    return best


def wait() -> None:
    """Until the processors are idle, for `PATIENCE` seconds at most."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        begin, before = time.monotonic(), _busy()
        time.sleep(0.3)
        if _busy() - before <= ALLOWED * (time.monotonic() - begin) + 1 / os.sysconf("SC_CLK_TCK"):
            return


def _busy() -> float:
    """CPU seconds that all processes have used."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)
