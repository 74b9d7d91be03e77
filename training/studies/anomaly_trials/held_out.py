"""The protocol of held-out classes: six of ten classes are normal, with labels; the other four are anomalies.

It is the protocol of open-set recognition (L. Neal et al., "Open set learning with counterfactual images", ECCV 2018,
section 4.1). The anomalies are close to normal images: same writers, same scanner.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from training.data import Dataset, Split
from training.data.arrays import philox
from training.data.dataset import labels_of
from training.studies.anomaly_trials.run import Fit, Task, Trials, run_trials

HELD_OUT = "held-out classes"
SPLITS = 5
SEED = 0  # of the splits, the same for every scorer; each of ten classes is new in one to three of the five splits
KNOWN = 0.6


def held_out(
    dataset: Dataset,
    fit: Fit,
    path: Path,
    method: str,
    recipes: Mapping[str, Any] | None = None,
    splits: int = SPLITS,
) -> Trials:
    """Train a scorer for each split of the classes, and measure it on test images of known and new classes.

    Args:
        dataset: labelled data.
        fit: trains with data of the known classes, and a seed, the number of the split.
        path: JSON file of the results so far; these are not trained again.
        method: describes `fit`.
        recipes: all values that `fit` trains with.
        splits: number of splits; a larger number begins with the same splits.

    Raises:
        ValueError: the data have fewer than two classes.
        TrialsError: the file has other trials.
    """
    return run_trials(HELD_OUT, dataset, held_out_tasks(dataset, splits), fit, path, method, recipes)


def held_out_tasks(dataset: Dataset, splits: int = SPLITS) -> list[Task]:
    """One task for each split, named after its new classes."""
    if len(dataset.class_names) < 2:
        raise ValueError(f"{dataset.name} has fewer than two classes, so none can be new; use labelled data")
    tasks = []
    for number, known in enumerate(known_classes(len(dataset.class_names), splits), 1):
        new = [name for label, name in enumerate(dataset.class_names) if label not in known]
        is_new = ~np.isin(labels_of(dataset.test), known)
        tasks.append(
            Task(f"new: {', '.join(new)}", among(dataset, known, f"{dataset.name}-split-{number}"),
                 dataset.test.images[is_new])
        )  # fmt: skip
    return tasks


def known_classes(classes: int, splits: int = SPLITS) -> list[list[int]]:
    """Six tenths of `classes`, in ascending order, for each split."""
    generator = philox(SEED)
    count = min(max(1, round(KNOWN * classes)), classes - 1)
    return [sorted(generator.permutation(classes)[:count].tolist()) for _ in range(splits)]


def among(dataset: Dataset, known: list[int], name: str) -> Dataset:
    """The images of the `known` classes in every split; their labels are indices of that list."""

    def part(split: Split) -> Split:
        rows = np.flatnonzero(np.isin(labels_of(split), known))
        return Split(split.images[rows], np.searchsorted(known, labels_of(split)[rows]).astype(np.int64))

    splits = (dataset.train, dataset.validation, dataset.calibration, dataset.test)
    return Dataset(name, tuple(dataset.class_names[label] for label in known), *map(part, splits))
