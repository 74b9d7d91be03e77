from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.arrays import evenly_spaced
from training.data.dataset import ROLES
from training.studies.anomaly_trials.one_class import one_class, one_class_tasks


def test_a_task_has_one_class_everywhere_and_finds_the_others_in_test(digits: Dataset) -> None:
    tasks = one_class_tasks(digits)
    assert [task.name for task in tasks] == list("0123456789")
    for label, task in enumerate(tasks):
        assert task.dataset.name == f"digits-{label}"
        assert task.dataset.class_names == ()
        for role in ROLES:
            split, whole = getattr(task.dataset, role), getattr(digits, role)
            assert split.labels is None
            assert np.array_equal(split.images, whole.images[whole.labels == label])
        assert np.array_equal(task.strange, digits.test.images[digits.test.labels != label])
    assert len({task.dataset.digest for task in tasks}) == 10


def test_data_of_no_classes_are_refused(digits: Dataset) -> None:
    loose = Dataset("loose", (), *(Split(getattr(digits, role).images) for role in ROLES))
    with pytest.raises(ValueError, match="loose has fewer than two classes"):
        one_class_tasks(loose)


def test_each_class_is_trained_once_with_its_number_as_seed(
    digits: Dataset, small_scorer: Bundle, tmp_path: Path
) -> None:
    few = replace(digits, test=digits.test.take(evenly_spaced(447, 60)))
    fitted: list[tuple[str, int]] = []

    def fit(dataset: Dataset, seed: int) -> Bundle:
        fitted.append((dataset.name, seed))
        return small_scorer

    trials = one_class(few, fit, tmp_path / "trials.json", "by hand")
    assert fitted == [(f"digits-{label}", label) for label in range(10)]
    assert trials.header["protocol"] == "one-class"
    assert few.test.labels is not None
    assert [trial.normal for trial in trials.done] == np.bincount(few.test.labels).tolist()
    assert {trial.normal + trial.anomalous for trial in trials.done} == {60}
