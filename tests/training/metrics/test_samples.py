from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from training.metrics.samples import (
    Features,
    class_metrics,
    distribution_metrics,
    frechet_distance,
    inception_score,
    memorisation,
    prdc,
)


def normal(seed: int, count: int = 400, width: int = 8, shift: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal((count, width)) + shift).astype(np.float32)


def seen(features: np.ndarray, classes: np.ndarray | None = None, confidence: float = 0.97) -> Features:
    classes = np.arange(len(features)) % 4 if classes is None else classes
    probabilities = np.full((len(features), 4), (1 - confidence) / 3, np.float32)
    probabilities[np.arange(len(features)), classes] = confidence
    return Features(features, probabilities)


@pytest.mark.nightly  # a quarter of a minute; the ones below say the same of few points
def test_equal_gaussians_of_a_thousand_dimensions_give_the_published_figures() -> None:
    # What the authors' package prints in its README, with five neighbours throughout.
    figures = prdc(normal(0, 10_000, 1000), normal(1, 10_000, 1000), neighbours=5)
    assert figures["precision"] == pytest.approx(0.477, abs=0.03)
    assert figures["recall"] == pytest.approx(0.471, abs=0.03)
    assert figures["density"] == pytest.approx(1.056, abs=0.04)
    assert figures["coverage"] == pytest.approx(0.974, abs=0.01)


def test_covering_by_hand() -> None:
    real = np.arange(10, dtype=np.float32)[:, None]  # the third neighbour of an inner point is 2 away, the fifth 3
    figures = prdc(np.array([[4.5], [4.6], [4.4], [4.55], [100.0]], np.float32), real)
    assert figures["precision"] == pytest.approx(0.8)
    assert figures["recall"] < 1
    # Within three of 4.5: 2, 3, 4, 5, 6, 7, and the border points whose fifth neighbour is further (0 and 1, 8 and 9).
    assert figures["coverage"] == pytest.approx(1.0, abs=0.21)


def test_a_collapse_is_precise_and_covers_nothing() -> None:
    real = normal(0)
    figures = prdc(np.repeat(real[:1], 400, axis=0) + 1e-3 * normal(1), real)
    assert figures["precision"] == 1
    assert figures["recall"] < 0.05
    assert figures["coverage"] < 0.1


def test_frechet_distance_is_that_of_the_moments() -> None:
    left, right = normal(0, shift=0.5), normal(1)
    covariances = [np.cov(points.astype(np.float64), rowvar=False) for points in (left, right)]
    means = [points.astype(np.float64).mean(axis=0) for points in (left, right)]
    expected = np.square(means[0] - means[1]).sum() + np.trace(
        covariances[0] + covariances[1] - 2 * sqrtm(covariances[0] @ covariances[1]).real
    )
    assert frechet_distance(seen(left), seen(right)) == pytest.approx(expected, rel=1e-5)


def test_distances_are_about_zero_for_the_same_distribution_and_grow_with_a_shift() -> None:
    near, far = (distribution_metrics(seen(normal(0, shift=shift)), seen(normal(1))) for shift in (0.0, 1.0))
    assert abs(near["kernel_distance"]) < 0.05 < far["kernel_distance"]
    assert near["frechet_distance"] < 0.3 < far["frechet_distance"]


def test_inception_score_is_the_number_of_classes_when_sure_and_one_when_not() -> None:
    assert inception_score(seen(normal(0), confidence=0.999999)) == pytest.approx(4, rel=1e-3)
    assert inception_score(seen(normal(0), confidence=0.25)) == pytest.approx(1, rel=1e-3)
    assert inception_score(seen(normal(0), np.zeros(400, np.int64))) == pytest.approx(1, rel=1e-3)


def test_class_metrics() -> None:
    wanted = np.arange(400) % 4
    judged = wanted.copy()
    judged[wanted == 0] = np.where(np.arange(100) < 10, 1, 0)
    metrics = class_metrics(seen(normal(0), judged), wanted)
    assert metrics["conditional_accuracy"] == pytest.approx(390 / 400)
    assert metrics["worst_class_accuracy"] == pytest.approx(0.9)
    assert metrics["class_total_variation"] == pytest.approx(10 / 400)


def images(seed: int, count: int = 300) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 6, 6), dtype=np.uint8)


def test_copies_of_training_images_are_seen() -> None:
    training, unseen = images(0), images(1)
    assert memorisation(images(2), training, unseen)["nearest_training_ratio"] == pytest.approx(1, abs=0.05)
    assert memorisation(training[::-1], training, unseen)["nearest_training_ratio"] < 0.01


def test_duplicates_are_seen() -> None:
    training, unseen = images(0), images(1)
    assert memorisation(images(2), training, unseen)["near_duplicates"] < 0.05
    assert memorisation(np.repeat(images(2, 100), 3, axis=0), training, unseen)["near_duplicates"] == 1
