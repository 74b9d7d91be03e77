"""Images of requests become uint8 [C,H,W]; images of models become PNG."""

from __future__ import annotations

import base64
import binascii
import io
import math
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import orjson
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile

from services.errors import InvalidInput, TooLarge
from services.inference.photograph import PNG, Invisible, opaque, upright, without_metadata
from services.protocol.plain_png import PlainPng, plain_png

FORMATS = ("PNG", "JPEG")

BASE64_SLICE = 2**20  # characters that are decoded at once, a multiple of 4


@dataclass(slots=True)
class ImageFile:
    """A PNG or JPEG file; only its header has been read."""

    image: Image.Image | PlainPng
    bytes: int
    field: str

    @property
    def pixels(self) -> int:
        return self.image.width * self.image.height


def to_array(value: object, shape: tuple[int, int, int], field: str, *, max_pixels: int) -> np.ndarray:
    """One image of a request as uint8 [C,H,W].

    Args:
        value: bytes of a PNG or JPEG file, its base64 text (a `data:` URL too), or nested lists of integers
            0 to 255 of shape [H,W] (one channel), [H,W,C] or [C,H,W].
        shape: (C, H, W) of the model. Files are rotated by their EXIF orientation, composed onto black if they are
        transparent, cut to 8 bits, converted to grey or RGB and resized (bilinear), as in training; nested lists
        must have this shape.
        field: the request field, for messages.
        max_pixels: larger files are refused before they are decoded.

    Raises:
        InvalidInput: not an image, or a wrong shape or value.
        TooLarge: a file with more than `max_pixels`.
    """
    opened = open_image(value, shape, field, max_pixels=max_pixels)
    return decode(opened, shape) if isinstance(opened, ImageFile) else opened


def open_image(value: object, shape: tuple[int, int, int], field: str, *, max_pixels: int) -> ImageFile | np.ndarray:
    """The cheap half of `to_array`: reads nested lists, and only the header of a file (decompression bombs)."""
    if isinstance(value, list):
        return _nested(value, shape, field)
    if isinstance(value, str):
        text = value.partition(",")[2] if value.startswith("data:") else value
        try:
            value = _base64(text)
        except (binascii.Error, ValueError):
            raise InvalidInput(
                f"{field} is text of {len(value)} characters that is not base64; send base64 of a PNG or JPEG file",
                field=field,
            ) from None
    if not isinstance(value, bytes):
        raise InvalidInput(
            f"{field} is {_kind(value)}; send base64 of a PNG or JPEG file, or nested lists", field=field
        )
    if not value:
        raise InvalidInput(f"{field} is empty; send a PNG or JPEG file", field=field)
    try:
        file = ImageFile(plain_png(value) or _open(without_metadata(value)), len(value), field)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):  # Pillow's own limit
        raise TooLarge(f"{field} has more than the {max_pixels} pixels that are allowed", field=field) from None
    except Exception as error:
        raise _damaged(error, len(value), field) from None
    if file.pixels > max_pixels:
        size = f"{file.image.width} x {file.image.height}"
        raise TooLarge(f"{field} has {size} pixels; at most {max_pixels} are allowed", field=field)
    return file


def _open(content: bytes) -> Image.Image:
    """The file, of which only the header is read; Pillow looks for the format of a sound PNG file for no reason."""
    if content.startswith(PNG):
        try:
            return PngImageFile(io.BytesIO(content))
        except Exception:  # Pillow tells what is wrong with it
            return Image.open(io.BytesIO(content), formats=FORMATS)
    return Image.open(io.BytesIO(content), formats=FORMATS)


def decode(file: ImageFile, shape: tuple[int, int, int]) -> np.ndarray:
    """The expensive half of `to_array`: decodes the pixels."""
    channels, height, width = shape
    try:
        fitted = _decoded(file.image)
        if fitted.mode != (mode := "L" if channels == 1 else "RGB"):
            fitted = fitted.convert(mode)
    except Invisible as error:
        raise InvalidInput(f"{file.field}: {error}", field=file.field) from None
    except Exception as error:
        raise _damaged(error, file.bytes, file.field) from None
    if fitted.size != (width, height):
        fitted = fitted.resize((width, height), Image.Resampling.BILINEAR)
    pixels = np.frombuffer(fitted.tobytes(), np.uint8)
    if channels == 1:
        return pixels.reshape(shape)
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


def _decoded(image: Image.Image | PlainPng) -> Image.Image:
    """The pixels, upright and opaque."""
    if isinstance(image, PlainPng):
        if (plain := image.decode()) is not None:  # it tells neither an orientation nor transparency
            return plain
        image = _open(image.content)
    with image:
        return opaque(upright(image))


def _damaged(error: Exception, size: int, field: str) -> InvalidInput:
    """The error for a damaged file: Pillow raises many types, with messages for programmers."""
    damage = "not a PNG or JPEG file" if isinstance(error, UnidentifiedImageError) else "a damaged PNG or JPEG file"
    return InvalidInput(f"{field} ({size} bytes) is {damage}", field=field)


def _nested(value: list[object], shape: tuple[int, int, int], field: str) -> np.ndarray:
    if (plain := _plain(value, shape)) is not None:
        return plain
    channels, height, width = shape
    allowed = f"[{height},{width}]" if channels == 1 else f"[{height},{width},{channels}]"
    if math.prod(apparent := _apparent_shape(value)) > 4 * math.prod(shape):  # converting it would take long
        raise InvalidInput(f"{field} has shape {apparent}; this model takes {allowed}", field=field)
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{field} is ragged: its rows differ in length; send {allowed} integers", field=field
        ) from None
    if array.dtype.kind not in "iuf" or _holds_booleans(value, array.ndim):
        raise InvalidInput(f"{field} holds values that are not integers 0 to 255; send {allowed}", field=field)
    if array.shape == (height, width, channels) and array.shape != shape:
        array = array.transpose(2, 0, 1)
    elif array.shape == (height, width) and channels == 1:
        array = array[None]
    if array.shape != shape:
        raise InvalidInput(f"{field} has shape {list(array.shape)}; this model takes {allowed}", field=field)
    wrong = ~((array >= 0) & (array <= 255) & (array == np.floor(array)))  # NaN compares false
    if wrong.any():
        raise InvalidInput(f"{field} holds {array[wrong][0]}; pixels are integers 0 to 255", field=field)
    return array.astype(np.uint8)


def _base64(text: str) -> bytes:
    """Decode in slices, because each holds Python's global lock.

    Raises:
        ValueError: it is not base64.
    """
    if len(text) <= BASE64_SLICE:
        return base64.b64decode(text, validate=True)
    parts = []
    for start in range(0, len(text), BASE64_SLICE):
        part = text[start : start + BASE64_SLICE]
        if "=" in part and start + BASE64_SLICE < len(text):
            raise ValueError("padding within the text")
        parts.append(base64.b64decode(part, validate=True))
    return b"".join(parts)


def _apparent_shape(value: object) -> list[int]:
    """The lengths of nested lists, as the first member of each says."""
    lengths: list[int] = []
    while type(value) is list and len(lengths) < 8:
        lengths.append(len(value))
        value = value[0] if value else None
    return lengths


def _plain(value: list[object], shape: tuple[int, int, int]) -> np.ndarray | None:
    """The usual case: rows of integers 0 to 255 of one channel, [H,W] or [1,H,W]; None for other values."""
    channels, height, width = shape
    if channels == 1 == len(value) and type(value[0]) is list:  # [1,H,W]
        value = value[0]
    if channels != 1 or len(value) != height or set(map(type, value)) != {list}:
        return None
    rows: list[list[object]] = value  # type: ignore[assignment]  # just checked
    if set(map(len, rows)) != {width}:
        return None
    plain = plain_bytes(rows)
    return None if plain is None else np.frombuffer(plain, np.uint8).reshape(shape)


def plain_bytes(rows: list[list[Any]], *, booleans: bool = True) -> bytes | None:
    """Integers 0 to 255 as bytes, five times as fast as NumPy checks and converts them; None for other values.

    Args:
        rows: parsed JSON.
        booleans: whether there may be booleans, which `bytes` accepts as integers; it refuses all other types.
    """
    try:
        if booleans and b"e" in orjson.dumps(rows):  # as in true and false, but not in an integer
            return None
        return b"".join(map(bytes, rows))
    except (TypeError, ValueError):
        return None


def _holds_booleans(value: list[object], depth: int) -> bool:
    """Whether there is a boolean among the numbers; NumPy would convert `true` to 1."""
    values: Iterable[object] = value
    for _ in range(depth - 1):
        values = chain.from_iterable(values)  # type: ignore[arg-type]  # NumPy found `depth` levels of lists
    return bool in set(map(type, values))


def _kind(value: object) -> str:
    kinds = {bool: "a boolean", int: "a number", float: "a number", dict: "an object"}
    return kinds.get(type(value), "null")


def png(image: np.ndarray) -> bytes:
    """One image, uint8 [C,H,W] with C 1 or 3, as a PNG file.

    Pillow's encoder takes two times (28 x 28) to five times (a grid) as long, for files that are a tenth smaller, and
    its bytes depend on the version of zlib-ng in Pillow.
    """
    channels, height, width = image.shape
    pixels = image.transpose(1, 2, 0).reshape(height, width * channels)
    rows = np.empty((height, 1 + width * channels), np.uint8)
    rows[:, 0] = 2  # the filter "up": the difference of each row from the row above
    rows[0, 1:] = pixels[0]
    np.subtract(pixels[1:], pixels[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(strategy=zlib.Z_RLE)  # after the filter, flat areas are runs of one byte
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))
        for kind, data in ((b"IHDR", header), (b"IDAT", packer.compress(rows.data) + packer.flush()), (b"IEND", b""))
    )


def text_png(image: np.ndarray) -> str:
    return base64.b64encode(png(image)).decode()


def grid(images: np.ndarray, *, columns: int | None = None) -> bytes:
    """Images uint8 [N,C,H,W] as one PNG, row by row, by default as square as possible, with a pixel between them."""
    count, channels, height, width = images.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((channels, rows * (height + 1) - 1, columns * (width + 1) - 1), 64, np.uint8)
    for i, image in enumerate(images):
        top, left = i // columns * (height + 1), i % columns * (width + 1)
        sheet[:, top : top + height, left : left + width] = image
    return png(sheet)


HEAT: Sequence[tuple[int, int, int]] = ((0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164))


def heat_map(residual: np.ndarray, scale: float) -> bytes:
    """A map [H,W] as a colour PNG: 0 is dark, `scale` and above is bright ("inferno" colours)."""
    level = np.clip(residual / scale, 0, 1) * (len(HEAT) - 1)
    stops = np.arange(len(HEAT))
    colours = [np.interp(level, stops, [stop[channel] for stop in HEAT]) for channel in range(3)]
    return png(np.stack(colours).round().astype(np.uint8))
