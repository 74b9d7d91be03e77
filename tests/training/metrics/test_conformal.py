from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from training.metrics.conformal import set_metrics, set_threshold


def drawn(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are too sure by far, and the labels: validity must not depend on them."""
    logits = generator.normal(size=(count, 4)) * 2
    cumulative = softmax(logits / 3, axis=1).cumsum(axis=1)
    labels = (generator.random((count, 1)) > cumulative).sum(axis=1).clip(0, 3)
    return softmax(logits, axis=1).astype(np.float32), labels


def test_threshold_by_hand() -> None:
    """Of nine true-class probabilities the ninth largest, as ceil(10 * 0.9) = 9; at 0.8 the eighth."""
    of_label = np.array([0.3, 0.9, 0.4, 0.8, 0.6, 0.7, 0.5, 0.95, 0.2], np.float32)
    probabilities = np.column_stack([of_label, 1 - of_label])
    labels = np.zeros(9, np.int64)
    assert set_threshold(probabilities, labels, 0.9) == np.float32(0.2)
    assert set_threshold(probabilities, labels, 0.8) == np.float32(0.3)


@pytest.mark.parametrize(("count", "finite"), [(18, False), (19, True)])
def test_too_few_images_put_every_class_into_every_set(count: int, finite: bool) -> None:
    probabilities = np.full((count, 2), 0.5, np.float32)
    assert set_threshold(probabilities, np.zeros(count, np.int64), 0.95) == (0.5 if finite else 0.0)


@pytest.mark.parametrize(("size", "coverage"), [(19, 0.95), (60, 0.9), (136, 0.95)])
def test_coverage_over_many_calibrations_is_the_stated_one(size: int, coverage: float) -> None:
    """On average over calibration sets it is at least the stated one, and at most 1 / (n + 1) more."""
    generator = np.random.default_rng(0)
    rates = []
    for _ in range(1000):
        threshold = set_threshold(*drawn(generator, size), coverage)
        probabilities, labels = drawn(generator, 200)
        rates.append(set_metrics(probabilities >= np.float32(threshold), labels)["measured_coverage"])
    error = 4 * np.std(rates) / np.sqrt(len(rates))
    assert coverage - error <= np.mean(rates) <= coverage + 1 / (size + 1) + error


def test_metrics_by_hand() -> None:
    sets = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0], [1, 0, 0]], np.uint8)
    assert set_metrics(sets, np.array([1, 0, 2, 0])) == {
        "measured_coverage": 0.5,
        "mean_set_size": 1.0,
        "empty_sets": 0.25,
    }
