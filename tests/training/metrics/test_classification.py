from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from training.metrics import classification
from training.metrics.classification import expected_calibration_error, negative_log_likelihood

NAMES = ("a", "b", "c")


def one_hot(predicted: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[predicted]


def test_metrics_by_hand() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1], np.int64)
    metrics = classification.metrics(one_hot([0, 0, 1, 1, 1, 0]), labels, NAMES)
    assert metrics["accuracy"] == pytest.approx(4 / 6)
    assert metrics["precision/a"] == pytest.approx(2 / 3)
    assert metrics["recall/b"] == pytest.approx(2 / 3)
    assert metrics["f1/a"] == pytest.approx(2 / 3)
    # c neither occurs nor is predicted: 0, and counted in the mean over classes
    assert metrics["precision/c"] == metrics["recall/c"] == metrics["f1/c"] == 0
    assert metrics["macro_f1"] == pytest.approx(2 / 3 * 2 / 3)


def test_metrics_agree_with_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 500)
    probabilities = generator.dirichlet([1, 1, 1], 500).astype(np.float32)
    predicted = probabilities.argmax(axis=1)
    metrics = classification.metrics(probabilities, labels, NAMES)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert metrics["macro_precision"] == pytest.approx(precision_score(labels, predicted, average="macro"))
    assert metrics["macro_recall"] == pytest.approx(recall_score(labels, predicted, average="macro"))
    assert metrics["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    renormalised = probabilities.astype(np.float64)
    assert metrics["nll"] == pytest.approx(
        log_loss(labels, renormalised / renormalised.sum(1, keepdims=True)), rel=1e-5
    )


def test_confusion_rows_are_true_classes() -> None:
    counts = classification.confusion(one_hot([0, 1, 1]), np.array([0, 0, 1], np.int64))
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_nll_is_finite_at_probability_zero() -> None:
    assert negative_log_likelihood(one_hot([0]), np.array([1], np.int64)) == pytest.approx(87.34, abs=0.01)


@pytest.mark.parametrize(("confidence", "correct", "expected"), [
    ([1.0, 1.0, 1.0, 1.0], [1, 1, 1, 1], 0.0),
    ([1.0, 1.0, 1.0, 1.0], [1, 1, 0, 0], 0.5),
    ([0.75, 0.75, 0.75, 0.75], [1, 1, 1, 0], 0.0),
    # two bins: |0 - 0.6| over one image, |1 - 0.9| over three
    ([0.6, 0.9, 0.9, 0.9], [0, 1, 1, 1], (0.6 + 3 * 0.1) / 4),
    # opposite errors in one bin cancel, in two bins they add up
    ([0.9, 0.9], [1, 0], 0.4),
])  # fmt: skip
def test_ece_by_hand(confidence: list[float], correct: list[int], expected: float) -> None:
    probabilities = np.array([[c, 1 - c] for c in confidence])
    labels = 1 - np.array(correct, np.int64)
    assert expected_calibration_error(probabilities, labels) == pytest.approx(expected)
