"""Whether p-values are valid on normal images: at most a share alpha of them has p <= alpha."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.data.arrays import Array
from training.evaluation.tables import table
from training.metrics.detection import detection_rate, false_positive_band

ALPHAS = (0.001, 0.01, 0.05, 0.10)
QUANTILE = 1.358  # of Kolmogorov's distribution, at 95 % (N. Smirnov, 1948)


class Rate(NamedTuple):
    """A false-positive rate, and the band that contains the rate of a valid scorer in 999 of 1,000 test sets."""

    alpha: float
    rate: float
    low: float
    high: float


class Validity(NamedTuple):
    """Rates at each alpha, and how far the p-values are from uniform.

    Args:
        rates: one for each of ALPHAS.
        distance: the Kolmogorov-Smirnov distance, the largest difference of the share of p-values below x from x.
        bound: for a valid scorer, the distance is below this on 19 of 20 test sets.
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
            table(("alpha", "normal images with p <= alpha", "99.9 % band of a valid scorer", "inside"), rows),
            f"Kolmogorov-Smirnov distance of the p-values from the uniform distribution: {self.distance:.4f}. For a "
            f"valid scorer it is below {self.bound:.4f} on 19 of 20 test sets.",
        ])  # fmt: skip


def validity(p_values: Array, calibration: int) -> Validity:
    """The validity of the p-values [N] of normal test images, which are ranks among `calibration` scores.

    Because a conformal p-value is a rank, its distance from uniform is the distance of two samples, calibration scores
    and test scores. So both sizes are in the bound.
    """
    size = len(p_values)
    rates = tuple(
        Rate(alpha, detection_rate(p_values, alpha), *false_positive_band(alpha, calibration, size)) for alpha in ALPHAS
    )
    ordered = np.sort(p_values.astype(np.float64))
    steps = np.arange(size + 1) / size
    distance = max(float((steps[1:] - ordered).max()), float((ordered - steps[:-1]).max()))
    return Validity(rates, distance, QUANTILE * float(np.sqrt(1 / calibration + 1 / size)))


def _verdict(rate: Rate) -> str:
    return "yes" if rate.low <= rate.rate <= rate.high else "**no**"
