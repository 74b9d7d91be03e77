"""`--trust-parts` on the command line: without it a doubtful model ends the command, with it the recipe tells."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner, Result

from services.inference import registry
from services.inference.bundle import Bundle, seal
from training.cli import app
from training.data.seen import TRUSTED
from training.publishing.kind import Kind

if TYPE_CHECKING:
    from conftest import Published

pytestmark = pytest.mark.slow

REFUSED = ": it was made with --trust-parts, so what it has seen is not known. "


@pytest.fixture
def doubtful(published: Published, empty_store: Path, tmp_path: Path) -> None:
    """A classifier in the store that was made with a trusted part, and a VAE that was not."""
    copy = tmp_path / "doubtful"
    shutil.copytree(published.classifier.path, copy)
    (copy / "manifest.json").unlink()
    recipe = f"brief{TRUSTED}"
    registry.store(seal(copy, published.classifier.manifest.model_copy(update={"recipe": recipe, "files": {}})))
    registry.store(published.generator)


def duet(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), env={"COLUMNS": "500"})


@pytest.mark.parametrize(
    ("option", "arguments"),
    [
        ("--classifier", ["train", "--network", "scorer", "--classifier", "digits-cnn"]),
        ("--classifier", ["train", "--network", "scorer"]),  # the stored one of the same data is the default
        ("--judge", ["train", "--network", "gan", "--judge", "digits-cnn"]),
        ("--from", ["train", "--network", "cnn", "--from", "digits-cnn"]),
        ("--judge", ["evaluate", "digits-vae", "--judge", "digits-cnn"]),
    ],
)
def test_a_doubtful_model_is_refused(
    option: str, arguments: list[str], doubtful: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "training.recipes.overrides.transfer", lambda recipe, source, frozen: recipe
    )  # it is no residual network
    result = duet(*arguments, "--out", str(tmp_path / "out"))
    assert result.exit_code == 1
    [line] = result.stderr.splitlines()
    assert line.startswith(f"error: {option} digits-cnn:")
    assert REFUSED in line
    assert line.endswith("Give a model that was trained with these data, or take the risk with --trust-parts")
    assert not (tmp_path / "out").exists()


def test_a_trusted_one_is_taken_and_the_recipe_tells(
    doubtful: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipes: list[tuple[str, str]] = []

    def fit(fabric: object, network: str, dataset: object, recipe: Any, **rest: Any) -> None:
        recipes.append((network, recipe.name))

    def publish(kind: Kind, *rest: object, recipe: str, **more: object) -> list[Bundle]:
        recipes.append((kind.name, recipe))
        return []

    monkeypatch.setattr("training.train.fit", fit)
    monkeypatch.setattr("training.train.publish", publish)
    networks = ["--network", "svm", "--network", "scorer", "--recipe", "baselines"]
    monkeypatch.setattr("training.train._left_out", lambda *given: None)
    result = duet("train", *networks, "--classifier", "digits-cnn", "--trust-parts", "--out", str(tmp_path))
    assert result.exit_code == 0, result.output
    assert recipes == [
        ("svm", "baselines"), ("svm", "baselines"),
        ("scorer", f"baselines{TRUSTED}"), ("scorer", f"baselines{TRUSTED}"),
    ]  # fmt: skip
