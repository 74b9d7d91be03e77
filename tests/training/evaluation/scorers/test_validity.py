from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import kstest

from training.evaluation.scorers.validity import ALPHAS, validity
from training.metrics.detection import false_positive_band

CALIBRATION = 500


def conformal(test: np.ndarray, calibration: np.ndarray) -> np.ndarray:
    return ((1 + (calibration >= test[:, None]).sum(axis=1)) / (1 + len(calibration))).astype(np.float32)


@pytest.mark.parametrize(("shift", "holds"), [(0.0, True), (1.0, False)])
def test_a_scorer_is_valid_on_what_it_was_calibrated_for_alone(shift: float, holds: bool) -> None:
    random = np.random.default_rng(0)
    p_values = conformal(random.normal(shift, size=2000), random.normal(size=CALIBRATION))
    result = validity(p_values, CALIBRATION)
    assert [rate.alpha for rate in result.rates] == list(ALPHAS)
    for rate in result.rates:
        assert rate.rate == (p_values <= np.float32(rate.alpha)).mean()
        assert (rate.low, rate.high) == false_positive_band(rate.alpha, CALIBRATION, 2000)
    assert all(rate.low <= rate.rate <= rate.high for rate in result.rates[1:]) == holds
    assert (result.distance < result.bound) == holds
    assert ("**no**" in result.markdown()) != holds


def test_the_distance_is_that_of_scipy() -> None:
    for seed in range(20):
        p_values = np.random.default_rng(seed).beta(1, 1 + seed / 5, size=50)
        assert validity(p_values, 100).distance == pytest.approx(kstest(p_values, "uniform").statistic)


def test_one_test_set_in_twenty_goes_beyond_the_bound() -> None:
    random = np.random.default_rng(1)
    beyond = []
    for _ in range(400):
        result = validity(conformal(random.normal(size=300), random.normal(size=200)), 200)
        beyond.append(result.distance > result.bound)
    assert 0.02 <= np.mean(beyond) <= 0.08
