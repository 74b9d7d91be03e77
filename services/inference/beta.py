"""The beta distribution, in plain arithmetic: the serving install has no SciPy.

Source: NIST Digital Library of Mathematical Functions, 8.17.4 and 8.17.22.
"""

from __future__ import annotations

import math
from functools import lru_cache

TINY = 1e-300  # in place of 0, which the continued fraction would divide by
CLOSE = 1e-15
HALVINGS = 60


def beta_below(x: float, a: float, b: float) -> float:
    """P(Beta(a, b) <= x), the regularised incomplete beta function; a and b are above 0, x is in 0..1.

    For whole numbers it is also P(Bin(a + b - 1, x) >= a).
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # beyond, the fraction converges slowly
        return 1 - beta_below(1 - x, b, a)
    front = a * math.log(x) + b * math.log1p(-x) - math.log(a)
    return math.exp(front + math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)) / _fraction(x, a, b)


def _fraction(x: float, a: float, b: float) -> float:
    """1 + d1/(1 + d2/(1 + ...)) of DLMF 8.17.22 by Lentz's method; about sqrt(max(a, b)) steps."""
    value = upper = 1.0
    lower = 0.0
    step, factor = 0, 0.0
    while abs(factor - 1) > CLOSE:
        step += 1
        m = step // 2
        if step % 2:
            d = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        else:
            d = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        lower = 1 / (1 + d * lower or TINY)
        upper = 1 + d / upper or TINY
        factor = upper * lower
        value *= factor
    return value


@lru_cache(maxsize=1024)
def beta_quantile(level: float, a: float, b: float) -> float:
    """The x that Beta(a, b) is below with probability `level`, to 1e-18."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if beta_below(middle, a, b) < level else (low, middle)
    return (low + high) / 2
