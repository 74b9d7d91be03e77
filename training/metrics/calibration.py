"""How well probabilities are calibrated, and the temperature that calibrates them."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import rankdata

from training.data.arrays import Array, philox

BINS = 15
RESAMPLES = 1000
HOTTEST = 20.0
PRIOR = 0.5  # standard deviation of the prior of log T


def fit_temperature(logits: Array, labels: NDArray[np.int64]) -> float:
    """The temperature T whose probabilities softmax(logits / T) have the smallest NLL (Guo et al., 2017, section 4.2).

    A weak prior, log T normal around 0, keeps T above 0 if the network is right on every image, which can happen on a
    small split. With a thousand images its effect is small.

    Args:
        logits: [n,K], of images that the network was not trained on.
        labels: int64 [n].
    """
    z = logits.astype(np.float64)
    of_label = z[np.arange(len(labels)), labels]

    def slope(log_t: float) -> float:
        """The derivative of total NLL and prior by log T."""
        expected = (softmax(z / math.exp(log_t), axis=1) * z).sum(axis=1)
        return float((of_label - expected).sum()) / math.exp(log_t) + log_t / PRIOR**2

    low, high = -math.log(HOTTEST), math.log(HOTTEST)
    for _ in range(50):  # bisection, to beyond double precision
        middle = (low + high) / 2
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return math.exp((low + high) / 2)


def negative_log_likelihood(probabilities: Array, labels: NDArray[np.int64]) -> float:
    """Mean of -log p(label) in nats; a probability of 0 counts as the smallest float32."""
    return float(_surprise(probabilities, labels).mean())


def brier_score(probabilities: Array, labels: NDArray[np.int64]) -> float:
    """Mean squared distance of the probabilities from the one-hot label, 0 to 2 (G. W. Brier, 1950)."""
    return float(_squares(probabilities, labels).mean())


def expected_calibration_error(
    probabilities: Array, labels: NDArray[np.int64], bins: int = BINS, *, equal_mass: bool = False
) -> float:
    """ECE: the mean gap between confidence and accuracy over bins (Guo et al., 2017, eq. 3).

    The bins have equal width, or equally many images (K. Nguyen, B. O'Connor, EMNLP 2015, section 3).
    """
    confidence, correct = _top(probabilities, labels)
    gaps = np.bincount(_bins(confidence, bins, equal_mass), weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))


class Reliability(NamedTuple):
    """For each non-empty bin of equal width: the mean confidence, accuracy and number of its images."""

    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    images: NDArray[np.int64]


def reliability(probabilities: Array, labels: NDArray[np.int64], bins: int = BINS) -> Reliability:
    confidence, correct = _top(probabilities, labels)
    bin_of = _bins(confidence, bins, False)
    count = np.bincount(bin_of, minlength=bins)
    some = count > 0
    sums = (np.bincount(bin_of, weights=values, minlength=bins)[some] for values in (confidence, correct))
    mean_confidence, accuracy = (total / count[some] for total in sums)
    return Reliability(mean_confidence, accuracy, count[some])


def intervals(probabilities: Array, labels: NDArray[np.int64]) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of accuracy, NLL, Brier score and both ECEs.

    Basic intervals (A. C. Davison, D. V. Hinkley, 1997, section 5.2.1) of 1,000 resamples: the ECE of a resample is
    larger than that of the sample, because noise adds to every gap, and basic intervals correct for that. With some
    hundred images the ECE itself is too large, so its interval contains the true value in about four of five cases.
    Bins are those of the sample.
    """
    confidence, correct = _top(probabilities, labels)
    gap = (correct - confidence)[:, None]
    columns = [correct, _surprise(probabilities, labels), _squares(probabilities, labels)]
    in_bin = [np.eye(BINS)[_bins(confidence, BINS, equal_mass)] * gap for equal_mass in (False, True)]
    terms = np.column_stack([*columns, *in_bin])

    def of(mean: Array) -> Array:
        return np.array([*mean[:3], np.abs(mean[3 : 3 + BINS]).sum(), np.abs(mean[3 + BINS :]).sum()])

    size = len(labels)
    generator = philox(0)
    draws = [np.bincount(generator.integers(size, size=size), minlength=size) @ terms for _ in range(RESAMPLES)]
    low, high = np.quantile([of(draw / size) for draw in draws], [0.025, 0.975], axis=0)
    estimate = of(terms.mean(axis=0))
    names = ("accuracy", "nll", "brier", "ece_15", "ece_15_equal_mass")
    bounds = zip(np.maximum(2 * estimate - high, 0), 2 * estimate - low, strict=True)
    found = {name: (float(first), float(last)) for name, (first, last) in zip(names, bounds, strict=True)}
    return found | {"accuracy": (found["accuracy"][0], min(1.0, found["accuracy"][1]))}


def _top(probabilities: Array, labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The confidence in each predicted class, and 1 if that class is right, else 0."""
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    return probabilities.max(axis=1).astype(np.float64), correct


def _bins(confidence: NDArray[np.float64], bins: int, equal_mass: bool) -> NDArray[np.int64]:
    """The bin of each confidence; bins of equal width are half open: (low, high]."""
    if not equal_mass:
        return np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    place = rankdata(confidence, method="ordinal").astype(np.int64) - 1
    return np.asarray(place * bins // len(confidence))


def _surprise(probabilities: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)))


def _squares(probabilities: Array, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    distance = probabilities.astype(np.float64)
    distance[np.arange(len(labels)), labels] -= 1
    return np.asarray(np.square(distance).sum(axis=1))
