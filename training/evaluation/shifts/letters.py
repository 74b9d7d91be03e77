"""Letters as anomalies for a scorer of handwritten digits: drawn like MNIST, white on black in 28x28."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw, ImageFont

from training.data.arrays import Images, philox

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Letters that look like a handwritten digit are left out: O o Q D 0; I i J j l 1; Z z 2; Y 4; S s 5; G b e 6; T 7;
# B a 8; g q y 9; d, the mirror image of b.
UNLIKE = "ACEFHKLMNPRUVWXcfhkmnprtuvwx"
SIZE = 28
BOX = 20  # pixels of the longer side, as in MNIST
DRAWN = 64  # pixels of the font, before the letter is reduced
TURN = 12  # degrees at most


def letters(count: int, alphabet: str = LETTERS, seed: int = 0) -> Images:
    """`count` letters uint8 [N,1,28,28]: those of `alphabet` in turn, in any DejaVu face, rotated by up to 12 degrees.

    As in MNIST the longer side is 20 pixels, and the centre of mass is in the middle of the image.
    """
    generator = philox(seed)
    found = faces()
    chosen = generator.integers(len(found), size=count)
    angles = generator.uniform(-TURN, TURN, count)
    drawn = [
        _letter(alphabet[number % len(alphabet)], found[face], angle)
        for number, (face, angle) in enumerate(zip(chosen, angles, strict=True))
    ]
    return np.stack(drawn)[:, None]


@cache
def faces() -> tuple[Path, ...]:
    """The DejaVu faces of matplotlib that have every letter; two others have only mathematics."""
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return tuple(path for path in sorted(folder.glob("DejaVu*.ttf")) if _has_letters(path))


def _has_letters(face: Path) -> bool:
    font = FT2Font(str(face))
    return all(font.get_char_index(ord(letter)) for letter in LETTERS)


@cache
def _font(face: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(face), DRAWN)


def _letter(letter: str, face: Path, angle: float) -> Images:
    """A letter [28,28], rotated by `angle` in degrees, counter-clockwise."""
    canvas = Image.new("L", (2 * DRAWN, 2 * DRAWN))
    ImageDraw.Draw(canvas).text((DRAWN, DRAWN), letter, fill=255, font=_font(face), anchor="mm")
    turned = canvas.rotate(angle, Image.Resampling.BILINEAR)
    ink = turned.crop(turned.getbbox())
    shrink = BOX / max(ink.size)
    width, height = (max(1, round(side * shrink)) for side in ink.size)
    return _centred(np.asarray(ink.resize((width, height), Image.Resampling.BILINEAR)))


def _centred(ink: Images) -> Images:
    """`ink` [h,w] with its centre of mass as near to the middle of 28x28 as its sides allow."""
    total = ink.sum()
    places = []
    for axis, side in enumerate(ink.shape):
        centre = (ink.sum(axis=1 - axis) * np.arange(side)).sum() / total
        places.append(int(np.clip(round((SIZE - 1) / 2 - centre), 0, SIZE - side)))
    result = np.zeros((SIZE, SIZE), np.uint8)
    top, left = places
    result[top : top + ink.shape[0], left : left + ink.shape[1]] = ink
    return result
