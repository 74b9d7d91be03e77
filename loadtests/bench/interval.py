"""The median of a few rounds, and how far it may be from the true one."""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """`low` and `high` enclose the median of the distribution with the probability `coverage`."""

    median: float
    low: float
    high: float
    coverage: float

    def show(self, form: str = ",.0f") -> str:
        return f"{self.median:{form}} [{self.low:{form}}, {self.high:{form}}]"


def coverage(count: int, left_out: int) -> float:
    """How probably the median lies between two order statistics of `count` independent values.

    `left_out` values lie below the lower one, and as many above the upper one. The number of values below the median is
    binomial with probability 1/2, whatever the distribution is (Conover, Practical Nonparametric Statistics, 3.2).
    """
    return 1 - 2 * sum(math.comb(count, below) for below in range(left_out + 1)) / 2**count


def interval(values: Iterable[float]) -> Interval:
    """The narrowest symmetric pair of order statistics that covers the median in 95 % of all cases.

    Fewer than six values have no such pair: then it is the lowest and the highest value, and `coverage` is smaller.
    """
    ordered = sorted(values)
    left_out = 0
    while coverage(len(ordered), left_out + 1) >= LEVEL:
        left_out += 1
    low, high = ordered[left_out], ordered[-1 - left_out]
    return Interval(statistics.median(ordered), low, high, max(0.0, coverage(len(ordered), left_out)))
