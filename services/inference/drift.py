"""Whether the images that a scorer is asked about still come from where its calibration images came: a sequential test.

Source: J. Shin, A. Ramdas, A. Rinaldo, "E-detectors: a nonparametric framework for sequential change detection", 2022:
Shiryaev-Roberts sums of e-values, averaged over bets.

Given its n calibration images a p-value is not quite uniform, so a test of uniformity would alarm in the end about
nothing. Every bet is therefore against a whole band of rates: "at most `high`" or "at least `low`", where the band has
what 99.9 % of calibration sets make of an undisturbed stream. A bet with stake s pays 1 + s (x / high - 1), or
1 + s ((1 - x) / (1 - low) - 1), for x = 1 if the event happened: in expectation at most 1 for any rate in the band.
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

LEVELS = (0.01, 0.05, 0.2, 0.5)  # the events: a p-value at or below
STAKES = (0.01, 0.05, 0.2, 0.6)  # of bets side by side: the best one depends on how much changes
MISSED = 0.001  # of calibration sets, whose bands are too narrow
ALARM = 1e8  # images, at least, to a false alarm on average; within m images there is one with probability m / ALARM
CLASSES = 100  # at most, for tables grow with their square, and among more no share is well known
BLOCK = 64  # images taken together: one alone would cost ten times as much
RARE = 0.001  # no band ends nearer to 0 or 1, so that a block of the highest pays, 601 each, stays finite ...
CEILING = 1e100  # ... on top of a sum as high as this

log = logging.getLogger("duet.drift")


@dataclass(frozen=True)
class Rate:
    """How often an event happened, how often it was expected to, and what counts as no change."""

    observed: float | None  # None before the first image
    expected: float
    low: float
    high: float


class Events:
    """Events in a stream of cells 0 to C - 1, and bets that each happens neither more nor less often than it may.

    Args:
        happens: bool [E,C]: which cells each event is made of.
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
        """Take the cells [N] of at most BLOCK images in turn: each adds 1 to every sum, then multiplies it."""
        self._counts += np.bincount(cells, minlength=len(self._counts))
        products = np.cumprod(self._pays[cells[::-1]], axis=0)  # of the last one, the last two, ...
        self._sums = np.minimum(products[-1] * self._sums + products.sum(axis=0), CEILING)

    @property
    def evidence(self) -> float:
        """The detector: a number whose mean is at most that of the images, unless something changed."""
        return float(self._sums.sum()) / max(1, len(self._sums))

    def rates(self) -> list[Rate]:
        seen = int(self._counts.sum())
        happened = self._happens @ self._counts
        return [
            Rate(int(n) / seen if seen else None, float(expected), float(low), float(high))
            for n, expected, low, high in zip(happened, self._expected, self._low, self._high, strict=True)
        ]


class Drift:
    """The stream of one model, from its loading on; an alarm stays.

    Args:
        name: of the model, for the log.
        size: calibration images.
        class_sizes: how many of them are predicted to be of each class; empty: the model predicts none. More than
            CLASSES are not watched.
    """

    def __init__(self, name: str, size: int, class_sizes: Sequence[int] = ()) -> None:
        ranks = np.array(sorted({rank(level, size) for level in LEVELS} - {0}), np.int64)
        bounds = [_band(k, size + 1 - k, 2 * len(ranks)) for k in ranks.tolist()]
        low, high = np.array(bounds).reshape(-1, 2).T
        self._name = name
        self._edges = (ranks + 0.5) / (size + 1)  # between two p-values, whatever their precision
        happens = np.arange(len(ranks) + 1) <= np.arange(len(ranks))[:, None]
        self._events = {"p_value": Events(happens, ranks / (size + 1), low, high)}
        if 0 < len(class_sizes) <= CLASSES:
            self._events["class"] = _classes(class_sizes)
        self._waiting: list[tuple[float, int]] = []
        self._taken = 0
        self._alarm_at: int | None = None

    def see(self, p_values: Sequence[float], labels: Sequence[int] | None = None) -> None:
        """Take the p-values and predicted classes of the images of a request; they are looked at in blocks."""
        self._waiting.extend(zip(p_values, labels or [0] * len(p_values), strict=True))
        if len(self._waiting) >= BLOCK:
            self._settle()

    @property
    def images(self) -> int:
        """Seen so far."""
        return self._taken + len(self._waiting)

    @property
    def alarm_at(self) -> int | None:
        """After how many images, up to a block, the alarm was raised; None: it was not."""
        self._settle()
        return self._alarm_at

    def evidence(self) -> dict[str, float]:
        """log10 of the detectors by kind, not below 0; their mean decides on the alarm."""
        return {kind: self._log10(kind) for kind in self._events}

    def rates(self) -> dict[str, list[Rate]]:
        """By kind: of p-values up to each of the levels, of the classes in turn."""
        self._settle()
        return {kind: events.rates() for kind, events in self._events.items()}

    def show(self) -> None:
        """Put it on the page of metrics, as it is whenever that is asked for."""
        for kind in self._events:
            metrics.DRIFT_EVIDENCE.labels(self._name, kind).set_function(partial(self._log10, kind))
        metrics.DRIFT_ALARM.labels(self._name).set_function(lambda: self.alarm_at is not None)

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
                    "drift: %d images after its start, what %s is asked about is not like its calibration images",
                    self._taken,
                    self._name,
                )
        self._waiting.clear()


def _classes(sizes: Sequence[int]) -> Events:
    """Events "predicted to be of class i", which `sizes` of the calibration images were.

    The bands are those of C. Clopper, E. Pearson, Biometrika 1934, for all classes at once.
    """
    total, sides = sum(sizes), 2 * len(sizes)
    low = [_band(n, total - n + 1, sides)[0] if n else 0.0 for n in sizes]
    high = [_band(n + 1, total - n, sides)[1] if n < total else 1.0 for n in sizes]
    return Events(np.eye(len(sizes), dtype=bool), np.array(sizes) / total, np.array(low), np.array(high))


def _band(a: int, b: int, sides: int) -> tuple[float, float]:
    """Where Beta(a, b) is, so that of so many sides of bands all hold with probability 1 - MISSED (Bonferroni)."""
    return beta_quantile(MISSED / sides, a, b), beta_quantile(1 - MISSED / sides, a, b)
