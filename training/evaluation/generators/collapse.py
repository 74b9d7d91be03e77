"""Judges a generator's samples by a frozen classifier during training, and detects collapse.

The losses of a GAN do not measure its samples. A collapsed generator draws only a few different images. This is
detected at the end of the epoch, and the best earlier generator is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from services.inference.bundle import Bundle
from training.data import Dataset
from training.data.arrays import evenly_spaced
from training.evaluation.generators.judge import judge_of
from training.metrics.samples import class_metrics, frechet_distance, memorisation, prdc, relative_diversity

SAMPLES = 2000


class CollapseMonitor:
    """Compares samples with the validation split; the reference is the same comparison for training images.

    Args:
        dataset: labelled.
        judge: a classifier of the same classes that takes no part in the training.
    """

    def __init__(self, dataset: Dataset, judge: Bundle) -> None:
        self._judge = judge_of(judge)
        validation, training = dataset.validation, dataset.train
        if validation.labels is None or training.labels is None:
            raise ValueError(
                f"judge {judge.name}: {dataset.name} has no labels, which a judge needs; leave --judge out"
            )
        # No more than there are training images: coverage grows with the count, and both counts must be equal.
        rows = evenly_spaced(len(validation), min(SAMPLES, len(training)))
        self._images, self._labels = validation.images[rows], validation.labels[rows]
        self._real = self._judge(self._images)
        self._training = training.images
        others = training.images[evenly_spaced(len(training), len(rows))]
        self._coverage = prdc(self._judge(others).features, self._real.features)["coverage"]
        self.labels = np.arange(len(rows), dtype=np.int64) % len(dataset.class_names)

    def __call__(self, samples: NDArray[np.uint8]) -> dict[str, float]:
        """The metrics of samples of the classes `labels`."""
        seen = self._judge(samples)
        right = class_metrics(seen, self.labels)
        return {
            "frechet_distance": frechet_distance(seen, self._real),
            "conditional_accuracy": right["conditional_accuracy"],
            "class_total_variation": right["class_total_variation"],
            "coverage_ratio": prdc(seen.features, self._real.features)["coverage"] / max(self._coverage, 1e-9),
            "relative_diversity": relative_diversity(seen.features, self.labels, self._real.features, self._labels),
            **memorisation(samples, self._training, self._images),
        }
