"""Pictures that are sent: from a folder, with labels, whatever their format."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtests.load.pictures import fresh, from_folder, patterns, pixels, png


def test_subfolders_are_labels(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        Image.new("RGB", (8, 8), "red" if label == "cat" else "blue").save(tmp_path / label / "a.jpg")
    Image.new("L", (2000, 1000)).save(tmp_path / "dog" / "b.tif")
    found = from_folder(tmp_path)
    assert found.labels == ["cat", "dog", "dog"]
    assert found.files[0] == (tmp_path / "cat" / "a.jpg").read_bytes()
    with Image.open(io.BytesIO(found.files[2])) as image:  # no format that services read
        assert (image.format, image.size) == ("PNG", (1024, 512))


def test_a_broken_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no file that ends in"):
        from_folder(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded"):
        from_folder(tmp_path)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 16, 24)])
def test_fresh_pictures_differ_in_their_lowest_bits(shape: tuple[int, int, int]) -> None:
    before = patterns(shape).files[0]
    after = [fresh(before, np.random.default_rng(seed)) for seed in (0, 1)]
    assert after[0] != after[1]
    difference = pixels(before, shape) ^ pixels(after[0], shape)
    assert difference.shape == shape
    assert set(np.unique(difference)) == {0, 1}


def test_a_png_keeps_its_pixels() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 7), dtype=np.uint8)
    assert (pixels(png(image), (3, 5, 7)) == image).all()
