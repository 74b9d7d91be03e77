"""Image files as people have them: turned by their orientation, transparent, with 16 bits, with large metadata."""

from __future__ import annotations

import numpy as np
from PIL import Image

ORIENTATION = 0x0112  # EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TOLD_BY = frozenset({"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"})  # where Pillow looks for it
PNG = b"\x89PNG\r\n\x1a\n"
METADATA = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")


class Invisible(ValueError):
    """Nothing of a transparent image is left on a black ground."""


def upright(image: Image.Image) -> Image.Image:
    """The image turned by its EXIF orientation. Nothing else of the metadata is read, because it may be damaged."""
    image.load()
    if TOLD_BY.isdisjoint(image.info):
        return image
    try:
        turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # Pillow raises many types
        turn = None
    return image if turn is None else image.transpose(turn)


def opaque(image: Image.Image) -> Image.Image:
    """The image with 8 bits a channel, on black where it is transparent.

    Raises:
        Invisible: it shows something, but dark on a transparent ground, as drawing programs export it.
    """
    if image.mode.startswith("I"):  # 16-bit grey: Pillow's conversion clips, it does not scale
        return Image.fromarray((np.asarray(image, np.uint32) >> 8).astype(np.uint8))
    if not image.has_transparency_data:
        return image
    image = image.convert("RGBA")
    ground = Image.new("RGBA", image.size, "black")
    on_black = Image.alpha_composite(ground, image)
    lowest, highest = image.getchannel("A").getextrema()
    shown = np.asarray(on_black)
    if lowest != highest and (shown == shown[0, 0]).all():
        raise Invisible("it is black on a transparent ground, and transparent is black here; send it on a white ground")
    return on_black


def without_metadata(content: bytes) -> bytes:
    """A PNG file without colour profiles and texts, whose unpacked size Pillow limits; other files as they are."""
    if not content.startswith(PNG) or not any(kind in content for kind in METADATA):
        return content
    kept, at = [PNG], len(PNG)
    while at + 12 <= len(content):
        stop = at + 12 + int.from_bytes(content[at : at + 4])
        if stop > len(content):
            return content  # cut short: Pillow says so
        if content[at + 4 : at + 8] not in METADATA:
            kept.append(content[at:stop])
        at = stop
    return content if len(kept) == 1 else b"".join([*kept, content[at:]])
