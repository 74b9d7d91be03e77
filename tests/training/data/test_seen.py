"""A stored model is taken as a part if it cannot have seen the calibration and test images; else it says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services.inference.bundle import Bundle, Data, Image, Manifest
from training.data import Dataset, Split, seen
from training.data.dataset import ROLES, joined
from training.data.seen import SeenError, may_have_seen, recorded, require_apart, require_other
from training.recipes import RECIPES
from training.studies.learning_curve.run import learning_curve
from training.train import train

TAG = r"pets-cnn:0123456789ab: "


@pytest.fixture(scope="module")
def pets() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    return cut(Split(images, np.arange(60) % 2), (30, 36, 48))


def cut(whole: Split, cuts: tuple[int, int, int]) -> Dataset:
    parts = np.split(np.arange(len(whole)), list(cuts))
    return Dataset("pets", ("cat", "dog"), *(whole.take(part) for part in parts))


def again(pets: Dataset, order: np.ndarray) -> Dataset:
    """The same images, split in another order."""
    images = np.concatenate([getattr(pets, role).images for role in ROLES])
    labels = np.concatenate([getattr(pets, role).labels for role in ROLES])
    return cut(Split(images[order], labels[order]), (30, 36, 48))


def trained_with(dataset: Dataset, *, recipe: str = "demo", older: bool = False) -> Bundle:
    """A classifier that says it was trained with `dataset`; without graphs."""
    data = recorded(dataset)
    if older:
        data = Data(name=data.name, digest=data.digest, splits=data.splits)
    manifest = Manifest(
        name=f"{dataset.name}-cnn", task="classification", network="cnn", recipe=recipe, seed=0, dataset=data,
        image=Image(channels=1, height=8, width=8), class_names=dataset.class_names, graphs={}, metrics={},
        versions={}, digest="0123456789ab" + 52 * "0",
    )  # fmt: skip
    return Bundle(Path("nowhere"), manifest)


def renamed(pets: Dataset) -> Dataset:
    return replace(pets, name="animals")


def relabelled(pets: Dataset) -> Dataset:
    assert pets.train.labels is not None
    return replace(pets, train=Split(pets.train.images, 1 - pets.train.labels))


def extended(pets: Dataset) -> Dataset:
    """With generated images in training."""
    more = Split(np.zeros((5, 1, 8, 8), np.uint8), np.zeros(5, np.int64))
    return replace(pets, train=joined(pets.train, more))


def reordered(pets: Dataset) -> Dataset:
    return replace(pets, test=pets.test.take(np.arange(len(pets.test))[::-1].copy()))


def as_it_is(pets: Dataset) -> Dataset:
    return pets


@pytest.mark.parametrize("change", [as_it_is, renamed, relabelled, extended, reordered])
def test_equal_held_out_images_are_apart(pets: Dataset, change: Callable[[Dataset], Dataset]) -> None:
    assert may_have_seen(trained_with(change(pets)), pets) is None
    assert may_have_seen(trained_with(pets), change(pets)) is None


def test_an_older_bundle_of_the_same_data_is_apart(pets: Dataset) -> None:
    assert may_have_seen(trained_with(pets, older=True), pets) is None


def test_the_same_images_split_otherwise_are_told_from_other_images(pets: Dataset) -> None:
    other = again(pets, np.random.default_rng(1).permutation(60))
    assert other.images_digest == pets.images_digest
    why = may_have_seen(trained_with(other), pets)
    assert why == f"it was trained with the same images, split otherwise, as pets (digest {other.digest[:12]})"
    one_more = replace(pets, calibration=extended(pets).train)
    why = may_have_seen(trained_with(one_more), pets)
    assert why == (
        f"it was trained with pets (digest {one_more.digest[:12]}), not with pets as it is now (digest "
        f"{pets.digest[:12]})"
    )
    swapped = replace(pets, train=pets.calibration, calibration=pets.train)
    assert may_have_seen(trained_with(swapped), pets)


def test_what_is_not_recorded_is_not_known(pets: Dataset) -> None:
    why = may_have_seen(trained_with(extended(pets), older=True), pets)
    assert why is not None
    assert "of an older version, does not record which images" in why


@pytest.mark.parametrize("recipe", ["demo --trust-parts", "demo --trust-parts, int8 of pets-cnn:0123"])
def test_what_was_made_with_trusted_parts_is_not_known(recipe: str, pets: Dataset) -> None:
    assert may_have_seen(trained_with(pets, recipe=recipe), pets) == (
        "it was made with --trust-parts, so what it has seen is not known"
    )


def test_the_refusal_has_the_option_the_risk_and_the_remedy(pets: Dataset) -> None:
    other = trained_with(again(pets, np.arange(60)[::-1].copy()))
    with pytest.raises(SeenError) as refused:
        require_apart("--classifier", other, pets, trusted=False)
    assert str(refused.value) == (
        f"--classifier pets-cnn:0123456789ab: {may_have_seen(other, pets)}. Images that are calibration or test images "
        "here may have been training images there; then p-values are too small, with more false alarms than alpha, and "
        "metrics are too good. Give a model that was trained with these data, or take the risk with --trust-parts"
    )
    assert require_apart("--classifier", other, pets, trusted=True) is True
    assert require_apart("--classifier", trained_with(pets), pets, trusted=True) is False


def test_a_source_is_of_other_data_but_not_of_these_split_anew(pets: Dataset) -> None:
    other = again(pets, np.arange(60)[::-1].copy())
    images = np.random.default_rng(5).integers(0, 256, (60, 1, 8, 8), dtype=np.uint8)
    strange = replace(cut(Split(images, np.arange(60) % 2), (30, 36, 48)), name="shells")
    assert require_other(trained_with(strange), pets, trusted=False) is False
    assert require_other(trained_with(pets), pets, trusted=False) is False
    for source in (other, replace(other, name="shells"), replace(strange, name="pets")):
        with pytest.raises(SeenError, match=r"^--from .* or take the risk with --trust-parts$"):
            require_other(trained_with(source), pets, trusted=False)
        assert require_other(trained_with(source), pets, trusted=True) is True
    with pytest.raises(SeenError, match="made with --trust-parts"):
        require_other(trained_with(strange, recipe="demo --trust-parts"), pets, trusted=False)


@pytest.mark.parametrize(
    ("role", "network"),
    [("classifier", "scorer"), ("generator", "scorer"), ("judge", "gan"), ("judge", "vae"), ("judge", "cvae")],
)
def test_training_refuses_it_before_anything_is_trained(role: str, network: str, pets: Dataset, tmp_path: Path) -> None:
    other = trained_with(again(pets, np.arange(60)[::-1].copy()))
    given = {role: other}
    how = {"seed": 0, "out": tmp_path, "resume": False, "accelerator": "cpu"}
    with pytest.raises(SeenError, match=rf"^--{role} {TAG}it was trained with the same images, split otherwise"):
        train(pets, RECIPES["demo"], [network], **how, **given)
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_no_network_takes_is_not_asked_for_its_data(pets: Dataset, tmp_path: Path) -> None:
    other = trained_with(again(pets, np.arange(60)[::-1].copy()))
    how = {"seed": 0, "out": tmp_path, "resume": False, "accelerator": "cpu"}
    assert train(pets, RECIPES["baselines"], ["vae"], classifier=other, **how) == []


def test_a_learning_curve_refuses_a_source_of_the_same_data(
    pets: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = trained_with(again(pets, np.arange(60)[::-1].copy()))
    monkeypatch.setattr("training.studies.learning_curve.run.registry.find", lambda name: other)
    monkeypatch.setattr("training.studies.learning_curve.run.registry.load", lambda name: other)
    monkeypatch.setattr(Bundle, "tag", "pets-cnn:0123456789ab", raising=False)
    with pytest.raises(SeenError, match=r"^--from .* Give a model that was trained with these data$"):
        learning_curve(pets, "pets-cnn", tmp_path / "curve.json")


def test_the_digest_of_images_knows_no_order_and_no_labels(pets: Dataset) -> None:
    assert len({data.images_digest for data in (pets, renamed(pets), relabelled(pets), reordered(pets))}) == 1
    assert extended(pets).images_digest != pets.images_digest
    turned = replace(pets, **{role: Split(getattr(pets, role).images.reshape(-1, 1, 4, 16),
                                          getattr(pets, role).labels) for role in ROLES})  # fmt: skip
    assert turned.images_digest != pets.images_digest
    assert set(seen.HELD_OUT) < set(pets.split_digests)
