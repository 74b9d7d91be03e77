"""When requests are due, in seconds from the start."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def poisson(rate: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """Moments at random with a constant rate in requests a second, ascending."""
    return np.sort(random.uniform(0, seconds, random.poisson(rate * seconds)))


def varying(rate: Callable[[float], float], most: float, seconds: float, random: np.random.Generator) -> np.ndarray:
    """Moments at random with a rate that changes (thinning: Lewis and Shedler 1979).

    Args:
        rate: requests a second at a time.
        most: the highest rate.
        seconds: length.
        random: source.
    """
    drawn = poisson(most, seconds, random)
    kept = random.uniform(0, most, len(drawn)) < np.array([rate(moment) for moment in drawn.tolist()])
    return drawn[kept]


def spike(base: float, peak: float, begin: float, end: float) -> Callable[[float], float]:
    """The rate `peak` between two times, else `base`."""
    return lambda moment: peak if begin <= moment < end else base
