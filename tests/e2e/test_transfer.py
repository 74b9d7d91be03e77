"""A few images of one's own, from the command line to the answer: what is stored helps to learn new classes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, clean_environment
from training.data import load

pytestmark = [pytest.mark.server, pytest.mark.slow]


def shapes(kind: str, count: int) -> np.ndarray:
    """White discs, frames or crosses of many sizes in many places, on black, uint8 [count,28,28]."""
    random = np.random.default_rng(len(kind))
    images = np.zeros((count, 28, 28), np.uint8)
    for image in images:
        radius = random.integers(4, 10)
        y, x = (axis - random.integers(10, 18) for axis in np.ogrid[:28, :28])
        far, near = np.maximum(abs(y), abs(x)), np.minimum(abs(y), abs(x))
        drawn = {"disc": y * y + x * x <= radius**2, "frame": abs(far - radius) < 1.5, "cross": near < 1.5}
        image[drawn[kind] & (far <= radius + 1)] = 255
    return images


def write(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{index}.png")


DRAWN = ("--synthetic", "digits-gan:200", "--trust-parts")  # the GAN has seen these few, too

ONE_AFTER_ANOTHER = """
import json, sys
from training.cli import app
for command in json.loads(sys.argv[1]):
    app(command, standalone_mode=False)
"""


@pytest.fixture(scope="module")
def drawn() -> dict[str, np.ndarray]:
    return {kind: shapes(kind, 130) for kind in ("cross", "disc", "frame")}


@pytest.fixture(scope="module")
def home(model_store: Path, drawn: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the demo's models and two more, of shapes and of a few digits, that those helped to train."""
    home = tmp_path_factory.mktemp("home")
    shutil.copytree(model_store / "models", home / "models", symlinks=True)
    for kind, images in drawn.items():
        write(home / "shapes" / kind, images[:70])
    train = load("digits").train
    for label in range(10):
        write(home / "few" / str(label), train.images[train.labels == label][:12, 0])
    trainings = (("shapes", "--from", "digits-cnn", "--freeze"), ("few", *DRAWN))
    commands = [
        ["train", "--dataset", f"folder:{home / name}", "--network", "cnn", *options, "--out", "runs"]
        for name, *options in trainings
    ]
    run = subprocess.run(  # in one process, which imports PyTorch once
        [sys.executable, "-c", ONE_AFTER_ANOTHER, json.dumps(commands)],
        env=clean_environment(BENTOML_HOME=str(home), PYTHONPATH=str(ROOT)),
        cwd=home,
        check=False,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-3000:]
    assert re.findall(r"stored (\w+)-cnn:", run.stdout) == ["shapes", "few"]
    return home


@pytest.fixture(scope="module")
def url(serve: Any, home: Path) -> Iterator[str]:
    with serve("classification", home=home) as server:
        yield server.url


def said(url: str, model: str, images: np.ndarray) -> list[str]:
    answer = httpx.post(f"{url}/classify", json={"images": images.tolist(), "model": model}, timeout=60)
    assert answer.status_code == 200, answer.text
    return [prediction["label"] for prediction in answer.json()["predictions"]]


def test_what_knows_digits_learns_shapes_and_tells_them_apart(url: str, drawn: dict[str, np.ndarray]) -> None:
    labels = said(url, "shapes-cnn", np.concatenate([images[70:] for images in drawn.values()]))
    assert set(labels) == set(drawn)
    assert np.mean(np.array(labels) == np.repeat(list(drawn), 60)) > 0.6, "chance: a third"


def test_what_saw_a_few_digits_and_drawn_ones_reads_others(url: str) -> None:
    test = load("digits").test
    assert test.labels is not None
    labels = said(url, "few-cnn", test.images[:200, 0])
    assert np.mean(np.array(labels) == test.labels[:200].astype(str)) > 0.7


def test_runs_and_cards_tell_what_was_changed(home: Path) -> None:
    shapes, few = (next(home.glob(f"models/{name}-cnn/*/card.md")).read_text() for name in ("shapes", "few"))
    [source] = re.findall(r"--recipe demo --from (digits-cnn:[0-9a-f]{12}) --freeze --network cnn --seed 0`", shapes)
    assert (home / "runs" / f"shapes-demo-from-{source.replace(':', '-')}-freeze-0" / "cnn").is_dir()
    assert re.search(r"--recipe demo --synthetic digits-gan:[0-9a-f]{12}:200 --trust-parts --network cnn", few)
    assert "Splits: 280 train," in few
