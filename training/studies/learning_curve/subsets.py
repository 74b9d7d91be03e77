"""A few labelled images of every class, the same for all methods."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from training.data import Dataset

SIZES = (10, 30, 100, 300, 1000)


def sizes(dataset: Dataset) -> tuple[int, ...]:
    """Labels per class: those of `SIZES` that every class has, and the size of the rarest class if it is smaller.

    Raises:
        ValueError: the data have no labels.
    """
    most = int(np.bincount(_labels(dataset), minlength=len(dataset.class_names)).min())
    found = tuple(size for size in SIZES if size < most)
    return found if len(found) == len(SIZES) else (*found, most)


def subset(dataset: Dataset, size: int, seed: int) -> Dataset:
    """`dataset` with `size` training images of each class; those of a smaller size are among those of a larger one.

    The validation split has the same images, because there are no other labels. Nothing may be selected by it.
    """
    labels = _labels(dataset)
    random = np.random.Generator(np.random.Philox(seed))
    order: NDArray[np.int64] = random.permutation(len(labels))
    chosen = [order[labels[order] == label][:size] for label in range(len(dataset.class_names))]
    few = dataset.train.take(np.concatenate(chosen))
    return replace(dataset, train=few, validation=few)


def _labels(dataset: Dataset) -> NDArray[np.int64]:
    if dataset.train.labels is None:
        raise ValueError(f"{dataset.name} has no labels to learn from; use labelled data")
    return dataset.train.labels
