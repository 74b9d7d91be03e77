"""The diversity of samples relative to real images, and the criterion of a collapsed generator."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from training.evaluation.runtime import Array, philox

COLLAPSED = 0.5  # share of the coverage, or of the diversity, of real images
DUPLICATES = 0.2  # share of near duplicates among samples; real images have almost none
POINTS = 500  # points whose distances are computed

Labels = NDArray[np.int64]


def relative_diversity(samples: Array, wanted: Labels | None, real: Array, labels: Labels | None) -> float:
    """Mean distance of two samples of a class over that of two real images of it, averaged over the classes.

    Near 1 for samples as diverse as the data, 0 if all samples of a class are the same.

    Args:
        samples: pixels or features [N,...].
        wanted: the requested classes [N]; without classes all samples are compared.
        real: pixels or features of real images [M,...].
        labels: their classes [M].
    """
    if wanted is None or labels is None:
        wanted, labels = np.zeros(len(samples), np.int64), np.zeros(len(real), np.int64)
    ratios = []
    for label in np.unique(wanted):
        drawn, given = samples[wanted == label], real[labels == label]
        if len(drawn) > 1 and len(given) > 1 and (distance := mean_distance(given)) > 0:
            ratios.append(mean_distance(drawn) / distance)
    return float(np.mean(ratios)) if ratios else 1.0


def mean_distance(points: Array) -> float:
    """Mean Euclidean distance over all pairs of different points [N,...], at most 500 of them."""
    flat = points[philox(0).permutation(len(points))[:POINTS]].reshape(min(len(points), POINTS), -1).astype(np.float64)
    squares = np.square(flat).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0))
    return float(distances[np.triu_indices(len(flat), k=1)].mean())


def collapsed(metrics: Mapping[str, float]) -> bool:
    """Whether these metrics show a collapsed generator."""
    return (
        metrics["coverage_ratio"] < COLLAPSED
        or metrics["relative_diversity"] < COLLAPSED
        or metrics["near_duplicates"] > DUPLICATES
    )
