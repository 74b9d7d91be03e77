from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from training.cli import app
from training.data import Dataset, Split, load
from training.networks.residual_cnn import ResidualCNNConfig
from training.recipes import RECIPES, Recipe
from training.studies.cross_validation import cross_validate


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


@pytest.fixture(scope="module")
def brief() -> Recipe:
    reference = RECIPES["reference"].for_dataset("digits")
    return reference.changed(
        cnn=replace(reference.networks["cnn"], network=ResidualCNNConfig(8), epochs=15, ema_half_life=400.0)
    )


@pytest.mark.slow
def test_every_image_is_held_out_once(digits: Dataset, brief: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[Split] = []
    monkeypatch.setattr(
        "training.studies.cross_validation.Images", lambda split, device: held.append(split) or Images(split, device)
    )
    from training.loops.batches import Images  # noqa: PLC0415

    accuracies = cross_validate(digits, brief, folds=3, seed=0)
    assert len(accuracies) == 3
    assert min(accuracies) > 0.8
    assert sum(len(split.images) for split in held) == sum(digits.splits.values())
    assert len(np.unique(np.concatenate([split.images for split in held]), axis=0)) > 1700


def test_copies_are_in_one_fold(digits: Dataset, brief: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[set[bytes]] = []

    def fit(fabric: object, data: Dataset, *rest: object, **more: object) -> None:
        held.append({image.tobytes() for image in data.train.images})

    def measured(network: object, images: Split) -> tuple[float, dict[str, float]]:
        assert held[-1].isdisjoint({image.tobytes() for image in images.images})
        return 0.0, {}

    monkeypatch.setattr("training.studies.cross_validation.train_cnn", fit)
    monkeypatch.setattr("training.studies.cross_validation.Images", lambda split, device: split)
    monkeypatch.setattr("training.studies.cross_validation.evaluate", measured)
    some = digits.train.take(np.resize(np.arange(200), 400))  # each twice
    small = replace(digits, train=some, **dict.fromkeys(("validation", "calibration", "test"), digits.test))
    assert cross_validate(small, brief, folds=3, seed=0) == [1.0] * 3
    assert len(held) == 3


def test_a_recipe_that_selects_is_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match="recipe demo selects"):
        cross_validate(digits, RECIPES["demo"], folds=2, seed=0)


def test_classes_of_few_images_are_named(digits: Dataset, brief: Recipe) -> None:
    few = replace(digits, **{role: getattr(digits, role).take(np.arange(20)) for role in digits.splits})
    with pytest.raises(ValueError, match="fewer than 50 images"):
        cross_validate(few, brief, folds=50, seed=0)


def test_unknown_recipes_are_named() -> None:
    result = CliRunner().invoke(app, ["cross-validate", "--recipe", "nobody"])
    assert result.exit_code == 2
    assert "nobody" in result.stderr
