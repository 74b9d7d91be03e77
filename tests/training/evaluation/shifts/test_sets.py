from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from training.data import Dataset, Split, load
from training.data import download as sources
from training.evaluation.shifts import sets as module
from training.evaluation.shifts.defects import DEFECTS
from training.evaluation.shifts.sets import anomaly_sets, other_data
from training.evaluation.shifts.whole_image import FAR


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load("digits")


def coloured(name: str = "photos", shape: tuple[int, ...] = (3, 20, 32)) -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (30, *shape), dtype=np.uint8)
    return Dataset(name, (), *(Split(images[rows : rows + 5]) for rows in (0, 5, 10, 15)))


def test_grey_28x28_has_every_set(digits: Dataset) -> None:
    other = replace(digits, name="others")
    made = anomaly_sets(replace(digits, name="mnist"), digits.test.images, other, count=20)
    drawn = ["letters", "letters_unlike_digits", "digits_stretched", "digits_padded", "others"]
    assert list(made) == [*FAR, *DEFECTS, *drawn]
    for images in made.values():
        assert images.shape == (20, 1, 28, 28)
        assert images.dtype == np.uint8
    again = anomaly_sets(replace(digits, name="mnist"), digits.test.images, other, count=20)
    assert all(np.array_equal(images, again[name]) for name, images in made.items())
    assert np.array_equal(made["inverted"][-1], 255 - digits.test.images[-1])  # spread over all test images


def test_the_digits_are_no_anomaly_to_themselves(digits: Dataset) -> None:
    assert not any(name.startswith("digits") for name in anomaly_sets(digits, digits.test.images, count=2))


def test_other_shapes_have_what_is_made_of_their_own_images() -> None:
    data = coloured()
    made = anomaly_sets(data, data.test.images)
    assert list(made) == [name for name in (*FAR, *DEFECTS) if name != "rotated_90"]
    assert {images.shape for images in made.values()} == {(5, 3, 20, 32)}


def test_a_set_that_would_be_empty_is_left_out() -> None:
    data = coloured()
    made = anomaly_sets(data, np.zeros((4, 3, 20, 32), np.uint8))
    assert "cut" not in made
    assert len(made["blot"]) == 4


def test_other_data_of_another_shape_are_refused(digits: Dataset) -> None:
    with pytest.raises(ValueError, match=r"photos has images of shape \(3, 20, 32\), but digits has \(1, 28, 28\)"):
        anomaly_sets(digits, digits.test.images, coloured())


def test_other_data_are_taken_from_where_their_files_are(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mnist, found = replace(digits, name="mnist"), []
    monkeypatch.setattr(module, "load", lambda name, folder: found.append((name, folder)) or digits)
    monkeypatch.delenv("DUET_DATA_DIR", raising=False)
    monkeypatch.setenv("DUET_CACHE_DIR", str(tmp_path / "cache"))
    assert other_data(digits, tmp_path) is None
    assert other_data(mnist, tmp_path) is None
    for home in ("given", "environment", "cache"):
        folder = tmp_path / home / "fashion-mnist"
        folder.mkdir(parents=True)
        for file in sources.SHA256["fashion-mnist"]:
            folder.joinpath(f"{file}.gz").touch()
    assert other_data(mnist, tmp_path / "given") is digits
    assert other_data(mnist) is digits
    monkeypatch.setenv("DUET_DATA_DIR", str(tmp_path / "environment"))
    assert other_data(mnist) is digits
    assert other_data(replace(digits, name="fashion-mnist")) is None
    homes = [tmp_path / home / "fashion-mnist" for home in ("given", "cache", "environment")]
    assert found == [("fashion-mnist", home) for home in homes]
