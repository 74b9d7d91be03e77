"""How a scorer's statistics are weighted in its score; without torch, because reports ablate statistics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from training.data.arrays import Array

# Only the defect network finds small defects, so it counts fourfold. Its small surprises say nothing about other
# anomalies, so it counts from two nats on. The views replace four statistics of a classifier.
WEIGHTS = {"defects": 4.0, "views": 4.0}
FROM = {"defects": 2.0}


def weights(names: Sequence[str]) -> tuple[list[float], list[float]]:
    """The weight of each of the statistics `names`, and the nats from which it counts."""
    return [WEIGHTS.get(name, 1.0) for name in names], [FROM.get(name, 0.0) for name in names]


def weighted(surprises: Array, names: Sequence[str]) -> Array:
    """The score [N] of surprises [N,S] of the statistics `names`, as `fused` in training/scorer/fusion.py."""
    weight, least = (np.asarray(values, surprises.dtype) for values in weights(names))
    result: Array = (weight * np.square(np.maximum(surprises - least, 0))).sum(axis=1)
    return result
