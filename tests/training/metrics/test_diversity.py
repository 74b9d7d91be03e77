from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist  # type: ignore[import-untyped]

from training.metrics.samples import collapsed, mean_distance, relative_diversity


def test_mean_distance_agrees_with_scipy() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 4, 4), dtype=np.uint8)
    assert mean_distance(images) == pytest.approx(pdist(images.reshape(20, -1).astype(float)).mean())


@pytest.mark.parametrize("labelled", [True, False])
def test_diversity_is_one_for_the_data_and_zero_for_a_collapse(labelled: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (200, 1, 4, 4), dtype=np.uint8)
    labels = np.arange(200, dtype=np.int64) % 2 if labelled else None
    assert relative_diversity(images, labels, images, labels) == pytest.approx(1)
    # two different images, one a class: a collapse, though not all samples are equal
    collapsed = images[np.zeros(200, np.int64) if labels is None else labels]
    assert relative_diversity(collapsed, labels, images, labels) == pytest.approx(0, abs=1e-6)


def test_diversity_of_features_is_that_of_other_draws_of_the_data() -> None:
    rng, wanted = np.random.default_rng(0), np.arange(400) % 4
    real, others = rng.standard_normal((400, 8)), rng.standard_normal((400, 8))
    assert relative_diversity(others, wanted, real, wanted) == pytest.approx(1, abs=0.05)
    assert relative_diversity(others[wanted], wanted, real, wanted) == pytest.approx(0, abs=1e-3)


@pytest.mark.parametrize(
    ("metric", "value"), [("coverage_ratio", 0.49), ("relative_diversity", 0.49), ("near_duplicates", 0.21)]
)
def test_one_bad_sign_is_enough_for_a_collapse(metric: str, value: float) -> None:
    fine = {"coverage_ratio": 0.5, "relative_diversity": 0.5, "near_duplicates": 0.2}
    assert not collapsed(fine)
    assert collapsed(fine | {metric: value})
