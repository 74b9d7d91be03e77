from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.dataset import ROLES
from training.studies.anomaly_trials.held_out import held_out, held_out_tasks, known_classes

FIXED = [[0, 3, 4, 6, 7, 8], [1, 2, 3, 4, 6, 9], [1, 3, 5, 7, 8, 9], [1, 2, 4, 5, 6, 9], [0, 2, 3, 4, 5, 9]]


def test_the_splits_are_fixed() -> None:
    assert known_classes(10) == FIXED
    assert known_classes(10, 2) == FIXED[:2]
    new = 5 - np.bincount(np.concatenate(FIXED))
    assert (new.min(), new.max()) == (1, 3)


@given(classes=st.integers(2, 40))
def test_six_tenths_are_known_and_something_is_new(classes: int) -> None:
    for known in known_classes(classes):
        assert known == sorted(set(known))
        assert set(known) < set(range(classes))
        assert abs(len(known) - 0.6 * classes) <= 0.5 or classes == 2
        assert known


def test_known_classes_have_new_numbers_and_their_old_names(digits: Dataset) -> None:
    for task, known in zip(held_out_tasks(digits), known_classes(10), strict=True):
        assert task.dataset.class_names == tuple(map(str, known))
        assert task.name == "new: " + ", ".join(str(label) for label in range(10) if label not in known)
        for role in ROLES:
            split, whole = getattr(task.dataset, role), getattr(digits, role)
            rows = np.isin(whole.labels, known)
            assert np.array_equal(split.images, whole.images[rows])
            assert np.array_equal(np.array(known)[split.labels], whole.labels[rows])
        assert np.array_equal(task.strange, digits.test.images[~np.isin(digits.test.labels, known)])


def test_data_of_no_classes_are_refused(digits: Dataset) -> None:
    loose = Dataset("loose", (), *(Split(getattr(digits, role).images) for role in ROLES))
    with pytest.raises(ValueError, match="loose has fewer than two classes"):
        held_out_tasks(loose)


def test_each_split_is_trained_once_with_its_number_as_seed(
    digits: Dataset, small_scorer: Bundle, tmp_path: Path
) -> None:
    few = replace(digits, test=digits.test.take(np.arange(60)))
    fitted: list[tuple[str, int]] = []

    def fit(dataset: Dataset, seed: int) -> Bundle:
        fitted.append((dataset.name, seed))
        return small_scorer

    trials = held_out(few, fit, tmp_path / "trials.json", "by hand", splits=3)
    assert fitted == [(f"digits-split-{seed + 1}", seed) for seed in range(3)]
    assert {trial.normal + trial.anomalous for trial in trials.done} == {60}
    again = held_out(few, fit, tmp_path / "trials.json", "by hand", splits=4)
    assert fitted[3:] == [("digits-split-4", 3)]
    assert again.done[:3] == trials.done
