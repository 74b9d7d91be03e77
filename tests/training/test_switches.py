"""`duet train`'s switches: for the CNN alone, --from, --freeze, --synthetic, --no-augment; for the scorer's parts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from training.cli import app
from training.recipes import RECIPES, Recipe


def duet(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["train", "--dataset", "digits", *arguments], env={"COLUMNS": "500"})


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, list[str]]]:
    """What training would have been asked for: recipe and networks."""
    calls: list[tuple[Recipe, list[str]]] = []

    def train(dataset: object, recipe: Recipe, networks: list[str], **rest: Any) -> list[object]:
        calls.append((recipe, networks))
        return []

    monkeypatch.setattr("training.train.train", train)
    return calls


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--freeze"], "--freeze: there is nothing to freeze in random weights; name a classifier with --from"),
        (["--synthetic", "digits-gan"], "--synthetic digits-gan: give BUNDLE:COUNT, for instance digits-gan:2000"),
        (["--synthetic", "digits-gan:0"], "--synthetic digits-gan:0: give BUNDLE:COUNT"),
        (["--synthetic", "nobody:10"], "model 'nobody' is not in the store"),
        (["--from", "nobody"], "model 'nobody' is not in the store"),
        (["--no-augment", "--network", "vae"], "--no-augment are for the CNN; give --network cnn"),
        (["--no-augment", "--recipe", "baselines"], "--recipe baselines has no CNN to change"),
        (["--network", "scorer"], "model 'digits-cnn' is not in the store"),
        (["--network", "scorer", "--classifier", "nobody"], "model 'nobody' is not in the store"),
        (["--generator", "nobody"], "model 'nobody' is not in the store"),
    ],
)
def test_what_does_not_fit_is_explained(
    arguments: list[str], message: str, asked: list[tuple[Recipe, list[str]]], empty_store: Path
) -> None:
    result = duet(*arguments)
    assert (result.exit_code, asked) == (1, [])
    assert message in result.stderr


def test_without_augmentation_only_the_cnn_is_trained(asked: list[tuple[Recipe, list[str]]]) -> None:
    assert duet("--no-augment").exit_code == 0
    [(recipe, networks)] = asked
    assert (recipe.name, networks) == ("demo --no-augment", ["cnn"])
    assert recipe.networks["cnn"].augment is None


@pytest.mark.parametrize(
    ("recipe", "networks"),
    [
        ("demo", ["cnn", "vae", "gan", "scorer"]),
        ("reference", ["cnn", "cvae", "gan", "scorer"]),
        ("baselines", ["logistic", "svm", "gru"]),
    ],
)
def test_without_switches_a_recipe_is_trained_as_it_is(
    recipe: str, networks: list[str], asked: list[tuple[Recipe, list[str]]]
) -> None:
    assert duet("--recipe", recipe).exit_code == 0
    assert asked == [(RECIPES[recipe], networks)]
