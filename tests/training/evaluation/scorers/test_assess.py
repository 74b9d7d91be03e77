from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from training.data import load
from training.evaluation.scorers import assess
from training.evaluation.shifts.sets import ANOMALIES, simple_anomalies
from training.graphs.inference import score
from training.metrics.detection import auroc

if TYPE_CHECKING:
    from conftest import Published

KINDS = ["uniform_noise", "inverted", "patch_shuffled", "rotated_90", "blot"]


def test_auroc_by_hand() -> None:
    assert auroc(np.array([1.0, 2.0]), np.array([3.0, 4.0])) == 1
    assert auroc(np.array([3.0, 4.0]), np.array([1.0, 2.0])) == 0
    assert auroc(np.array([1.0, 3.0]), np.array([2.0, 4.0])) == 0.75
    assert auroc(np.array([1.0]), np.array([1.0])) == 0.5


def test_every_kind_keeps_shape_and_dtype_and_leaves_the_input_alone() -> None:
    images = load("digits").test.images[:50]
    before = images.copy()
    anomalies = simple_anomalies(images)
    assert list(anomalies) == list(ANOMALIES) == KINDS
    for made in anomalies.values():
        assert made.shape == images.shape
        assert made.dtype == np.uint8
        assert not np.array_equal(made, images)
    assert np.array_equal(images, before)


def test_anomalies_by_hand() -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 3, 28, 28), dtype=np.uint8)
    made = simple_anomalies(images)
    assert np.array_equal(made["inverted"].astype(int) + images, np.full(images.shape, 255))
    assert made["rotated_90"][0, 0, 0].tolist() == images[0, 0, :, -1].tolist()
    again = simple_anomalies(images)
    assert all(np.array_equal(made[kind], again[kind]) for kind in KINDS)


def test_images_that_are_not_square_are_not_rotated() -> None:
    assert list(simple_anomalies(np.zeros((2, 1, 8, 12), np.uint8))) == [k for k in KINDS if k != "rotated_90"]


@pytest.mark.slow
def test_metrics_of_a_trained_scorer(published: Published) -> None:
    images = published.dataset.test.images
    outputs = score(published.scorer, images)
    metrics = assess.metrics(published.scorer, images, outputs["p_value"], outputs["score"])
    assert metrics["false_positive_rate/0.05"] == np.mean([p <= np.float32(0.05) for p in outputs["p_value"]])
    assert metrics["auroc/uniform_noise"] > 0.95
    assert metrics["auroc/inverted"] > 0.95
    assert metrics == published.scorer.manifest.metrics


@pytest.mark.slow
def test_alpha_is_compared_in_single_precision(published: Published) -> None:
    """p = 1/20 in float32 lies above 0.05 in float64, and must still count as p <= 0.05."""
    p_values = np.array([1, 1, 1, 1], np.float32) / np.float32(20)
    images = published.dataset.test.images[:4]
    metrics = assess.metrics(published.scorer, images, p_values, np.arange(4, dtype=np.float32))
    assert metrics["false_positive_rate/0.05"] == 1
    assert metrics["false_positive_rate/0.01"] == 0
