from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]
from scipy.special import softmax  # type: ignore[import-untyped]
from sklearn.metrics import brier_score_loss

from training.metrics.calibration import (
    brier_score,
    expected_calibration_error,
    fit_temperature,
    intervals,
    negative_log_likelihood,
    reliability,
)


def drawn(count: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits [count,5] and labels drawn from softmax(logits / temperature, axis=1): calibrated at that temperature."""
    generator = np.random.default_rng(seed)
    logits = generator.normal(size=(count, 5)) * 3
    cumulative = softmax(logits / temperature, axis=1).cumsum(axis=1)
    labels = (generator.random((count, 1)) > cumulative).sum(axis=1)
    return logits.astype(np.float32), labels.clip(0, 4).astype(np.int64)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.5])
def test_the_true_temperature_is_found(temperature: float) -> None:
    logits, labels = drawn(20_000, temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.04)


def test_the_temperature_has_the_smallest_nll() -> None:
    logits, labels = drawn(5_000, 1.7)

    def nll(t: float) -> float:
        scaled = torch.from_numpy(logits).double() / t
        return torch.nn.functional.cross_entropy(scaled, torch.from_numpy(labels)).item()

    best = minimize_scalar(nll, bounds=(0.1, 10), method="bounded", options={"xatol": 1e-6}).x
    assert fit_temperature(logits, labels) == pytest.approx(best, rel=0.005)  # the prior's share


@pytest.mark.parametrize("count", [1, 30])
def test_a_network_without_errors_is_not_made_infinitely_sure(count: int) -> None:
    logits = np.tile(np.array([[4.0, 0.0, 0.0]], np.float32), (count, 1))
    temperature = fit_temperature(logits, np.zeros(count, np.int64))
    assert 0.4 < temperature < 1


def test_all_images_black_leave_the_temperature() -> None:
    """Equal logits say nothing about the temperature."""
    assert fit_temperature(np.zeros((20, 3), np.float32), np.arange(20) % 3) == pytest.approx(1)


def test_brier_by_hand_and_by_scikit_learn() -> None:
    assert brier_score(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([0, 1])) == pytest.approx((0.5 + 2) / 2)
    generator = np.random.default_rng(0)
    positive, labels = generator.random(200), generator.integers(0, 2, 200)
    both = np.column_stack([1 - positive, positive])
    assert brier_score(both, labels) == pytest.approx(2 * brier_score_loss(labels, positive))


def test_equal_mass_bins_by_hand() -> None:
    """Two bins of two images: |1 - (0.6 + 0.7)| and |1 - (0.8 + 0.9)| over four."""
    probabilities = np.array([[c, 1 - c] for c in (0.9, 0.6, 0.8, 0.7)])
    labels = np.array([0, 0, 1, 1])
    assert expected_calibration_error(probabilities, labels, bins=2, equal_mass=True) == pytest.approx(1.0 / 4)


@pytest.mark.parametrize("equal_mass", [False, True])
@pytest.mark.parametrize(("temperature", "calibrated"), [(1.0, True), (3.0, False)])
def test_ece_tells_calibrated_probabilities(equal_mass: bool, temperature: float, calibrated: bool) -> None:
    logits, labels = drawn(20_000, temperature)
    error = expected_calibration_error(softmax(logits, axis=1), labels, equal_mass=equal_mass)
    assert (error < 0.012) == calibrated
    assert (error > 0.1) != calibrated


def test_fewer_images_than_bins() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8]])
    for equal_mass in (False, True):
        error = expected_calibration_error(probabilities, np.array([0, 1]), equal_mass=equal_mass)
        assert error == pytest.approx(0.15)


def test_reliability_by_hand() -> None:
    probabilities = np.array([[c, 1 - c] for c in (0.95, 0.97, 0.55)])
    measured = reliability(probabilities, np.array([0, 1, 0]))
    assert measured.images.tolist() == [1, 2]
    np.testing.assert_allclose(measured.confidence, [0.55, 0.96])
    np.testing.assert_allclose(measured.accuracy, [1, 0.5])


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Over forty samples of which the truth is known by a far larger one."""
    logits, labels = drawn(200_000, 1.5)
    probabilities = softmax(logits, axis=1)
    truth = {
        "accuracy": (probabilities.argmax(axis=1) == labels).mean(),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "ece_15": expected_calibration_error(probabilities, labels),
        "ece_15_equal_mass": expected_calibration_error(probabilities, labels, equal_mass=True),
    }
    held = dict.fromkeys(truth, 0)
    for part in np.array_split(np.arange(40 * 500), 40):
        found = intervals(probabilities[part], labels[part])
        assert found.keys() == truth.keys()
        for name, (low, high) in found.items():
            held[name] += low <= truth[name] <= high
    # 38 of 40 are expected; the ECEs, which noise only raises, hold less often in so small samples.
    assert all(count >= (28 if name.startswith("ece") else 34) for name, count in held.items()), held


def test_intervals_are_the_same_each_time() -> None:
    logits, labels = drawn(100, 1.0)
    assert intervals(softmax(logits, axis=1), labels) == intervals(softmax(logits, axis=1), labels)


def test_an_interval_of_accuracy_ends_at_1() -> None:
    assert intervals(np.array([[0.9, 0.1]] * 50 + [[0.6, 0.4]]), np.array([0] * 50 + [1]))["accuracy"][1] == 1


def test_the_temperature_of_large_logits_is_finite() -> None:
    assert math.isfinite(fit_temperature(np.array([[1000.0, 0.0]]), np.array([1])))
