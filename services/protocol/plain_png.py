"""PNG files with nothing but pixels of 8 bits, grey or RGB, not interlaced: what most programs write.

Pillow needs more time to find its way through such a file than to decode it. Its decoder is used here, too, so the
pixels are the same. Any other file, also a damaged one, is left to Pillow.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass

from PIL import Image

from services.inference.photograph import PNG

HEAD = PNG + b"\0\0\0\x0dIHDR"
HEAD_BYTES = 33  # with its CRC
FILE_BYTES = 2**16  # of the longest file; of longer ones most of the time is decoding
END = b"\0\0\0\0IEND\xaeB`\x82"
MODES = {b"\x08\0\0\0\0": "L", b"\x08\x02\0\0\0": "RGB"}  # depth, colour type, compression, filter, interlacing


@dataclass(slots=True)
class PlainPng:
    """Such a file, not yet decoded.

    Attributes:
        content: the whole file.
        mode: of Pillow.
        packed: the pixels, compressed.
    """

    content: bytes
    mode: str
    width: int
    height: int
    packed: bytes

    def decode(self) -> Image.Image | None:
        """The image; None if its data are damaged."""
        try:
            return Image.frombytes(self.mode, (self.width, self.height), self.packed, "zip", self.mode, 0)
        except Exception:  # Pillow raises many types
            return None


def plain_png(content: bytes) -> PlainPng | None:
    """The file, if it is a plain PNG: a sound header, then data, then the end."""
    mode = MODES.get(content[24:29])
    if mode is None or len(content) > FILE_BYTES or not (content.startswith(HEAD) and content.endswith(END)):
        return None
    if zlib.crc32(content[12:29]) != int.from_bytes(content[29:HEAD_BYTES]):
        return None
    width, height = int.from_bytes(content[16:20]), int.from_bytes(content[20:24])
    at, end = HEAD_BYTES, len(content) - len(END)
    parts = []
    while at < end:
        stop = at + 12 + int.from_bytes(content[at : at + 4])
        if content[at + 4 : at + 8] != b"IDAT" or stop > end:
            return None
        parts.append(content[at + 8 : stop - 4])
        at = stop
    return PlainPng(content, mode, width, height, b"".join(parts)) if parts and width and height else None
