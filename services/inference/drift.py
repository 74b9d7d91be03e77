"""A sequential test of whether the scored images still have the distribution of the calibration images.

Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2022:
Shiryaev-Roberts sums of e-values, averaged over bets.

For a given set of n calibration images p-values are not exactly uniform, so a test of uniformity would raise a false
alarm after enough images. Every bet is therefore against a band of rates: "at most `high`" or "at least `low`". The
band contains the rates of unchanged streams for 99.9 % of calibration sets. A bet with stake s pays
1 + s (x / high - 1), or 1 + s ((1 - x) / (1 - low) - 1), with x = 1 if the event happened: in expectation at most 1 for
every rate in the band.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from services.inference.beta import beta_quantile
from services.inference.conformal import rank
from services.telemetry import metrics

LEVELS = (0.01, 0.05, 0.2, 0.5)  # the events: a p-value of at most this level
STAKES = (0.01, 0.05, 0.2, 0.6)  # of parallel bets: the best stake depends on the size of the change
MISSED = 0.001  # share of calibration sets whose true rate is outside the band
ALARM = 1e8  # least mean number of images to a false alarm; within m images its probability is at most m / ALARM
CLASSES = 100  # with more classes the test ignores them: tables grow with the square, and shares are too uncertain
BLOCK = 64  # images that are processed together: single images would cost ten times as much each
RARE = 0.001  # bands keep this distance from 0 and 1, so that a block of the highest pays (601 each) stays finite,
CEILING = 1e100  # even after a sum as large as this

log = logging.getLogger("duet.drift")


@dataclass(frozen=True)
class Rate:
    """The observed and the expected rate of an event, and the band of rates that counts as no change."""

    observed: float | None  # None before the first image
    expected: float
    low: float
    high: float


class Events:
    """Events in a stream of cells 0 to C - 1, and bets that the rate of each event leaves its band.

    Args:
        happens: bool [E,C]: the cells in which each event happens.
        expected: rates [E].
        low, high: the bands [E].
    """

    def __init__(self, happens: np.ndarray, expected: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        self._happens, self._expected, self._low, self._high = happens, expected, low, high
        up = happens / np.maximum(high, RARE)[:, None] - 1
        down = ~happens / np.maximum(1 - low, RARE)[:, None] - 1
        gains = np.concatenate([up, down])
        self._pays = 1 + np.concatenate([stake * gains for stake in STAKES]).T  # [C, bets]
        self._sums = np.zeros(self._pays.shape[1])
        self._counts = np.zeros(happens.shape[1], np.int64)

    def see(self, cells: np.ndarray) -> None:
        """Process the cells [N] of at most BLOCK images in order: each adds 1 to every sum, then multiplies it."""
        self._counts += np.bincount(cells, minlength=len(self._counts))
        products = np.cumprod(self._pays[cells[::-1]], axis=0)  # of the last image, the last two images, ...
        self._sums = np.minimum(products[-1] * self._sums + products.sum(axis=0), CEILING)

    @property
    def evidence(self) -> float:
        """The detector: without a change, its mean is at most the number of images."""
        return float(self._sums.sum()) / max(1, len(self._sums))

    def rates(self) -> list[Rate]:
        seen = int(self._counts.sum())
        happened = self._happens @ self._counts
        return [
            Rate(int(n) / seen if seen else None, float(expected), float(low), float(high))
            for n, expected, low, high in zip(happened, self._expected, self._low, self._high, strict=True)
        ]


class Drift:
    """The drift test of one model, from the time it is loaded; an alarm stays on.

    Args:
        name: the model's name, for the log.
        size: number of calibration images.
        class_sizes: number of calibration images predicted as each class; empty: the model predicts no classes. More
            than CLASSES classes are ignored.
    """

    def __init__(self, name: str, size: int, class_sizes: Sequence[int] = ()) -> None:
        ranks = np.array(sorted({rank(level, size) for level in LEVELS} - {0}), np.int64)
        bounds = [_band(k, size + 1 - k, 2 * len(ranks)) for k in ranks.tolist()]
        low, high = np.array(bounds).reshape(-1, 2).T
        self._name = name
        self._edges = (ranks + 0.5) / (size + 1)  # halfway between two p-values, so that rounding is harmless
        happens = np.arange(len(ranks) + 1) <= np.arange(len(ranks))[:, None]
        self._events = {"p_value": Events(happens, ranks / (size + 1), low, high)}
        if 0 < len(class_sizes) <= CLASSES:
            self._events["class"] = _classes(class_sizes)
        self._waiting: list[tuple[float, int]] = []
        self._taken = 0
        self._alarm_at: int | None = None

    def see(self, p_values: Sequence[float], labels: Sequence[int] | None = None) -> None:
        """Take the p-values and predicted classes of the images of a request; they are processed in blocks."""
        self._waiting.extend(zip(p_values, labels or [0] * len(p_values), strict=True))
        if len(self._waiting) >= BLOCK:
            self._settle()

    @property
    def images(self) -> int:
        """Number of images so far."""
        return self._taken + len(self._waiting)

    @property
    def alarm_at(self) -> int | None:
        """The number of images, to within a block, at which the alarm was raised; None if there is no alarm."""
        self._settle()
        return self._alarm_at

    def evidence(self) -> dict[str, float]:
        """log10 of the detectors by kind, at least 0; the mean of the detectors decides on the alarm."""
        return {kind: self._log10(kind) for kind in self._events}

    def rates(self) -> dict[str, list[Rate]]:
        """Rates by kind: of p-values up to each level, and of each class."""
        self._settle()
        return {kind: events.rates() for kind, events in self._events.items()}

    def show(self, version: str) -> None:
        """Register the metrics; they are computed when the page of metrics is read."""
        for kind in self._events:
            metrics.DRIFT_EVIDENCE.labels(self._name, version, kind).set_function(partial(self._log10, kind))
        metrics.DRIFT_ALARM.labels(self._name, version).set_function(lambda: self.alarm_at is not None)

    def _log10(self, kind: str) -> float:
        self._settle()
        return math.log10(max(1.0, self._events[kind].evidence))

    def _settle(self) -> None:
        for start in range(0, len(self._waiting), BLOCK):
            p_values, labels = map(np.array, zip(*self._waiting[start : start + BLOCK], strict=True))
            self._taken += len(p_values)
            self._events["p_value"].see(self._edges.searchsorted(p_values))
            if "class" in self._events:
                self._events["class"].see(labels)
            evidence = sum(events.evidence for events in self._events.values()) / len(self._events)
            if self._alarm_at is None and evidence >= ALARM:
                self._alarm_at = self._taken
                log.warning(
                    "drift: after %d images since its start, the images sent to %s differ from its calibration images",
                    self._taken,
                    self._name,
                )
        self._waiting.clear()


def _classes(sizes: Sequence[int]) -> Events:
    """Events "predicted as class i"; `sizes` are the numbers of calibration images predicted as each class.

    The bands are those of C. Clopper, E. Pearson, Biometrika 1934, for all classes at once.
    """
    total, sides = sum(sizes), 2 * len(sizes)
    low = [_band(n, total - n + 1, sides)[0] if n else 0.0 for n in sizes]
    high = [_band(n + 1, total - n, sides)[1] if n < total else 1.0 for n in sizes]
    return Events(np.eye(len(sizes), dtype=bool), np.array(sizes) / total, np.array(low), np.array(high))


def _band(a: int, b: int, sides: int) -> tuple[float, float]:
    """Bounds of Beta(a, b); with so many `sides` of bands, all hold with probability 1 - MISSED (Bonferroni)."""
    return beta_quantile(MISSED / sides, a, b), beta_quantile(1 - MISSED / sides, a, b)
