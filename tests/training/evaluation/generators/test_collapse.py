from __future__ import annotations

import numpy as np
import pytest

from tests.training.conftest import Published
from training.evaluation.generators.collapse import CollapseMonitor
from training.metrics.samples import collapsed

pytestmark = pytest.mark.slow


@pytest.fixture
def monitor(published: Published) -> CollapseMonitor:
    return CollapseMonitor(published.dataset, published.classifier)


def drawn(published: Published, labels: np.ndarray, *, vary: bool) -> np.ndarray:
    """Test images of the classes asked for: a perfect generator, or one that draws one image a class."""
    test = published.dataset.test
    assert test.labels is not None
    rows = [np.flatnonzero(test.labels == label) for label in range(10)]
    return np.stack(
        [test.images[rows[label][i // 10 % len(rows[label]) if vary else 0]] for i, label in enumerate(labels)]
    )


def test_real_images_are_no_collapse(published: Published, monitor: CollapseMonitor) -> None:
    seen = monitor(drawn(published, monitor.labels, vary=True))
    assert not collapsed(seen)
    assert seen["conditional_accuracy"] > 0.9
    assert seen["coverage_ratio"] > 0.8


def test_one_image_a_class_is_a_collapse_however_right(published: Published, monitor: CollapseMonitor) -> None:
    seen = monitor(drawn(published, monitor.labels, vary=False))
    assert seen["conditional_accuracy"] > 0.9
    assert collapsed(seen)


def test_noise_is_a_collapse(monitor: CollapseMonitor) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (len(monitor.labels), 1, 28, 28), dtype=np.uint8)
    assert collapsed(monitor(noise))
