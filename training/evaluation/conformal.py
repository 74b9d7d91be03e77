"""Prediction sets that hold the true class as often as they say: split-conformal, least ambiguous (LAC).

A set has every class of at least a threshold's probability; the threshold is a quantile of the true class's
probability over calibration images. Of all sets of the same coverage these are the smallest on average (M. Sadinle,
J. Lei, L. Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 2019). A classifier that
errs more seldom than its sets are allowed to has empty ones: no class is likely enough, so that it abstains. Adaptive
sets (APS, Romano et al., 2020) without random numbers are never empty, and so cover far more than was asked for.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from training.evaluation.runtime import Array

COVERAGE = 0.95


def set_threshold(probabilities: Array, labels: NDArray[np.int64], coverage: float) -> float:
    """The threshold at which a new image's set has its class with probability at least `coverage`.

    With n calibration images that are exchangeable with the new one, it is the k-th largest probability of the true
    class, k = ceil((n + 1) coverage) (V. Vovk, A. Gammerman, G. Shafer, 2005; Sadinle et al., section 3), and 0, so
    that every set has every class, where n is too small for k <= n.

    Args:
        probabilities: float32 [n,K], made without these images.
        labels: int64 [n].
        coverage: between 0 and 1.
    """
    of_label = np.sort(probabilities[np.arange(len(labels)), labels])
    k = math.ceil((len(labels) + 1) * coverage - 1e-9)
    return float(of_label[len(labels) - k]) if k <= len(labels) else 0.0


def set_metrics(sets: Array, labels: NDArray[np.int64]) -> dict[str, float]:
    """How often `sets` [N,K] (0 or 1) have the true class, their mean size, and the share that is empty."""
    sizes = sets.sum(axis=1, dtype=np.int64)
    return {
        "measured_coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "mean_set_size": float(sizes.mean()),
        "empty_sets": float((sizes == 0).mean()),
    }
