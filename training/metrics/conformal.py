"""Prediction sets with a given coverage: split-conformal, least ambiguous (LAC).

A set has every class whose probability is at least a threshold. The threshold is a quantile of the true class's
probability over calibration images. Of all sets with the same coverage these are the smallest on average (M. Sadinle,
J. Lei, L. Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", JASA 2019). If the classifier
errs less often than its sets may, some sets are empty: no class reaches the threshold, so the classifier abstains.
Adaptive sets (APS, Romano et al., 2020) without random numbers are never empty, so their coverage is far too high.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from training.data.arrays import Array

COVERAGE = 0.95


def set_threshold(probabilities: Array, labels: NDArray[np.int64], coverage: float) -> float:
    """The threshold with which the set of a new image contains its class with probability at least `coverage`.

    With n calibration images that are exchangeable with the new one, it is the k-th largest probability of the true
    class, k = ceil((n + 1) coverage) (V. Vovk, A. Gammerman, G. Shafer, 2005; Sadinle et al., section 3). If n is too
    small for k <= n, it is 0, and every set has every class.

    Args:
        probabilities: float32 [n,K], made without these images.
        labels: int64 [n].
        coverage: between 0 and 1.
    """
    of_label = np.sort(probabilities[np.arange(len(labels)), labels])
    k = math.ceil((len(labels) + 1) * coverage - 1e-9)
    return float(of_label[len(labels) - k]) if k <= len(labels) else 0.0


def set_metrics(sets: Array, labels: NDArray[np.int64]) -> dict[str, float]:
    """The coverage of `sets` [N,K] (0 or 1), their mean size, and the share of empty sets."""
    sizes = sets.sum(axis=1, dtype=np.int64)
    return {
        "measured_coverage": float(sets[np.arange(len(labels)), labels].mean()),
        "mean_set_size": float(sizes.mean()),
        "empty_sets": float((sizes == 0).mean()),
    }
