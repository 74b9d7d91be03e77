from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle
from training.data import Dataset, Split
from training.data.augmentation import Affine, Flip
from training.data.dataset import labels_of
from training.graphs.inference import score
from training.loops import header
from training.metrics.detection import auroc
from training.studies.anomaly_trials.recipe import CNN
from training.studies.anomaly_trials.run import Fit, Task, TrialsError, read, run_trials


@pytest.fixture(scope="module")
def tasks(digits: Dataset) -> list[Task]:
    return [Task(f"beyond {level}", digits, digits.test.images[:50] // 2 + level) for level in (0, 20, 100)]


@pytest.fixture
def given(small_scorer: Bundle) -> Fit:
    return lambda dataset, seed: small_scorer


def test_what_a_scorer_says_is_measured(digits: Dataset, tasks: list[Task], given: Fit, tmp_path: Path) -> None:
    path = tmp_path / "new" / "trials.json"
    trials = run_trials("held-out classes", digits, tasks, given, path, "by hand")
    assert read(path) == trials
    for trial, task in zip(trials.done, tasks, strict=True):
        normal, strange = (score(given(digits, 0), images) for images in (digits.test.images, task.strange))
        assert trial.auroc == pytest.approx(auroc(normal["score"], strange["score"]))
        assert trial.low <= trial.auroc <= trial.high
        assert trial.false_5 == (normal["p_value"] <= np.float32(0.05)).mean() >= trial.false_1
        assert trial.found_1 == (strange["p_value"] <= np.float32(0.01)).mean()
        assert (trial.normal, trial.anomalous) == (447, 50)
    assert trials.done[2].auroc == trials.done[2].found_1 == 1


def test_broken_off_trials_go_on_where_they_were(
    digits: Dataset, tasks: list[Task], given: Fit, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path, seeds = tmp_path / "trials.json", []

    def failing(dataset: Dataset, seed: int) -> Bundle:
        seeds.append(seed)
        if seeds == [0, 1]:
            raise KeyboardInterrupt
        return given(dataset, seed)

    with pytest.raises(KeyboardInterrupt):
        run_trials("one-class", digits, tasks, failing, path, "by hand")
    assert [trial.name for trial in read(path).done] == ["beyond 0"]
    trials = run_trials("one-class", digits, tasks, failing, path, "by hand")
    assert seeds == [0, 1, 1, 2]
    assert [trial.name for trial in trials.done] == [task.name for task in tasks]
    assert capfd.readouterr().err.count("AUROC") == 3


def test_trials_of_anything_else_are_refused(digits: Dataset, tasks: list[Task], given: Fit, tmp_path: Path) -> None:
    path = tmp_path / "trials.json"
    run_trials("one-class", digits, tasks[:1], given, path, "by hand")
    for arguments in (
        ("held-out classes", digits, tasks, given, path, "by hand"),
        ("one-class", replace(digits, name="others"), tasks, given, path, "by hand"),
        ("one-class", digits, tasks, given, path, "otherwise"),
    ):
        with pytest.raises(TrialsError, match=r"trials\.json: holds trials of .* choose another folder"):
            run_trials(*arguments)


def test_trials_of_another_recipe_or_version_are_not_continued(
    digits: Dataset, tasks: list[Task], given: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trials.json"
    asked = ("one-class", digits, tasks[:1], given, path, "by hand")
    run_trials(*asked, {"cnn": CNN})
    assert run_trials(*asked, {"cnn": CNN}).header["recipes"]["cnn"]["network"]["channels"] == CNN.network.channels
    with pytest.raises(TrialsError, match=r"holds trials of recipes\.cnn\.epochs 12, but 13 is asked for; choose"):
        run_trials(*asked, {"cnn": replace(CNN, epochs=13)})
    asked_anew = (*asked[:4], tmp_path / "affine.json", "by hand")
    run_trials(*asked_anew, {"cnn": replace(CNN, augment=Affine())})
    with pytest.raises(TrialsError, match=r"recipes\.cnn\.augment\.kind 'Affine', but 'Flip' is asked for"):
        run_trials(*asked_anew, {"cnn": replace(CNN, augment=Flip())})
    monkeypatch.setattr(header, "version", lambda name: "0.0.1")
    with pytest.raises(TrialsError, match=r"holds trials of versions\.duet '.*', but '0\.0\.1' is asked for"):
        run_trials(*asked, {"cnn": CNN})


def test_labels_are_those_of_the_split_or_asked_for(digits: Dataset) -> None:
    assert labels_of(digits.test) is digits.test.labels
    with pytest.raises(ValueError, match="labels: the data have no labels; use labelled data"):
        labels_of(Split(digits.test.images))
