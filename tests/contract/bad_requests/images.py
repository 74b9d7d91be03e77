"""What every route that takes images refuses in their place."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator

from tests.contract.bad_requests.case import IMAGE, ITEMS, Case, deep, form, png, raw, text


def bomb(side: int) -> bytes:
    """A PNG whose header promises side x side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def with_pixel(pixel: object) -> list[list[object]]:
    return [[pixel, *IMAGE[0][1:]], *IMAGE[1:]]


BAD_IMAGES: tuple[tuple[str, int, object], ...] = (
    ("text", 422, "a digit"),
    ("empty text", 422, ""),
    ("text with a NUL", 422, "\0"),
    ("no image", 422, text(b"hello, world")),
    ("gif", 422, text(b"GIF89a" + bytes(50))),
    ("base64 with newlines", 422, text(png())[:40] + "\n" + text(png())[40:]),
    ("truncated PNG", 422, text(png()[:-40])),
    ("PNG signature alone", 422, text(png()[:8])),
    ("decompression bomb", 413, text(bomb(50_000))),
    ("bomb in a data URL", 413, "data:image/png;base64," + text(bomb(5_000))),
    ("PNG without its pixels", 422, text(bomb(100))),
    ("null", 422, None),
    ("number", 422, 7),
    ("boolean", 422, True),
    ("object", 422, {"b64": text(png())}),
    ("empty list", 422, []),
    ("empty rows", 422, [[]] * 28),
    ("wrong shape", 422, [[0] * 27] * 28),
    ("one row", 422, IMAGE[0]),
    ("a batch", 422, [[IMAGE]]),
    ("colour", 422, [[[0, 0, 0]] * 28] * 28),
    ("ragged", 422, [*IMAGE[:-1], IMAGE[-1][:-1]]),
    ("ragged in depth", 422, [*IMAGE[:-1], 0]),
    ("texts", 422, [["0"] * 28] * 28),
    ("booleans", 422, [[True] * 28] * 28),
    ("nulls", 422, [[None] * 28] * 28),
    ("one text", 422, with_pixel("0")),
    ("one boolean", 422, with_pixel(True)),
    ("one null", 422, with_pixel(None)),
    ("one object", 422, with_pixel({})),
    ("NaN", 422, with_pixel(float("nan"))),
    ("Infinity", 422, with_pixel(float("inf"))),
    ("-Infinity", 422, with_pixel(float("-inf"))),
    ("below 0", 422, with_pixel(-1)),
    ("above 255", 422, with_pixel(256)),
    ("fraction", 422, with_pixel(0.5)),
    ("10^19", 422, with_pixel(10**19)),
    ("10^400", 422, with_pixel(10**400)),
    ("-10^400", 422, with_pixel(-(10**400))),
    ("60 levels deep", 422, json.loads(deep(60))),
    ("100 levels deep", 422, json.loads(deep(100))),
)


def with_images(route: str) -> Iterator[Case]:
    """What every route that takes images refuses in their place."""
    pair = route == "/interpolate"  # takes exactly two: the bad one comes second
    before = [IMAGE] if pair else []
    at = f"images[{len(before)}]"

    def given(name: str, status: int, field: str, images: object, **more: object) -> Case:
        return raw(name, status, field, json.dumps({"images": images} | more))

    def file(content: bytes) -> tuple[str, bytes]:
        return ('; name=images; filename="a.png"', content)

    for name, status, image in BAD_IMAGES:
        yield given(f"image: {name}", status, at, [*before, image])
    yield raw("image: 1e999", 422, at, json.dumps({"images": [*before, with_pixel(-77)]}).replace("-77", "1e999"))
    yield given("images: empty", 422, "images", [])
    yield given("images: text", 422, "images", text(png()))
    yield given("images: number", 422, "images", 1)
    yield given("images: object", 422, "images", {"0": IMAGE})
    yield given("images: too many", 422 if pair else 413, "images", [text(png())] * (ITEMS + 1))
    yield given("a number nobody asked for", 422, "count", [IMAGE, IMAGE], count=1)
    good = [file(png())] * len(before)
    yield form("file: no image", 422, at, *good, file(b"hello, world"))
    yield form("file: empty", 422, at, *good, file(b""))
    yield form("file: truncated", 422, at, *good, file(png()[:-40]))
    yield form("file: bomb", 413, at, *good, file(bomb(50_000)))
    yield form("file: never ends", 422, None if pair else "images", file(png()), end=False)
    yield form("file: under another name", 422, "image", *good, file(png()), ("; name=image; filename=a", png()))
    yield form("file: too many", 413, "images", *([file(png())] * (ITEMS + 2)))
    yield form(
        "file: the model twice, neither known",
        404,
        "model",
        file(png()),
        file(png()),
        ("; name=model", b"a"),
        ("; name=model", b"b"),
    )
    if not pair:
        yield raw("no images", 422, "images", b"{}")
        yield given("images: null", 422, "images", None)
