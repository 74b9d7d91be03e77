"""Verdicts from conformal p-values: thresholds, their guarantees, and many images at once.

With n calibration images and exchangeable continuous scores, p-values lie on the grid k / (n + 1). The probability that
a normal image has a p-value of at most k / (n + 1) depends on the n calibration images; over calibration sets it is
Beta(k, n + 1 - k) (V. Vovk, "Conditional validity of inductive conformal predictors", ACML 2012; S. Bates, E. Candès,
L. Lei, Y. Romano, M. Sesia, "Testing for outliers with conformal p-values", Annals of Statistics 2023).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from services.inference.beta import beta_below, beta_quantile

CONFIDENCE = 0.95
ROUNDING = 1e-9  # in floating point, 0.1 * 30 is slightly more than 3


def rank(alpha: float, size: int) -> int:
    """The k of the largest p-value k / (size + 1) that is at most `alpha`; 0 if there is none."""
    return math.floor(alpha * (size + 1) + ROUNDING)


@lru_cache(maxsize=1024)
def pac_rank(alpha: float, size: int) -> int:
    """The largest k for which the threshold k / (size + 1) has a rate of false alarms of at most `alpha`, with 95 %
    confidence.

    The confidence is over the draw of the calibration set: P(Beta(k, size + 1 - k) <= alpha). 0 if there is no such k.
    """
    low, high = 0, rank(alpha, size) + 1  # at the rank of alpha the confidence is only about one half
    while high - low > 1:
        middle = (low + high) // 2
        sure = middle <= size and beta_below(alpha, middle, size + 1 - middle) >= CONFIDENCE
        low, high = (middle, high) if sure else (low, middle)
    return low


def pac_size(alpha: float) -> int:
    """The smallest number of calibration images for which `pac_rank` is not 0."""
    return math.ceil(math.log(1 - CONFIDENCE) / math.log1p(-alpha))


def band(k: int, size: int) -> tuple[float, float]:
    """The rate of false alarms at the threshold k / (size + 1) for the central 95 % of calibration sets."""
    if k <= 0:
        return 0.0, 0.0
    tail = (1 - CONFIDENCE) / 2
    if k > size:
        return 1.0, 1.0
    return beta_quantile(tail, k, size + 1 - k), beta_quantile(1 - tail, k, size + 1 - k)


def benjamini_hochberg(p_values: np.ndarray, alpha: float) -> float:
    """The threshold for p-values [N]: of the p-values up to it, at most a share `alpha` is false, in expectation.

    Y. Benjamini, Y. Hochberg, JRSS B 1995; Bates et al. 2023 show that it holds for conformal p-values, which share
    their calibration set. The threshold is k alpha / N for the largest k with at least k p-values up to it, or 0.
    """
    count = len(p_values)
    levels = alpha * np.arange(1, count + 1) / count
    # In float32, the precision of the p-values, so that a p-value equal to the level counts.
    passed = np.flatnonzero(np.sort(p_values) <= levels.astype(p_values.dtype))
    return float(levels[passed[-1]]) if len(passed) else 0.0


def most_unusual(scores: np.ndarray, share: float) -> np.ndarray:
    """Which of the scores [N] are among the ceil(share N) highest: bool [N]; of equal scores, the first."""
    count = math.ceil(share * len(scores) - ROUNDING)
    chosen = np.zeros(len(scores), bool)
    chosen[np.argsort(-scores, kind="stable")[:count]] = True
    return chosen
