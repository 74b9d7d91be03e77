"""How many false alarms a scorer has whose classifier saw the calibration images; `pytest -s` prints the figures."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle, seal
from training.data import Dataset, Split, load
from training.data.dataset import ROLES, joined
from training.data.seen import SeenError
from training.export.bundle import export_bundle
from training.export.classifier import export_classifier
from training.graphs.inference import score
from training.loops.classifier import CNNRecipe, train_cnn
from training.loops.launch import launch
from training.loops.run import open_run
from training.recipes import RECIPES
from training.scorer.components import Parts
from training.scorer.export import export_scorer
from training.scorer.train import train_scorer
from training.train import train

pytestmark = pytest.mark.nightly  # minutes

ALPHA = 0.05


@dataclass(frozen=True)
class Rates:
    """Shares of the test images with a p-value of at most `ALPHA`."""

    apart: float
    leaked: float


def shuffled(data: Dataset, sizes: tuple[int, ...], seed: int) -> Dataset:
    """The images of `data`, split anew into so many each; what is left over is test."""
    whole = Split(
        np.concatenate([getattr(data, role).images for role in ROLES]),
        np.concatenate([getattr(data, role).labels for role in ROLES]),
    )
    order = np.random.default_rng(seed).permutation(len(whole))
    return Dataset(data.name, data.class_names, *map(whole.take, np.split(order, np.cumsum(sizes))))


def false_alarms(dataset: Dataset, how: CNNRecipe, tmp_path: Path, seed: int) -> Rates:
    """Of two scorers that differ in their classifier alone: trained apart, and with the calibration images."""
    fabric = launch("cpu", 1)
    both = replace(dataset, train=joined(dataset.train, dataset.calibration), calibration=dataset.validation)
    classifiers = {name: classifier(data, how, tmp_path / name, seed) for name, data in
                   {"apart": dataset, "leaked": both}.items()}  # fmt: skip
    recipe = RECIPES["demo"].networks["scorer"]
    assert recipe is not None
    recipe = replace(recipe, vae=replace(recipe.vae, epochs=20))
    run = open_run(tmp_path, "scorer", {}, resume=False)
    given = {"classifier": classifiers["apart"], "generator": None}
    parts = train_scorer(fabric, dataset, recipe, run, seed=seed, resume=False, **given)
    found = {name: rate(replace(parts, classifier=part), dataset, tmp_path / f"scorer {name}") for name, part in
             classifiers.items()}  # fmt: skip
    with pytest.raises(SeenError, match=r"--classifier leaked-cnn:\w+: it was trained with"):
        train(
            dataset, RECIPES["demo"], ["scorer"], seed=seed, out=tmp_path, resume=False, accelerator="cpu",
            classifier=classifiers["leaked"],
        )  # fmt: skip
    return Rates(**found)


def classifier(dataset: Dataset, how: CNNRecipe, directory: Path, seed: int) -> Bundle:
    run = open_run(directory, "cnn", {}, resume=False)
    network = train_cnn(launch("cpu", 1), dataset, how, run, seed=seed)
    name = f"{directory.name}-cnn"
    bare = export_bundle(
        export_classifier, network, dataset, name=name, task="classification", network="cnn", recipe="leak", seed=seed,
        directory=directory / "bundle",
    )  # fmt: skip
    return seal(bare.path, bare.manifest)


def rate(parts: Parts, dataset: Dataset, directory: Path) -> float:
    scorer = export_bundle(
        export_scorer, parts, dataset, name="leak-scorer", task="anomaly", network="scorer", recipe="leak", seed=0,
        directory=directory,
    )  # fmt: skip
    return float((score(scorer, dataset.test.images)["p_value"] <= ALPHA).mean())


def cnn(augmented: bool, epochs: int) -> CNNRecipe:
    how = RECIPES["demo"].networks["cnn"]
    assert how is not None
    return replace(how, epochs=epochs, arithmetic="float32", augment=how.augment if augmented else None)


@pytest.mark.parametrize("augmented", [True, False], ids=["augmented", "plain"])
def test_digits(augmented: bool, tmp_path: Path) -> None:
    data = load("digits")
    rates = [
        false_alarms(shuffled(data, (944, 135, 270), seed), cnn(augmented, 25), tmp_path / str(seed), seed)
        for seed in range(4)
    ]
    told("digits, " + ("augmented" if augmented else "plain"), rates)


@pytest.mark.parametrize("augmented", [True, False], ids=["augmented", "plain"])
def test_mnist(augmented: bool, tmp_path: Path) -> None:
    data = load("mnist")
    data = shuffled(replace(data, train=data.train.take(np.arange(5000))), (4000, 1000, 2000), 0)
    data = replace(data, test=data.test.take(np.arange(10_000)))
    told("MNIST, " + ("augmented" if augmented else "plain"), [false_alarms(data, cnn(augmented, 12), tmp_path, 0)])


def told(name: str, rates: list[Rates]) -> None:
    apart, leaked = (np.array([getattr(rate, which) for rate in rates]) for which in ("apart", "leaked"))
    print(f"{name}: false alarms at {ALPHA:.0%}: apart {apart.mean():.2%} {apart.round(4).tolist()}, "
          f"leaked {leaked.mean():.2%} {leaked.round(4).tolist()}")  # fmt: skip
    assert leaked.mean() > apart.mean()
