"""How well a classifier tells the classes apart, and how far its probabilities can be trusted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from services.inference.bundle import Bundle
from training.evaluation.runtime import Array, open_graph, run


def predict(bundle: Bundle, images: NDArray[np.uint8]) -> dict[str, Array]:
    """`logits` and `probabilities` [N,K] of `images` [N,C,H,W]."""
    return run(open_graph(bundle.graph_path("classify")), {"images": images})


def metrics(probabilities: Array, labels: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, float]:
    """Accuracy, precision, recall and F1 (each class and their unweighted mean), NLL in nats and ECE.

    A class that was never predicted has precision 0, one that never occurs has recall 0.
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
        "ece_15": expected_calibration_error(probabilities, labels),
    }
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


def negative_log_likelihood(probabilities: Array, labels: NDArray[np.int64]) -> float:
    """Mean of -log p(label) in nats; a probability that rounded to 0 counts as the smallest float32."""
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return float(-np.log(np.maximum(of_label, np.finfo(np.float32).tiny)).mean())


def expected_calibration_error(probabilities: Array, labels: NDArray[np.int64], bins: int = 15) -> float:
    """ECE: the mean gap between confidence and accuracy over equal-width bins (Guo et al., 2017, eq. 3)."""
    confidence = probabilities.max(axis=1).astype(np.float64)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)  # bins are half open: (low, high]
    gaps = np.bincount(bin_of, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
