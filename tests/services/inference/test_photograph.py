"""Image files as people have them."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from services.inference.photograph import TURNS, Invisible, opaque, upright, without_metadata

GREY = np.arange(6 * 4, dtype=np.uint8).reshape(6, 4) * 10


def jpeg(exif: bytes) -> Image.Image:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "JPEG", exif=exif, quality=100)
    return Image.open(io.BytesIO(stream.getvalue()))


@pytest.mark.parametrize("orientation", range(10))
def test_an_image_is_turned_as_pillow_turns_it(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = jpeg(exif.tobytes())
    assert np.array_equal(np.asarray(upright(image)), np.asarray(ImageOps.exif_transpose(image)))


@pytest.mark.parametrize("tag", [0x011A, 0x0102, 0x0106, 0x0103, 0x0110])
def test_the_orientation_is_read_though_other_metadata_are_of_a_wrong_type(tag: int) -> None:
    """XResolution, BitsPerSample and others stored as text."""
    entries = [(0x0112, 3, 1, struct.pack("<HH", 3, 0)), (tag, 2, 4, b"abc\0")]
    table = b"".join(struct.pack("<HHI", *entry[:3]) + entry[3] for entry in sorted(entries))
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + table + bytes(4)
    assert np.array_equal(np.asarray(upright(jpeg(exif))), np.asarray(jpeg(b""))[::-1, ::-1])


def test_metadata_that_cannot_be_read_do_not_matter() -> None:
    assert np.asarray(upright(jpeg(b"Exif\0\0broken"))).shape == GREY.shape
    assert set(TURNS) == set(range(2, 9))


def png(**options: object) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(GREY).save(stream, "PNG", **options)
    return stream.getvalue()


@pytest.mark.parametrize("packed", [False, True])
def test_texts_and_profiles_of_a_png_are_left_out(packed: bool) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("small", "text")
    info.add_text("large", "x" * 1_500_000, zip=packed)
    info.add_itxt("XML:com.adobe.xmp", "y" * 1_500_000, zip=packed)  # 2 KB in the file, too large for Pillow
    for content in (png(pnginfo=info), png(icc_profile=np.random.default_rng(0).bytes(2_000_000))):
        slim = without_metadata(content)
        assert len(slim) < 1000
        with Image.open(io.BytesIO(slim)) as image:
            assert np.array_equal(np.asarray(image), GREY)


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", png(), png()[:40], png()[:-3], b"\xff\xd8\xffiCCP"])
def test_other_files_stay_as_they_are(content: bytes) -> None:
    assert without_metadata(content) == content
    chunk = struct.pack(">I", 2**31) + b"tEXt" + bytes(20)
    broken = png()[:33] + chunk + struct.pack(">I", zlib.crc32(b""))
    assert without_metadata(broken) == broken


def drawing(ink: int, *, alpha: int = 255) -> Image.Image:
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[2:6, 3] = (ink, ink, ink, alpha)
    return Image.fromarray(pixels)


def test_what_is_transparent_is_black() -> None:
    assert np.asarray(opaque(drawing(200)).convert("L"))[3].tolist() == [0, 0, 0, 200, 0, 0, 0, 0]
    assert opaque(drawing(0, alpha=0)).mode == "RGBA"  # nothing was drawn


def test_black_strokes_on_a_transparent_ground_are_refused() -> None:
    with pytest.raises(Invisible, match="black on a transparent ground"):
        opaque(drawing(0))
