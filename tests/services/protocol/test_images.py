"""Images in: real files made by Pillow, damaged ones, nested lists. Images out: PNG, read back."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as nps
from PIL import Image, PngImagePlugin

from services.errors import InvalidInput, TooLarge
from services.protocol.images import grid, heat_map, png, text_png, to_array

GREY = (1, 2, 3)
COLOUR = (3, 2, 3)
PIXELS = np.array([[0, 100, 200], [255, 50, 1]], np.uint8)


def file(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def read(value: object, shape: tuple[int, int, int] = GREY, *, max_pixels: int = 10_000) -> np.ndarray:
    array = to_array(value, shape, "images[3]", max_pixels=max_pixels)
    assert array.dtype == np.uint8
    assert array.shape == shape
    return array


def header_only_png(width: int, height: int) -> bytes:
    """A PNG that promises pixels and holds next to none."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with two megabytes of compressed text beside its pixels."""
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * 2_000_000, zip=True)
    return file(Image.fromarray(PIXELS), pnginfo=info)


def test_a_grey_png_comes_in_exactly() -> None:
    np.testing.assert_array_equal(read(file(Image.fromarray(PIXELS)))[0], PIXELS)


def test_a_colour_png_comes_in_exactly_channels_first() -> None:
    pixels = np.arange(18, dtype=np.uint8).reshape(2, 3, 3)
    np.testing.assert_array_equal(read(file(Image.fromarray(pixels)), COLOUR), pixels.transpose(2, 0, 1))


def test_a_jpeg_comes_in_as_pillow_reads_it() -> None:
    flat = Image.new("L", (3, 2), 120)
    assert abs(read(file(flat, "JPEG")).astype(int) - 120).max() <= 2


def test_a_cmyk_jpeg_becomes_grey_and_colour() -> None:
    white = file(Image.new("CMYK", (3, 2), (0, 0, 0, 0)), "JPEG")
    assert read(white).min() >= 250
    assert read(white, COLOUR).min() >= 250


def test_colour_becomes_grey_by_luma() -> None:
    image = Image.new("RGB", (3, 2), (255, 0, 0))
    assert (read(file(image)) == 76).all()  # ITU-R 601: 0.299 red


def test_grey_becomes_three_equal_channels() -> None:
    for channel in read(file(Image.fromarray(PIXELS)), COLOUR):
        np.testing.assert_array_equal(channel, PIXELS)


def test_transparency_is_laid_over_black() -> None:
    image = Image.new("RGBA", (3, 2), (255, 255, 255, 0))
    image.putpixel((1, 0), (255, 255, 255, 255))
    assert read(file(image)).tolist() == [[[0, 255, 0], [0, 0, 0]]]
    grey = Image.merge("LA", [Image.new("L", (3, 2), 200), Image.new("L", (3, 2), 0)])
    assert not read(file(grey)).any()


def test_a_palette_is_resolved_its_transparent_colours_too() -> None:
    image = Image.new("P", (3, 2), 1)
    image.putpalette([9, 9, 9, 250, 250, 250, 90, 90, 90])
    image.putpixel((0, 0), 2)
    assert read(file(image)).tolist() == [[[90, 250, 250], [250, 250, 250]]]
    assert read(file(image, transparency=bytes([255, 0, 255]))).tolist() == [[[90, 0, 0], [0, 0, 0]]]


def test_black_and_white_becomes_0_and_255() -> None:
    assert read(file(Image.new("1", (3, 2), 1))).min() == 255


def test_16_bits_are_scaled_not_clipped() -> None:
    deep = Image.fromarray(PIXELS.astype(np.uint16) * 256 + 7)
    np.testing.assert_array_equal(read(file(deep))[0], PIXELS)


def test_an_image_is_turned_as_its_exif_orientation_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    stored = Image.fromarray(np.rot90(PIXELS).copy())
    for form in ("PNG", "JPEG"):
        turned = read(file(stored, form, exif=exif, **({} if form == "PNG" else {"quality": 100})))[0]
        assert abs(turned.astype(int) - PIXELS).max() <= (0 if form == "PNG" else 40), form


def test_another_size_is_resized() -> None:
    wide = Image.new("L", (30, 7), 77)
    assert (read(file(wide)) == 77).all()


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_base64_and_data_urls_are_files_too(prefix: str) -> None:
    text = prefix + base64.b64encode(file(Image.fromarray(PIXELS))).decode()
    np.testing.assert_array_equal(read(text)[0], PIXELS)


def test_the_shortest_file_of_all_is_not_an_image() -> None:
    with pytest.raises(InvalidInput, match=r"images\[3\] is empty"):
        read(b"")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param(b"GIF89a" + bytes(30), "is not a PNG or JPEG file", id="gif"),
        pytest.param(file(Image.new("L", (3, 2)), "BMP"), "is not a PNG or JPEG file", id="bmp"),
        pytest.param(file(Image.new("L", (3, 2)), "TIFF"), "is not a PNG or JPEG file", id="tiff"),
        pytest.param(b"\x89PNG\r\n\x1a\n", "is (a damaged|not a) PNG", id="signature alone"),
        pytest.param(file(Image.fromarray(PIXELS))[:-30], "is a damaged PNG", id="truncated png"),
        pytest.param(file(Image.new("L", (99, 99)), "JPEG")[:-200], "is a damaged PNG", id="truncated jpeg"),
        pytest.param(header_only_png(30, 30), "is a damaged PNG", id="png without its pixels"),
        pytest.param("not base64!", "text of 11 characters that is not base64", id="text"),
        pytest.param("iVBOR\nw0KGgo=", "that is not base64", id="base64 with a newline"),
        pytest.param("ïVBORw0KGgo=", "that is not base64", id="letters outside ASCII"),
        pytest.param("\ud800", "that is not base64", id="lone surrogate"),
        pytest.param("data:image/png;base64", "is empty", id="data URL without data"),
        pytest.param("", "is empty", id="empty text"),
        pytest.param(None, "is null", id="null"),
        pytest.param(7, "is a number", id="number"),
        pytest.param(True, "is a boolean", id="boolean"),
        pytest.param({"b64": ""}, "is an object", id="object"),
    ],
)
def test_what_is_no_image_is_refused_by_name(value: object, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        read(value)
    assert caught.value.field == "images[3]"
    assert "images[3]" in caught.value.detail


def test_text_beside_an_image_is_not_unpacked() -> None:
    np.testing.assert_array_equal(read(text_bomb())[0], PIXELS)


@pytest.mark.parametrize("side", [101, 5_000, 50_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    bomb = header_only_png(side, side)
    with pytest.raises(TooLarge, match=r"images\[3\].* 10000 ") as caught:
        read(bomb)
    assert caught.value.status == 413


def test_as_many_pixels_as_allowed_are_taken() -> None:
    assert not read(file(Image.new("L", (100, 100)))).any()


def turned(form: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file(Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)), form, exif=exif)


TURNED = {form: turned(form) for form in ("PNG", "JPEG")}


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), form=st.sampled_from(["PNG", "JPEG"]))
@pytest.mark.filterwarnings("ignore")  # of Pillow's, about damaged files
def test_a_damaged_file_never_raises_anything_but_its_own_error(data: st.DataObject, form: str) -> None:
    raw = bytearray(TURNED[form])
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    with suppress(InvalidInput, TooLarge):
        read(bytes(raw))


def test_nested_lists_are_taken_flat_channels_last_and_channels_first() -> None:
    np.testing.assert_array_equal(read(PIXELS.tolist())[0], PIXELS)
    np.testing.assert_array_equal(read(PIXELS[None].tolist())[0], PIXELS)
    np.testing.assert_array_equal(read(PIXELS[..., None].tolist())[0], PIXELS)
    colour = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    np.testing.assert_array_equal(read(colour.tolist(), COLOUR), colour)
    np.testing.assert_array_equal(read(colour.transpose(1, 2, 0).tolist(), COLOUR), colour)


def test_floats_that_are_integers_are_integers() -> None:
    assert read([[0.0, 255.0, 1e2], [-0.0, 1, 2]]).tolist() == [[[0, 255, 100], [0, 1, 2]]]


def nested(pixel: object) -> list[list[object]]:
    return [[0, 1, pixel], [4, 5, 6]]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param([], r"shape \[0\]; this model takes \[2,3\]", id="empty"),
        pytest.param([[], []], r"shape \[2, 0\]", id="empty rows"),
        pytest.param([1, 2, 3], r"shape \[3\]", id="flat"),
        pytest.param([[1, 2], [3, 4]], r"shape \[2, 2\]", id="too narrow"),
        pytest.param([[1, 2], [3, 4], [5, 6]], r"shape \[3, 2\]", id="on its side"),
        pytest.param([[[1, 1, 1]] * 3] * 2, r"shape \[2, 3, 3\]", id="colour for a grey model"),
        pytest.param([[[[1, 2, 3], [4, 5, 6]]]], r"shape \[1, 1, 2, 3\]", id="a batch"),
        pytest.param([[1, 2, 3], [4, 5]], "ragged", id="ragged"),
        pytest.param([[1, 2, 3], 4], "ragged", id="ragged in depth"),
        pytest.param(nested([1]), "ragged", id="a list for a pixel"),
        pytest.param(nested("7"), "not integers 0 to 255", id="text"),
        pytest.param(nested(None), "not integers 0 to 255", id="null"),
        pytest.param(nested({}), "not integers 0 to 255", id="object"),
        pytest.param(nested(True), "not integers 0 to 255", id="boolean among numbers"),
        pytest.param([[True, False, True]] * 2, "not integers 0 to 255", id="booleans"),
        pytest.param([[[1], [2], [True]], [[4], [5], [6]]], "not integers 0 to 255", id="boolean in depth"),
        pytest.param(nested(float("nan")), "holds nan", id="not a number"),
        pytest.param(nested(float("inf")), "holds inf", id="infinity"),
        pytest.param(nested(-1), "holds -1; pixels are integers 0 to 255", id="negative"),
        pytest.param(nested(256), "holds 256", id="above 255"),
        pytest.param(nested(0.5), "holds 0.5", id="fraction"),
        pytest.param(nested(2**40), "holds 1099511627776", id="beyond 32 bits"),
        pytest.param(nested(2**64), "integers 0 to 255", id="beyond 64 bits"),
        pytest.param(nested(10**400), "integers 0 to 255", id="beyond doubles"),
        pytest.param(nested(-(10**400)), "integers 0 to 255", id="far below zero"),
        pytest.param([[1e308, 1e-308, 5e-324]] * 2, "holds 1e\\+308", id="extreme doubles"),
    ],
)
def test_nested_lists_that_are_no_image_are_refused_by_name(value: list[object], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        read(value)
    assert caught.value.field == "images[3]"
    assert caught.value.detail.startswith("images[3] ")


@pytest.mark.parametrize("depth", [40, 70, 150])
def test_deep_nesting_is_refused(depth: int) -> None:
    value: list[object] = [1]
    for _ in range(depth):
        value = [value]
    with pytest.raises(InvalidInput, match=r"images\[3\]"):
        read(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=12,
)


@given(json_values)
def test_no_json_value_raises_anything_but_its_own_error(value: object) -> None:
    with suppress(InvalidInput):
        read(value, (1, 1, 1))


@given(nps.arrays(np.uint8, st.sampled_from([(1, 4, 5), (3, 4, 5), (1, 1, 1)])))
def test_a_png_comes_back_as_it_went_out(image: np.ndarray) -> None:
    shape = (image.shape[0], image.shape[1], image.shape[2])
    np.testing.assert_array_equal(read(png(image), shape), image)
    np.testing.assert_array_equal(read(text_png(image), shape), image)


def opened(raw: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(raw)) as image:
        return np.asarray(image)


def test_a_grid_is_as_square_as_may_be_row_by_row_with_a_line_between() -> None:
    images = np.stack([np.full((1, 2, 2), 10 * i, np.uint8) for i in range(5)])
    sheet = opened(grid(images))
    assert sheet.shape == (2 * 3 - 1, 3 * 3 - 1)
    assert sheet[::3, ::3].tolist() == [[0, 10, 20], [30, 40, 64]], "the missing sixth is background"
    assert (sheet[2] == 64).all()
    assert (sheet[:, [2, 5]] == 64).all()


def test_a_grid_takes_colour_and_a_number_of_columns() -> None:
    images = np.zeros((4, 3, 2, 2), np.uint8)
    assert opened(grid(images, columns=4)).shape == (2, 11, 3)
    assert opened(grid(images[:1])).shape == (2, 2, 3)


def test_a_heat_map_goes_from_dark_to_bright_and_saturates() -> None:
    colours = opened(heat_map(np.array([[0.0, 2.0, 4.0, 40.0, -3.0]]), 4.0))
    assert colours.shape == (1, 5, 3)
    assert colours[0, 0].tolist() == [0, 0, 4]
    assert colours[0, 1].tolist() == [188, 55, 84]
    assert colours[0, 2].tolist() == colours[0, 3].tolist() == [252, 255, 164]
    assert colours[0, 4].tolist() == colours[0, 0].tolist()
