"""A grey picture as text: two pixels a character, in 256 colours."""

from __future__ import annotations

from PIL import Image
from rich.color import Color
from rich.style import Style
from rich.text import Text


def as_text(image: Image.Image, width: int) -> Text:
    """`image` in characters of half a block each above the other, `width` characters wide."""
    height = 2 * round(width * image.height / image.width / 2)
    grey = image.convert("L").resize((width, height), Image.Resampling.BOX)
    lines = Text()
    for top in range(0, height, 2):
        lines.append("  ")
        for x in range(width):
            upper, lower = (Color.from_rgb(*[grey.getpixel((x, y))] * 3) for y in (top, top + 1))
            lines.append("▀", Style(color=upper, bgcolor=lower))
        lines.append("\n")
    return lines
