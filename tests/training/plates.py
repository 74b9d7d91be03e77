"""Made plates of a smooth random texture in colour, and the same with scratches: defects of a known place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.data.arrays import philox

SIDE = 64
COLOUR = (150, 120, 90)


def plates(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Plates uint8 [count,3,64,64]: a brown on which two grains of noise lie, brighter or darker as a whole."""
    generator = philox(seed)
    noise = generator.standard_normal((2, count, SIDE, SIDE))
    fine, coarse = gaussian_filter(noise[0], (0, 1.2, 1.2)), gaussian_filter(noise[1], (0, 6, 6))
    grain = 14 * fine / fine.std() + 10 * coarse / coarse.std() + 6 * generator.standard_normal((count, 1, 1))
    colours = np.array(COLOUR)[:, None, None] + grain[:, None] * np.array([1.0, 0.9, 0.7])[:, None, None]
    return colours.round().clip(0, 255).astype(np.uint8)


def scratched(images: NDArray[np.uint8], seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The plates [N,3,64,64] with a scratch each, pale or dark, and where it is [N,64,64].

    A bent line of 20 to 45 pixels, about two wide.
    """
    generator, marks = philox(seed), []
    rows, columns = np.indices((SIDE, SIDE))
    for _ in images:
        centre, angle = generator.uniform(20, SIDE - 20, 2), generator.uniform(0, np.pi)
        y, x = rows - centre[0], columns - centre[1]
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        half = generator.uniform(10, 22)
        bent = across + generator.uniform(-0.01, 0.01) * (along**2 - half**2 / 2)
        marks.append((np.abs(along) <= half) & (np.abs(bent) <= 1.1))
    where = np.stack(marks)
    levels = np.where(generator.random(len(images)) < 0.5, 225, 35)[:, None, None, None]
    return np.where(where[:, None], levels, images).astype(np.uint8), where


def write(images: NDArray[np.uint8], folder: Path) -> Path:
    """The images [N,3,H,W] as PNG files in `folder`, made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index:04d}.png")
    return folder
