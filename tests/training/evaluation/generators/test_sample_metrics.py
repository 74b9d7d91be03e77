from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from training.data import Dataset, Split
from training.evaluation.generators import judge, sample_metrics
from training.evaluation.generators.sample_metrics import gan_metrics
from training.graphs.inference import balanced_labels, sample
from training.metrics.samples import Features, total_variation

if TYPE_CHECKING:
    from conftest import Published


def test_total_variation() -> None:
    balanced = np.array([0, 0, 1, 1], np.int64)
    assert total_variation(balanced, balanced, 3) == 0
    assert total_variation(np.array([2, 2, 2, 2], np.int64), balanced, 3) == 1
    assert total_variation(np.array([0, 0, 0, 1], np.int64), balanced, 3) == pytest.approx(0.25)


def test_a_perfect_generator_covers_as_much_as_real_images_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its images are of the data's distribution. There are 1,000 samples and 300 test images: coverage grows with the
    count, so as many samples as test images are compared."""
    generator = np.random.default_rng(0)

    def images(count: int) -> np.ndarray:
        return generator.integers(0, 256, (count, 1, 2, 3), dtype=np.uint8)

    def split(count: int) -> Split:
        return Split(images(count), np.arange(count) % 2)

    data = Dataset("noise", ("0", "1"), split(1200), split(300), split(300), split(300))

    def look(given: np.ndarray) -> Features:
        features = given.reshape(len(given), -1).astype(np.float32)
        return Features(features, np.full((len(given), 2), 0.5, np.float32))

    monkeypatch.setattr(sample_metrics, "sample", lambda bundle, count, labels, seed: images(count))
    monkeypatch.setattr(judge, "judge_of", lambda bundle: look)
    inputs = [SimpleNamespace(name="labels")]
    bundle: Any = SimpleNamespace(
        manifest=SimpleNamespace(graphs={"decode": SimpleNamespace(inputs=inputs)}, class_names=data.class_names)
    )
    metrics = gan_metrics(bundle, data.train, data.test, bundle)
    assert metrics["coverage_ratio"] == pytest.approx(1, abs=0.07)
    assert metrics["recall_ratio"] == pytest.approx(1, abs=0.07)


@pytest.mark.slow
def test_samples_depend_on_the_seed_alone(published: Published) -> None:
    samples = [sample(published.generator, 5, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    assert balanced_labels(published.generator, 5) is None
