"""Metrics of a classifier: its predictions, and the calibration of its probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from training.data.arrays import Array
from training.metrics.calibration import brier_score, expected_calibration_error, intervals, negative_log_likelihood


def metrics(probabilities: Array, labels: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 (each class and their unweighted mean), NLL in nats, Brier score and ECE.

    Accuracy and the metrics of probabilities have 95 % intervals, such as `nll/2.5%` and `nll/97.5%`.

    A class that is never predicted has precision 0; a class that never occurs has recall 0.
    """
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, labels=range(len(class_names)), zero_division=0.0
    )
    result = {
        "accuracy": float((predicted == labels).mean()),
        "macro_precision": float(precision.mean()),
        "macro_recall": float(recall.mean()),
        "macro_f1": float(f1.mean()),
        "nll": negative_log_likelihood(probabilities, labels),
        "brier": brier_score(probabilities, labels),
        "ece_15": expected_calibration_error(probabilities, labels),
        "ece_15_equal_mass": expected_calibration_error(probabilities, labels, equal_mass=True),
    }
    for name, (low, high) in intervals(probabilities, labels).items():
        result |= {f"{name}/2.5%": low, f"{name}/97.5%": high}
    for index, name in enumerate(class_names):
        result[f"precision/{name}"] = float(precision[index])
        result[f"recall/{name}"] = float(recall[index])
        result[f"f1/{name}"] = float(f1[index])
    return result


def confusion(probabilities: Array, labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """Image counts [K,K]: rows are true classes, columns predicted ones."""
    counts: NDArray[np.int64] = confusion_matrix(
        labels, probabilities.argmax(axis=1), labels=range(probabilities.shape[1])
    )
    return counts


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value of McNemar's test (Q. McNemar, Psychometrika 12, 1947; binomial form).

    If two classifiers are equally accurate, each is equally likely to be right on an image where only one is right.
    Returns the two-sided binomial probability of so uneven a split.
    """
    n = only_first + only_second
    return float(binomtest(only_first, n).pvalue) if n else 1.0
