"""Copies of an image: equal ones share a split, near ones are told, and digits are neither."""

from __future__ import annotations

import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from tests.training.data.test_folder import fill, noise, roles
from training.data import Dataset, load
from training.data.copies import first_of_equal, flat, near_copies
from training.data.dataset import ROLES

SIDE = 200  # of a piece of a photograph, pixels


def together(data: Dataset) -> bool:
    """Whether no image is in two splits."""
    found = [{image.tobytes() for image in getattr(data, role).images} for role in ROLES]
    return sum(map(len, found)) == len(set().union(*found))


def test_copies_follow_the_first_of_them_into_one_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "pets"
    for start, name in enumerate(("cat", "dog")):
        fill(root / name, 12, start=100 * start)
        for file in sorted((root / name).iterdir()):
            for number in range(1, 4):  # as file managers name copies
                shutil.copy(file, file.with_name(f"{file.stem} ({number}).png"))
    data = load(f"folder:{root}")
    assert sum(data.splits.values()) == 96
    assert together(data)
    for role in ROLES:
        assert set(getattr(data, role).labels) == {0, 1}, "copies must not leave a split without a class"
    (warning,) = [record.getMessage() for record in caplog.records]
    assert "72 images are copies of others, such as " in warning
    assert "copies are kept in one split" in warning


def test_a_copy_leaves_the_others_where_they_are(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    fill(root / "cat", 25)
    fill(root / "dog", 20, start=100)
    before = roles(load(f"folder:{root}"))
    for index in range(0, 25, 2):
        shutil.copy(root / "cat" / f"{index:04}.png", root / "cat" / f"copy of {index}.png")
    data = load(f"folder:{root}")
    after = roles(data)
    assert together(data)
    assert after.keys() == before.keys()
    # The first name of a picture in the order of hashes decides, so a copy may move its picture and few others.
    assert sum(after[image] != role for image, role in before.items()) < 13


def test_copies_in_two_classes_are_in_one_split(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "cat", 20)
    fill(tmp_path / "dog", 20, start=100)
    fill(tmp_path / "dog", 5)
    data = load(f"folder:{tmp_path}")
    assert (sum(data.splits.values()), together(data)) == (45, True)
    assert ["5 images are in two classes" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("classes", [("cat", "dog"), ("",)])
def test_too_few_different_images_are_too_few(classes: tuple[str, ...], tmp_path: Path) -> None:
    for start, name in enumerate(classes):
        fill(tmp_path / name, 9, start=100 * start)
        for file in sorted((tmp_path / name).glob("*.png")):
            for number in range(5):
                shutil.copy(file, file.with_name(f"{number}{file.name}"))
    message = "10 readable images in cat (9), dog (9) (copies count once)" if classes[0] else "9 different images, but"
    with pytest.raises(ValueError) as refused:  # noqa: PT011 (the message is compared below, with its brackets)
        load(f"folder:{tmp_path}")
    assert message in str(refused.value)


def test_forty_copies_of_one_picture_are_said_to_be_one(tmp_path: Path) -> None:
    [file] = fill(tmp_path, 1).iterdir()
    for number in range(1, 40):
        shutil.copy(file, tmp_path / f"copy {number}.png")
    with pytest.raises(ValueError, match=r"all 40 images have the same pixels, so there is nothing to learn"):
        load(f"folder:{tmp_path}")


def test_empty_pictures_are_no_copies(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A class of empty pictures is a class: there is nothing in them to learn by heart."""
    fill(tmp_path / "full", 20)
    (tmp_path / "empty").mkdir()
    for index in range(20):
        Image.new("L", (28, 28)).save(tmp_path / "empty" / f"{index}.png")
    data = load(f"folder:{tmp_path}")
    assert data.test.labels is not None
    assert set(data.test.labels) == {0, 1}
    assert not caplog.records


def test_equal_images_are_found_by_their_pixels() -> None:
    images = np.stack([noise(seed)[None] for seed in (1, 2, 1, 3, 2, 1)])
    assert first_of_equal(images).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_of_equal(images[:0]).tolist() == []
    almost = np.full((1, 3, 5, 5), 100, np.uint8)
    almost[0, 0, 0, 0] = 102
    assert flat(almost).tolist() == [True]
    almost[0, 0, 0, 0] = 103
    assert flat(almost).tolist() == [False]


def pieces() -> list[Image.Image]:
    """Pieces of two photographs, side by side."""
    return [
        Image.fromarray(photo[top : top + SIDE, left : left + SIDE])
        for photo in load_sample_images().images
        for top in range(0, photo.shape[0] - SIDE + 1, SIDE // 2)
        for left in range(0, photo.shape[1] - SIDE + 1, SIDE // 2)
    ]


def saved(image: Image.Image, size: int, quality: int) -> Image.Image:
    content = BytesIO()
    image.resize((size, size), Image.Resampling.LANCZOS).save(content, "JPEG", quality=quality)
    return Image.open(content)


def pixels(images: list[Image.Image], size: int, mode: str) -> np.ndarray:
    found = [np.asarray(image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)) for image in images]
    return np.stack([np.atleast_3d(image).transpose(2, 0, 1) for image in found])


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [28, 64])
def test_photographs_that_were_saved_again_are_found(size: int, mode: str) -> None:
    """In another quality, size, or both; and pieces beside each other are not taken for copies."""
    originals = pieces()
    count = len(originals)
    first = pixels(originals, size, mode)
    part = np.repeat([0, 1], count)
    shares = {}
    for side, quality in ((SIDE, 90), (SIDE, 50), (SIDE // 2, 75), (2 * SIDE, 75)):
        again = pixels([saved(image, side, quality) for image in originals], size, mode)
        pairs = near_copies(np.concatenate([first, again]), part)
        assert all(one - count == other for one, other in pairs)
        shares[side, quality] = len(pairs) / count
    print(f"{size} pixels, {mode}: found of {count} pieces, by side and quality: {shares}")
    assert min(shares.values()) > 0.9
    assert near_copies(first, np.arange(count) % 2) == []


@pytest.mark.parametrize("name", ["digits", pytest.param("mnist", marks=pytest.mark.nightly)])
def test_digits_are_no_near_copies(name: str) -> None:
    data = load(name)
    images = np.concatenate([getattr(data, role).images for role in ROLES])
    part = np.repeat(np.arange(len(ROLES)), list(data.splits.values()))
    pairs = near_copies(images, part)
    held_out = len(images) - len(data.train)
    print(f"{name}: {len(pairs)} of {held_out:,} held-out images are taken for near copies")
    assert len(pairs) <= 0.001 * held_out


def test_near_copies_are_told_and_stay_where_they_are(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = tmp_path / "photos"
    fill(root, 30, start=100)
    for index, piece in enumerate(pieces()):
        piece.save(root / f"{index}.png")
    before = load(f"folder:{root}")
    assert not caplog.records
    for index, piece in enumerate(pieces()):
        saved(piece, SIDE // 2, 80).save(root / f"{index} small.jpg")
    data = load(f"folder:{root}")
    assert sum(data.splits.values()) == sum(before.splits.values()) + len(pieces())
    (warning,) = [record.getMessage() for record in caplog.records]
    assert " are nearly equal to one of another split, such as " in warning
