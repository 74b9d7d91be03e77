"""The events that the drift test bets on, and the bands of rates that count as no change."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from services.inference.beta import beta_quantile
from services.inference.conformal import rank

LEVELS = (0.01, 0.05, 0.2, 0.5)  # the events: a p-value of at most this level
MISSED = 0.001  # share of calibration sets whose true rate is outside its band
CLASSES = 100  # with more classes the test ignores them: tables grow, and shares are too uncertain


class Events:
    """The events that a p-value is at most some level, and that an image is predicted as some class.

    For a given set of n calibration images p-values are not exactly uniform, and shares of classes are known with
    limited precision. The band of an event contains its rate for 99.9 % of calibration sets (for p-values by the beta
    distribution, see `conformal`; for classes by C. Clopper, E. Pearson, Biometrika 1934). It is then widened: a stream
    of which at most the share e is strange has rates in [(1 - e) low, high + e (1 - high)], whatever the strange images
    look like.

    Args:
        size: number of calibration images.
        class_sizes: number of calibration images predicted as each class; empty: the model predicts no classes. More
            than CLASSES classes are ignored.
        tolerated: the share e of images that may be strange.

    Attributes:
        kinds: the places of the events of each kind: `rate` (of p-values) and, with classes, `class`.
        expected, low, high: the rate of each event [E] and its band.
        edges: a p-value is in the cell of the number of edges below it; they are halfway between two p-values, so that
            rounding is harmless.
        cells: number of cells of p-values.
        width: number of counts of a stream: of images by cell, then by class.
    """

    def __init__(self, size: int, class_sizes: Sequence[int], tolerated: float) -> None:
        ranks = sorted({rank(level, size) for level in LEVELS} - {0})
        sizes = class_sizes if 0 < len(class_sizes) <= CLASSES else ()
        total = sum(sizes)
        bands = [_band(k, size + 1 - k, 2 * len(ranks)) for k in ranks] + _class_bands(sizes)
        expected = [k / (size + 1) for k in ranks] + [n / total for n in sizes]
        low, high = np.array(bands).reshape(-1, 2).T
        self.kinds = {"rate": slice(0, len(ranks))} | ({"class": slice(len(ranks), len(expected))} if sizes else {})
        self.expected, self.low, self.high = np.array(expected), (1 - tolerated) * low, high + tolerated * (1 - high)
        self.edges = [(k + 0.5) / (size + 1) for k in ranks]
        self.cells = len(ranks) + 1
        self.width = self.cells + len(sizes)

    def shares(self, counts: np.ndarray) -> np.ndarray:
        """The share of images in each event [S,E], from counts int [S,width] of streams that have images."""
        totals = counts[:, : self.cells].sum(axis=1, keepdims=True)
        happened = np.concatenate([counts[:, : self.cells - 1].cumsum(axis=1), counts[:, self.cells :]], axis=1)
        return np.asarray(happened / totals)


def _class_bands(sizes: Sequence[int]) -> list[tuple[float, float]]:
    total, sides = sum(sizes), 2 * len(sizes)
    return [
        (
            _band(n, total - n + 1, sides)[0] if n else 0.0,
            _band(n + 1, total - n, sides)[1] if n < total else 1.0,
        )
        for n in sizes
    ]


def _band(a: int, b: int, sides: int) -> tuple[float, float]:
    """Bounds of Beta(a, b); with so many `sides` of bands, all hold with probability 1 - MISSED (Bonferroni)."""
    return beta_quantile(MISSED / sides, a, b), beta_quantile(1 - MISSED / sides, a, b)
