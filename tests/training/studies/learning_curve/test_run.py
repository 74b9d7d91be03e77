"""A curve on the digits, cut short: two sizes, few steps."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric

from training.data import Dataset, load
from training.studies.learning_curve import methods, run
from training.studies.learning_curve.methods import Trial
from training.studies.learning_curve.report import report
from training.studies.learning_curve.run import Curve, CurveError, learning_curve, read
from training.studies.learning_curve.subsets import subset

pytestmark = pytest.mark.slow

BASELINES = ("logistic regression", "SVM")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def shorten(patch: pytest.MonkeyPatch) -> None:
    """The methods that need no network, on two sizes."""
    all_methods = methods.methods
    patch.setattr(run, "sizes", lambda _: (5, 20))
    patch.setattr(run, "methods", lambda *given: {name: all_methods(*given)[name] for name in BASELINES})


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch)


@pytest.fixture(scope="module")
def whole(digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Curve, Path]:
    """A complete curve and its file."""
    path = tmp_path_factory.mktemp("curve") / "results" / "curve.json"
    with pytest.MonkeyPatch.context() as patch:
        shorten(patch)
        return learning_curve(digits, None, path), path


def test_every_cell_is_measured_and_kept(whole: tuple[Curve, Path], tmp_path: Path) -> None:
    done, path = whole
    assert read(path) == done
    assert len({(cell.method, cell.labels, cell.seed) for cell in done.cells}) == len(done.cells) == 2 * 2 * 3
    for cell in done.cells:
        assert (cell.graph_bytes is not None) == (cell.seed == 0) == bool(cell.microseconds)
        assert 0.5 < cell.accuracy < 1
    accuracy = {(cell.labels, cell.seed, cell.method): cell.accuracy for cell in done.cells}
    assert all(accuracy[20, seed, "SVM"] > accuracy[5, seed, "SVM"] for seed in range(3))
    table = report(done, tmp_path).read_text()
    assert "| SVM | " in table
    assert (tmp_path / "learning_curve_digits.png").stat().st_size > 10_000


@pytest.mark.usefixtures("brief")
def test_a_broken_off_curve_goes_on_where_it_was(
    digits: Dataset, whole: tuple[Curve, Path], tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    path = tmp_path / "curve.json"
    raw = json.loads(whole[1].read_text())
    path.write_text(json.dumps(raw | {"cells": raw["cells"][:9]}))
    capfd.readouterr()
    again = learning_curve(digits, None, path)
    assert capfd.readouterr().err.count("CPU seconds") == 3
    assert again.cells[:9] == whole[0].cells[:9]
    assert [cell.accuracy for cell in again.cells] == [cell.accuracy for cell in whole[0].cells]


@pytest.mark.usefixtures("brief")
def test_another_datas_results_are_refused(digits: Dataset, whole: tuple[Curve, Path], tmp_path: Path) -> None:
    path = shutil.copy(whole[1], tmp_path / "curve.json")
    fewer = subset(digits, 20, 0)
    with pytest.raises(CurveError, match=r"curve\.json: holds the curve of .* choose another folder"):
        learning_curve(fewer, None, path)


@pytest.mark.usefixtures("brief")
def test_a_curve_of_another_recipe_is_not_continued(
    digits: Dataset, whole: tuple[Curve, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shutil.copy(whole[1], tmp_path / "curve.json")
    monkeypatch.setattr(methods, "GAN", replace(methods.GAN, ema_half_life=1000.0))
    with pytest.raises(
        CurveError, match=r"holds the curve of recipes\.gan\.ema_half_life 2206\.\d+, but 1000\.0 is asked for"
    ):
        learning_curve(digits, None, path)


@pytest.mark.parametrize("name", [name for name in methods.methods("digits", None) if name not in BASELINES])
def test_every_network_learns_from_few_labels_and_nothing_else(
    name: str, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(methods, "steps", lambda _: 40)
    torch.set_num_threads(1)
    few = subset(digits, 10, 0)
    trial = Trial(Fabric(accelerator="cpu", devices=1), name, few, 0, tmp_path)
    network = methods.methods("digits", None)[name](trial)
    assert run.accuracy_of(network, few.test) > 0.4


def test_synthetic_images_come_from_the_same_few_labels(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Dataset] = []
    train_gan = methods.train_gan

    def spy(fabric: Fabric, dataset: Dataset, *rest: object, **named: object) -> object:
        seen.append(dataset)
        return train_gan(fabric, dataset, *rest, **named)

    monkeypatch.setattr(methods, "train_gan", spy)
    few = subset(digits, 10, 0)
    trial = Trial(Fabric(accelerator="cpu", devices=1), "CNN, synthetic", few, 0, tmp_path)
    drawn = methods.draw(trial, 128)
    assert drawn.images.shape == (methods.SYNTHETIC, 1, 28, 28)
    assert {image.tobytes() for image in seen[0].train.images} == {image.tobytes() for image in few.train.images}


def test_nothing_is_transferred_without_a_source() -> None:
    assert not any("transferred" in name for name in methods.methods("digits", None))
