"""Plain PNG files are decoded as Pillow decodes them; all others are left to it."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from services.errors import InvalidInput, TooLarge
from services.protocol import images
from services.protocol.images import to_array
from services.protocol.plain_png import FILE_BYTES, plain_png

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)


def saved(pixels: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, "PNG", **options)
    return stream.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def made(width: int, height: int, colour: int, packed: Sequence[bytes], depth: int = 8, more: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + b"".join(chunk(b"IDAT", p) for p in packed) + chunk(b"IEND", b"")


def of_pillow(content: bytes, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> object:
    """What comes of a file without the short way: the pixels, or the message."""
    with monkeypatch.context() as patched:
        patched.setattr(images, "plain_png", lambda content: None)
        return outcome(content, shape)


def outcome(content: bytes, shape: tuple[int, int, int]) -> object:
    try:
        return to_array(content, shape, "images[0]", max_pixels=10_000).tolist()
    except (InvalidInput, TooLarge) as error:
        return type(error), str(error)


@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 5, 7), (1, 28, 28), (3, 4, 4)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_plain_files(mode: str, level: int, shape: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    content = saved(PIXELS, mode, compress_level=level)
    assert plain_png(content) is not None
    assert outcome(content, shape) == of_pillow(content, shape, monkeypatch)


def test_files_in_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = b"".join(bytes([filter_]) + PIXELS[filter_].tobytes() for filter_ in range(5))
    packed = zlib.compress(rows)
    content = made(7, 5, 2, [packed[:3], b"", packed[3:50], packed[50:]])
    assert plain_png(content) is not None
    assert outcome(content, (3, 5, 7)) == of_pillow(content, (3, 5, 7), monkeypatch)


@pytest.mark.parametrize(
    "content",
    [
        saved(PIXELS, "RGBA"),
        saved(PIXELS, "P"),
        saved(PIXELS, "1"),
        saved(PIXELS, "I;16"),
        saved(PIXELS, "L", transparency=0),
        saved(PIXELS, "L", dpi=(72, 72)),
        saved(PIXELS, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"),
        saved(PIXELS) + b"more",
        saved(PIXELS)[:-1],
        saved(PIXELS).replace(b"IHDR\0\0\0\x07", b"IHDR\0\0\0\x08"),
        made(0, 5, 0, [zlib.compress(b"")]),
        made(7, 5, 0, []),
        saved(np.random.default_rng(0).integers(0, 256, (300, 300)).astype(np.uint8)),
        b"",
        b"\x89PNG\r\n\x1a\n",
    ],
)
def test_other_files_are_left_to_pillow(content: bytes) -> None:
    assert plain_png(content) is None
    assert len(content) > FILE_BYTES or len(content) < 2000


def test_metadata_are_left_to_pillow() -> None:
    told = PngImagePlugin.PngInfo()
    told.add_text("Comment", "x")
    assert plain_png(saved(PIXELS, pnginfo=told)) is None


def test_large_images_are_refused_before_they_are_decoded() -> None:
    content = made(20_000, 20_000, 0, [b"x"])
    assert plain_png(content) is not None
    assert outcome(content, (1, 5, 7))[0] is TooLarge  # type: ignore[index]


@given(st.integers(0, 400), st.integers(0, 255), st.booleans())
def test_damaged_files_have_the_same_outcome(at: int, byte: int, resealed: bool) -> None:
    """A byte of a file, or of its compressed data under a right checksum, is another one."""
    monkeypatch = pytest.MonkeyPatch()
    rows = b"".join(bytes([number % 5]) + PIXELS[number].tobytes() for number in range(5))
    content = bytearray(made(7, 5, 2, [zlib.compress(rows, 1)]))
    content[at % len(content)] = byte
    if resealed:
        content = bytearray(made(7, 5, 2, [bytes(content[41:-16])]))
    assert outcome(bytes(content), (3, 5, 7)) == of_pillow(bytes(content), (3, 5, 7), monkeypatch)


@given(st.binary(max_size=130), st.integers(0, 130))
def test_any_data_have_the_same_outcome(raw: bytes, kept: int) -> None:
    """Too few rows, too many, unknown filters, a stream that is cut short."""
    content = made(7, 5, 2, [zlib.compress(raw)[:kept]])
    assert outcome(content, (3, 5, 7)) == of_pillow(content, (3, 5, 7), pytest.MonkeyPatch())
