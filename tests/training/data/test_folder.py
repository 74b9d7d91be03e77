from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from services.protocol.images import to_array
from training.data import Dataset, load
from training.data.dataset import ROLES
from training.data.folder import read_image


def noise(seed: int, height: int = 28, width: int = 28) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def fill(folder: Path, count: int, start: int = 0) -> Path:
    """Write `count` distinct grey 28x28 PNG files."""
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(start, start + count):
        Image.fromarray(noise(index)).save(folder / f"{index:04}.png")
    return folder


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """25 cats and 20 dogs."""
    fill(tmp_path / "pets" / "dog", 20, start=100)
    fill(tmp_path / "pets" / "cat", 25)
    return tmp_path / "pets"


def roles(data: Dataset) -> dict[bytes, str]:
    return {image.tobytes(): role for role in ROLES for image in getattr(data, role).images}


def test_a_sub_folder_a_class(pets: Path) -> None:
    data = load(f"folder:{pets}")
    assert data.name == "pets"
    assert data.class_names == ("cat", "dog")
    assert data.image_shape == (1, 28, 28)
    assert data.splits == {"train": 32, "validation": 4, "calibration": 5, "test": 4}
    expected = {noise(index).tobytes(): 0 for index in range(25)}
    expected |= {noise(index).tobytes(): 1 for index in range(100, 120)}
    found: dict[bytes, int] = {}
    for role in ROLES:
        split = getattr(data, role)
        assert set(split.labels) == {0, 1}
        assert split.images.flags.c_contiguous
        found |= {image.tobytes(): label for image, label in zip(split.images, split.labels, strict=True)}
    assert found == expected  # each image once, its pixels untouched, under its label


def test_no_sub_folders_no_labels(tmp_path: Path) -> None:
    data = load(f"folder:{fill(tmp_path / 'loose', 40)}")
    assert data.class_names == ()
    assert data.splits == {"train": 28, "validation": 4, "calibration": 4, "test": 4}
    assert data.train.labels is None
    # Cut in the order of the names' hashes, not of the names, which often tell the time of the picture.
    order = sorted(range(40), key=lambda index: hashlib.sha256(f"{index:04}.png".encode()).digest())
    images = np.concatenate([getattr(data, role).images for role in ROLES])
    assert images.tobytes() == b"".join(noise(index).tobytes() for index in order)


def test_same_files_same_digest_wherever_the_folder_lies(pets: Path, tmp_path: Path) -> None:
    before = load(f"folder:{pets}").digest
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pets.rename(elsewhere / "pets")
    assert load(f"folder:{elsewhere / 'pets'}").digest == before
    fill(elsewhere / "pets" / "cat", 1, start=50)
    assert load(f"folder:{elsewhere / 'pets'}").digest != before


def test_a_new_file_moves_at_most_three_others(pets: Path) -> None:
    before = roles(load(f"folder:{pets}"))
    for new in range(30, 40):
        fill(pets / "cat", 1, start=new)
        after = roles(load(f"folder:{pets}"))
        assert sum(after[image] != role for image, role in before.items()) <= 3
        before = after


def test_deeper_files_and_upper_case_extensions_are_found_and_hidden_ones_are_not(
    pets: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fill(pets / "cat" / "more" / "still more", 2, start=60)
    Image.fromarray(noise(70)).save(pets / "cat" / "UPPER.PNG")
    for name in ("a.JPG", "b.jpeg", "c.JpEg"):
        Image.fromarray(noise(71)).save(pets / "dog" / name, "JPEG")
    fill(pets / ".thumbnails", 3, start=80)
    (pets / "cat" / "._0001.png").write_bytes(b"resource fork")
    (pets / "cat" / "notes.txt").write_text("a good cat")
    data = load(f"folder:{pets}")
    assert data.class_names == ("cat", "dog")
    assert sum(data.splits.values()) == 45 + 2 + 1 + 3
    assert "ignored 1 files" in caplog.text
    assert "notes.txt" in caplog.text


def test_images_beside_sub_folders_are_refused(pets: Path) -> None:
    fill(pets, 2, start=200)
    with pytest.raises(ValueError, match=r"2 images such as 0200\.png are beside class folders \(cat, dog\)"):
        load(f"folder:{pets}")


def test_too_few_in_a_class_or_in_all_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    fill(root / "cat", 9)
    fill(root / "dog", 40, start=100)
    (root / "eel").mkdir()
    with pytest.raises(ValueError, match=r"fewer than 10 readable images in cat \(9\), eel \(0\);"):
        load(f"folder:{root}")
    fill(tmp_path / "few" / "a", 15)
    fill(tmp_path / "few" / "b", 15, start=50)
    with pytest.raises(ValueError, match="30 readable images, but at least 40"):
        load(f"folder:{tmp_path / 'few'}")
    fill(tmp_path / "loose", 39)
    with pytest.raises(ValueError, match="39 readable images, but at least 40"):
        load(f"folder:{tmp_path / 'loose'}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="0 readable images"):
        load(f"folder:{tmp_path / 'empty'}")


@pytest.mark.parametrize("path", ["nowhere", "file"])
def test_no_such_folder(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(FileNotFoundError, match=f"{path}: no such folder"):
        load(f"folder:{tmp_path / path}")


def truncated(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def other_format(path: Path) -> None:
    Image.fromarray(noise(0)).save(path, "BMP")


def bomb(path: Path) -> None:
    Image.new("1", (12_000, 12_000)).save(path, "PNG")  # 144 million pixels in 18 kB


def huge_text(path: Path) -> None:
    """A small image with 70 MB of compressed text beside it."""
    text = PngInfo()
    for index in range(70):
        text.add_text(f"key {index}", "a" * 1_000_000, zip=True)
    Image.fromarray(noise(7)).save(path, "PNG", pnginfo=text)


@pytest.mark.parametrize("spoil", [truncated, empty, other_format, bomb])
def test_unreadable_file_is_refused_by_name_or_skipped_with_a_warning(
    pets: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None]
) -> None:
    spoil(pets / "cat" / "0007.png")
    with pytest.raises(ValueError, match=r"cat/0007\.png: not readable as PNG or JPEG .*skip"):
        load(f"folder:{pets}")
    data = load(f"folder:{pets}", on_unreadable="skip")
    assert sum(data.splits.values()) == 44
    assert noise(7).tobytes() not in roles(data)
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1
    assert "cat/0007.png" in warnings[0].getMessage()


def test_text_beside_an_image_is_not_unpacked(pets: Path, caplog: pytest.LogCaptureFixture) -> None:
    huge_text(pets / "cat" / "0007.png")
    assert sum(load(f"folder:{pets}").splits.values()) == 45
    assert not caplog.records


def test_classes_are_counted_after_skipping(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    fill(root / "cat", 10)
    fill(root / "dog", 40, start=100)
    truncated(root / "cat" / "0003.png")
    with pytest.raises(ValueError, match=r"fewer than 10 readable images in cat \(9\)"):
        load(f"folder:{root}", on_unreadable="skip")


def test_colour_and_size(pets: Path) -> None:
    data = load(f"folder:{pets}", colour=True, image_size=16)
    assert data.image_shape == (3, 16, 16)
    assert (data.train.images[:, 0] == data.train.images[:, 2]).all()  # grey files have equal channels
    with pytest.raises(ValueError, match="image_size 0"):
        load(f"folder:{pets}", image_size=0)


def saved(path: Path, image: Image.Image, format: str = "PNG", **options: object) -> Path:
    image.save(path, format, **options)
    return path


def test_colour_as_rgb_or_as_luma(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.new("RGB", (8, 8), (200, 100, 50)))
    assert read_image(path, 8, colour=True)[:, 0, 0].tolist() == [200, 100, 50]
    assert read_image(path, 8, colour=False)[:, 0, 0].tolist() == [round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)]


def test_jpeg_by_content_under_a_png_name(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.new("L", (8, 8), 77), "JPEG", quality=95)
    assert abs(int(read_image(path, 8, colour=False)[0, 4, 4]) - 77) <= 1


def test_cmyk_jpeg(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.jpg", Image.new("RGB", (8, 8), (200, 100, 50)).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read_image(path, 8, colour=True)[:, 4, 4].astype(int) - [200, 100, 50]).max() <= 4


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    grey = noise(0)
    path = saved(tmp_path / "x.png", Image.fromarray(grey.astype(np.uint16) * 257))
    with Image.open(path) as image:
        assert image.mode.startswith("I")  # it is a 16-bit file that is read here
    assert np.array_equal(read_image(path, 28, colour=False)[0], grey)
    assert np.array_equal(read_image(path, 28, colour=True), np.stack([grey] * 3))


def test_transparency_lies_over_black(tmp_path: Path) -> None:
    rgba = Image.new("RGBA", (8, 8), (200, 100, 50, 0))
    rgba.paste((200, 100, 50, 255), (0, 0, 4, 8))
    pixels = read_image(saved(tmp_path / "rgba.png", rgba), 8, colour=True)
    assert pixels[:, 0, 0].tolist() == [200, 100, 50]
    assert pixels[:, 0, 7].tolist() == [0, 0, 0]
    half = read_image(saved(tmp_path / "la.png", Image.new("LA", (8, 8), (200, 128))), 8, colour=False)
    assert abs(int(half[0, 0, 0]) - 100) <= 1


def test_palette_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.new("P", (8, 8), 0)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.paste(1, (4, 0, 8, 8))
    solid = read_image(saved(tmp_path / "solid.png", palette), 8, colour=True)
    assert solid[:, 0, 0].tolist() == [10, 20, 30]
    assert solid[:, 0, 7].tolist() == [40, 50, 60]
    for transparency in (1, b"\xff\x00"):
        path = saved(tmp_path / "clear.png", palette, transparency=transparency)
        clear = read_image(path, 8, colour=True)
        assert clear[:, 0, 0].tolist() == [10, 20, 30]
        assert clear[:, 0, 7].tolist() == [0, 0, 0]


def test_one_bit(tmp_path: Path) -> None:
    image = Image.new("1", (8, 8), 0)
    image.paste(1, (4, 0, 8, 8))
    assert read_image(saved(tmp_path / "x.png", image), 8, colour=False)[0, 0].tolist() == [0] * 4 + [255] * 4


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 16), np.uint8)
    upright[:8, :8] = 200  # the upper left quarter, and half as bright the upper right one
    upright[:8, 8:] = 100
    turn = {1: (), 2: (0,), 3: (3,), 4: (1,), 5: (5,), 6: (2,), 7: (6,), 8: (4,)}[orientation]
    stored = Image.fromarray(upright)
    for transpose in turn:
        stored = stored.transpose(Image.Transpose(transpose))
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "x.png", stored, exif=exif)
    assert np.array_equal(read_image(path, 16, colour=False)[0], upright)


@pytest.mark.parametrize(("height", "width"), [(20, 40), (40, 20), (2, 1000), (1000, 2), (3, 1), (500, 400)])
def test_the_whole_image_fills_the_square_whatever_its_aspect_ratio(tmp_path: Path, height: int, width: int) -> None:
    quarters = np.kron(np.array([[250, 150], [100, 50]], np.uint8), np.ones((500, 500), np.uint8))
    stored = Image.fromarray(quarters).resize((width, height), Image.Resampling.BOX)
    square = read_image(saved(tmp_path / "x.png", stored), 20, colour=False)[0]
    if width > 1:  # a single column has the mean of both
        assert [square[0, 0], square[0, -1], square[-1, 0], square[-1, -1]] == [250, 150, 100, 50]
    assert abs(float(square.mean()) - quarters.mean()) < 6


@pytest.mark.parametrize(
    ("format", "mode"), [*(("PNG", mode) for mode in ("L", "RGB", "P", "1", "I;16")), ("JPEG", "L"), ("JPEG", "RGB")]
)
@pytest.mark.parametrize("size", [(28, 28), (50, 31)])
@pytest.mark.parametrize("colour", [False, True])
def test_training_sees_a_file_as_the_services_do(
    tmp_path: Path, format: str, mode: str, size: tuple[int, int], colour: bool
) -> None:
    image = Image.fromarray(np.stack([noise(seed, size[1], size[0]) for seed in range(3)], axis=2))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 256 + 128)
    elif mode != "RGB":
        image = image.convert(mode)
    path = saved(tmp_path / "x", image, format)
    served = to_array(path.read_bytes(), (3 if colour else 1, 28, 28), "image", max_pixels=10**6)
    assert np.array_equal(read_image(path, 28, colour), served)


def test_same_size_is_untouched(tmp_path: Path) -> None:
    path = saved(tmp_path / "x.png", Image.fromarray(noise(5)))
    assert np.array_equal(read_image(path, 28, colour=False)[0], noise(5))


def test_every_cut_of_a_file_is_an_image_or_a_named_value_error(tmp_path: Path) -> None:
    for format in ("PNG", "JPEG"):
        buffer = BytesIO()
        Image.fromarray(noise(1, 12, 12)).save(buffer, format)
        whole = buffer.getvalue()
        path = tmp_path / "cut.png"
        refused = 0
        for length in range(0, len(whole), 3):
            path.write_bytes(whole[:length])
            try:
                assert read_image(path, 12, colour=False).shape == (1, 12, 12)
            except ValueError as error:
                assert "cut.png: not readable" in str(error)  # noqa: PT017
                refused += 1
        assert refused > len(whole) / 3 / 2


def test_flipped_bytes_are_an_image_or_a_named_value_error(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    path = tmp_path / "flipped.png"
    refused = 0
    for format in ("PNG", "JPEG"):
        exif = Image.Exif()
        exif[0x0112] = 6
        saved(path, Image.fromarray(noise(1, 12, 12)), format, exif=exif)
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for _ in range(200):
            flipped = whole.copy()
            flipped[random.integers(0, len(whole), 4)] = random.integers(0, 256, 4, dtype=np.uint8)
            path.write_bytes(flipped.tobytes())
            try:
                assert read_image(path, 12, colour=False).shape == (1, 12, 12)
            except ValueError as error:
                assert "flipped.png: not readable" in str(error)  # noqa: PT017
                refused += 1
    assert refused > 0
