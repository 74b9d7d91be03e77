from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.data.test_folder import fill
from training.data import load
from training.data.names import BUILT_IN, of_folder, slug, spec
from training.recipes import RECIPES


@pytest.mark.parametrize("name", [*BUILT_IN, "MNIST", "Fashion MNIST", "Digits!"])
def test_a_folder_called_like_a_built_in_set_is_a_folder(name: str, tmp_path: Path) -> None:
    fill(tmp_path / name / "cat", 20)
    fill(tmp_path / name / "dog", 20, start=100)
    data = load(f"folder:{tmp_path / name}")
    assert data.class_names == ("cat", "dog")
    # Recipes, gates and the store go by this name.
    assert data.name == f"folder-{name}"
    assert slug(data.name) not in BUILT_IN
    assert all(recipe.for_dataset(data.name) is recipe for recipe in RECIPES.values())
    assert spec(data.name) == f"folder:{name}"


@pytest.mark.parametrize("name", ["pets", "mnist-2", "my digits", "folder-pets"])
def test_other_folders_keep_their_names(name: str) -> None:
    assert of_folder(name) == name
    assert spec(name) == f"folder:{name}"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_set_is_asked_for_by_its_name(name: str) -> None:
    assert spec(name) == name
