"""Does the p-value keep its promise on normal images: at most a share alpha of them has p <= alpha?"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.evaluation.anomalies.separation import found
from training.evaluation.gates import false_positive_band
from training.evaluation.runtime import Array
from training.evaluation.tables import table

ALPHAS = (0.001, 0.01, 0.05, 0.10)
QUANTILE = 1.358  # of Kolmogorov's distribution, at 95 % (N. Smirnov, 1948)


class Rate(NamedTuple):
    """A false-positive rate, and the band that a valid scorer leaves once in a thousand test sets."""

    alpha: float
    rate: float
    low: float
    high: float


class Validity(NamedTuple):
    """Rates at each alpha, and how far the p-values are from uniform.

    Args:
        rates: one for each of ALPHAS.
        distance: Kolmogorov and Smirnov's, the largest difference of the p-values' share below x from x.
        bound: what the distance stays below on 19 of 20 test sets, for a valid scorer.
    """

    rates: tuple[Rate, ...]
    distance: float
    bound: float

    def markdown(self) -> str:
        rows = [
            (f"{rate.alpha:.1%}", f"{rate.rate:.2%}", f"{rate.low:.2%} to {rate.high:.2%}", _verdict(rate))
            for rate in self.rates
        ]
        return "\n\n".join([
            table(("alpha", "normal images at p <= alpha", "a valid scorer's 99.9 % band", "inside"), rows),
            f"Kolmogorov-Smirnov distance of the p-values from uniform: {self.distance:.4f}; a valid scorer stays "
            f"below {self.bound:.4f} on 19 of 20 test sets.",
        ])  # fmt: skip


def validity(p_values: Array, calibration: int) -> Validity:
    """Of the p-values [N] of normal test images, each the rank among `calibration` scores.

    A conformal p-value is a rank, so that its distance from uniform is that of two samples, the calibration scores and
    the test scores: both sizes are in the bound.
    """
    size = len(p_values)
    rates = tuple(
        Rate(alpha, found(p_values, alpha), *false_positive_band(alpha, calibration, size)) for alpha in ALPHAS
    )
    ordered = np.sort(p_values.astype(np.float64))
    steps = np.arange(size + 1) / size
    distance = max(float((steps[1:] - ordered).max()), float((ordered - steps[:-1]).max()))
    return Validity(rates, distance, QUANTILE * float(np.sqrt(1 / calibration + 1 / size)))


def _verdict(rate: Rate) -> str:
    return "yes" if rate.low <= rate.rate <= rate.high else "**no**"
