from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from training.metrics.detection import detection_rate, separation

SCORES = st.lists(st.integers(-3, 3), min_size=1, max_size=30)


@given(normal=SCORES, anomalous=SCORES)
def test_auroc_is_that_of_scikit_learn_with_ties(normal: list[int], anomalous: list[int]) -> None:
    truth = np.repeat([0, 1], [len(normal), len(anomalous)])
    area, low, high = separation(np.array(normal), np.array(anomalous))
    assert area == pytest.approx(roc_auc_score(truth, normal + anomalous))
    assert 0 <= low <= high <= 1


def test_the_interval_is_the_bootstraps() -> None:
    """Against resampling one by one, with another generator: quantiles of 400 draws are themselves uncertain."""
    random = np.random.default_rng(0)
    normal, anomalous = random.normal(size=150), random.normal(1, size=60)
    _, low, high = separation(normal, anomalous)
    truth = np.repeat([0, 1], [150, 60])
    areas = [
        roc_auc_score(truth, np.concatenate([random.choice(normal, 150), random.choice(anomalous, 60)]))
        for _ in range(1000)
    ]
    assert (low, high) == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.015)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    """Two normal distributions one deviation apart have an AUROC of 0.7602."""
    random = np.random.default_rng(1)
    intervals = [separation(random.normal(size=100), random.normal(1, size=100), seed) for seed in range(200)]
    covered = np.mean([low <= 0.7602 <= high for _, low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_more_images_say_more_and_a_seed_repeats() -> None:
    random = np.random.default_rng(2)
    few, many = (separation(random.normal(size=n), random.normal(1, size=n)) for n in (50, 5000))
    assert many.high - many.low < (few.high - few.low) / 5
    scores = random.normal(size=40)
    assert separation(scores, scores + 1, seed=3) == separation(scores, scores + 1, seed=3)
    assert separation(scores, scores + 1, seed=3) != separation(scores, scores + 1, seed=4)
    assert separation(scores, scores + 100) == (1, 1, 1)


def test_alpha_is_compared_in_single_precision() -> None:
    """p = 1/100 in float32 lies below 0.01 in float64, and 1/20 above 0.05."""
    assert detection_rate(np.array([1, 2], np.float32) / np.float32(100)) == 0.5
    assert detection_rate(np.array([1, 2], np.float32) / np.float32(20), 0.05) == 0.5
