"""The one-class protocol: one class is normal, without labels; every other class is an anomaly.

It is the protocol of L. Ruff et al., "Deep one-class classification", ICML 2018, section 4.2, with one difference:
validation and calibration images of the class are not used for training, because p-values need them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training.data import Dataset, Split
from training.data.dataset import labels_of
from training.studies.anomaly_trials.run import Fit, Task, Trials, run_trials

ONE_CLASS = "one-class"


def one_class(dataset: Dataset, fit: Fit, path: Path, method: str, recipes: Mapping[str, Any] | None = None) -> Trials:
    """Train a scorer for each class of `dataset`, and measure it on the whole test split.

    Args:
        dataset: labelled data.
        fit: trains with unlabelled data of one class, and a seed, the number of the class.
        path: JSON file of the results so far; these are not trained again.
        method: describes `fit`.
        recipes: all values that `fit` trains with.

    Raises:
        ValueError: the data have fewer than two classes.
        TrialsError: the file has other trials.
    """
    return run_trials(ONE_CLASS, dataset, one_class_tasks(dataset), fit, path, method, recipes)


def one_class_tasks(dataset: Dataset) -> list[Task]:
    """One task for each class, named after it."""
    if len(dataset.class_names) < 2:
        raise ValueError(f"{dataset.name} has fewer than two classes, so none can be anomalous; use labelled data")
    test = dataset.test
    return [
        Task(name, _only(dataset, label, f"{dataset.name}-{name}"), test.images[labels_of(test) != label])
        for label, name in enumerate(dataset.class_names)
    ]


def _only(dataset: Dataset, label: int, name: str) -> Dataset:
    """The images of one class in every split, without labels."""
    splits = (dataset.train, dataset.validation, dataset.calibration, dataset.test)
    return Dataset(name, (), *(Split(split.images[labels_of(split) == label]) for split in splits))
