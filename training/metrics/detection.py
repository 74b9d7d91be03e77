"""How well scores separate anomalies from normal images: AUROC with its interval, and the share found at a level."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score

from training.data.arrays import Array, philox

RESAMPLES = 400
ALPHA = 0.01


class Separation(NamedTuple):
    """An AUROC and its 95 % bootstrap interval."""

    auroc: float
    low: float
    high: float


def separation(normal: Array, anomalous: Array, seed: int = 0) -> Separation:
    """The probability that an anomaly scores above a normal image, ties counting half, and its interval.

    The interval contains the middle 95 % of 400 resamples of both (percentile bootstrap; B. Efron, R. J. Tibshirani,
    1993, section 13.3). If the scores do not overlap, the interval is a single point.

    Args:
        normal: scores [N].
        anomalous: scores [M].
        seed: of the resamples.
    """
    places = np.unique(np.concatenate([normal, anomalous]), return_inverse=True)[1]
    size = int(places.max()) + 1
    below, above = places[: len(normal)], places[len(normal) :]
    generator = philox(seed)

    def resampled(group: Array) -> Array:
        """How often each score was drawn, [RESAMPLES,size]."""
        drawn = group[generator.integers(len(group), size=(RESAMPLES, len(group)))]
        drawn += size * np.arange(RESAMPLES)[:, None]
        return np.bincount(drawn.ravel(), minlength=RESAMPLES * size).reshape(RESAMPLES, size)

    low, high = np.quantile(_auroc(resampled(below), resampled(above)), [0.025, 0.975])
    counts = (np.bincount(group, minlength=size)[None] for group in (below, above))
    return Separation(float(_auroc(*counts)[0]), float(low), float(high))


def detection_rate(p_values: Array, alpha: float = ALPHA) -> float:
    """The share of `p_values` [N] of at most `alpha`: true positives of anomalies, false ones of normal images."""
    # Compared in float32, like p_value: float32(0.05) is above 0.05.
    return float((p_values <= np.float32(alpha)).mean())


def _auroc(normal: Array, anomalous: Array) -> Array:
    """[R] of how many there are [R,K] of either at each of K scores in ascending order."""
    below = normal.cumsum(axis=1) - normal / 2
    pairs = normal.sum(axis=1) * anomalous.sum(axis=1)
    return np.asarray((anomalous * below).sum(axis=1) / pairs)


def auroc(normal: Array, anomalous: Array) -> float:
    """The probability that an anomaly scores above a normal image."""
    is_anomaly = np.repeat([0, 1], [len(normal), len(anomalous)])
    return float(roc_auc_score(is_anomaly, np.concatenate([normal, anomalous])))


BAND = 0.999  # a valid scorer misses this gate once in a thousand exports


def false_positive_band(alpha: float, calibration: int, others: int) -> tuple[float, float]:
    """The central 99.9 % range of the false-positive rate of a valid conformal p-value.

    With n calibration scores the rate is distributed as Beta(k, n + 1 - k), k = floor(alpha (n + 1)) (Vovk, 2012). So
    the count among m other images is beta-binomial, wider than the binomial because the calibration set is finite.
    """
    k = int(alpha * (calibration + 1) + 1e-9)
    if k == 0:
        return 0.0, 0.0
    count = np.arange(others)
    log_ratios = np.log((others - count) * (k + count)) - np.log((count + 1) * (calibration - k + others - count))
    log_masses = np.concatenate([[0.0], np.cumsum(log_ratios)])
    cumulative = np.cumsum(np.exp(log_masses - log_masses.max()))
    low, high = np.searchsorted(cumulative / cumulative[-1], [(1 - BAND) / 2, (1 + BAND) / 2])
    return int(low) / others, int(high) / others
