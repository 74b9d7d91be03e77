"""Small defects of normal images (a blot, a cut, a scratch), and the pixels that they change.

Lengths are in pixels of an image 28 wide, and grow with the image's shorter side.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from training.data.arrays import Array, Images, Mask, philox

WIDTH = 28
BLOT = (3, 7)  # both diameters
CUT = (3, 7)  # the gap, along the stroke
REACH = 4  # of a cut to either side across the stroke: more than half of a stroke's width
SCRATCH = (6, 14)  # its length; it is one pixel wide


class Defects(NamedTuple):
    """Damaged images uint8 [M,C,H,W], and where they differ from the originals: non-empty masks bool [M,H,W]."""

    images: Images
    mask: Mask


def defects(images: Images, seed: int = 0) -> dict[str, Defects]:
    """Every kind of defect in `images` uint8 [N,C,H,W], by name; an image that a kind cannot damage is left out."""
    return {name: maker(images, philox(seed)) for name, maker in DEFECTS.items()}


def blot(images: Images, generator: np.random.Generator) -> Defects:
    """An ellipse in the middle half: white where it is dark beneath, black where it is bright."""
    scale = _scale(images)
    along, across = _frame(images, *_places(images, generator), generator.uniform(0, np.pi, len(images)))
    # Large enough to cover the centre of a pixel at any position.
    axes = np.maximum(generator.uniform(*BLOT, (2, len(images), 1, 1)) * scale / 2, 0.75)
    return _painted(images, (along / axes[0]) ** 2 + (across / axes[1]) ** 2 <= 1)


def scratch(images: Images, generator: np.random.Generator) -> Defects:
    """A straight line through the middle half: white where it is dark beneath, black where it is bright."""
    scale = _scale(images)
    along, across = _frame(images, *_places(images, generator), generator.uniform(0, np.pi, len(images)))
    length = generator.uniform(*SCRATCH, (len(images), 1, 1)) * scale
    return _painted(images, (abs(along) <= length / 2) & (abs(across) <= max(scale, 1) / 2))


def cut(images: Images, generator: np.random.Generator) -> Defects:
    """A gap through ink, in the colour of the background, across the stroke if there is one.

    Background is the median of the outermost pixels; ink is what differs from it at least half as much as the pixel
    that differs most.
    """
    scale = _scale(images)
    background = _background(images)
    contrast = abs(images - background[..., None, None].astype(np.float32)).max(axis=1)
    ink = contrast >= np.maximum(contrast.max(axis=(1, 2), keepdims=True) / 2, 1)
    y, x = _one_of(ink, generator)
    gap = generator.uniform(*CUT, (len(images), 1, 1)) * scale
    along, across = _frame(images, y, x, _direction(ink, y, x, REACH * scale))
    inside = (abs(along) <= gap / 2) & (abs(across) <= REACH * scale)
    return _changed(images, np.where(inside[:, None], background[..., None, None], images))


DEFECTS: dict[str, Callable[[Images, np.random.Generator], Defects]] = {"blot": blot, "cut": cut, "scratch": scratch}


def _scale(images: Images) -> float:
    return float(min(images.shape[2:])) / WIDTH


def _places(images: Images, generator: np.random.Generator) -> tuple[Array, Array]:
    """A row and a column [N] in the middle half of each image, not only whole numbers."""
    height, width = images.shape[2:]
    y, x = generator.uniform(0.25, 0.75, (2, len(images)))
    return y * (height - 1), x * (width - 1)


def _frame(images: Images, y: Array, x: Array, angle: Array) -> tuple[Array, Array]:
    """Distances of pixels [N,H,W] from `y`, `x` [N], along `angle` [N] (from the right, downwards) and across it."""
    rows, columns = np.ogrid[: images.shape[2], : images.shape[3]]
    down, right = rows - y[:, None, None], columns - x[:, None, None]
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    return cosine * right + sine * down, cosine * down - sine * right


def _painted(images: Images, inside: Mask) -> Defects:
    """What is `inside` [N,H,W] in the colour that contrasts with the mean beneath it."""
    beneath = np.where(inside[:, None], images, 0).sum(axis=(1, 2, 3))
    dark = beneath < 128 * images.shape[1] * inside.sum(axis=(1, 2))
    colour = np.where(dark, 255, 0).astype(np.uint8)[:, None, None, None]
    return _changed(images, np.where(inside[:, None], colour, images))


def _changed(images: Images, damaged: Images) -> Defects:
    mask = (damaged != images).any(axis=1)
    some = mask.any(axis=(1, 2))
    return Defects(damaged[some], mask[some])


def _background(images: Images) -> Images:
    """The median of the outermost pixels [N,C]."""
    sides = (images[:, :, 0], images[:, :, -1], images[:, :, 1:-1, 0], images[:, :, 1:-1, -1])
    background: Images = np.median(np.concatenate(sides, axis=2), axis=2).astype(np.uint8)
    return background


def _one_of(ink: Mask, generator: np.random.Generator) -> tuple[Array, Array]:
    """Row and column [N] of a random pixel of each image's ink [N,H,W]; the first pixel if there is no ink."""
    drawn = generator.random(ink.shape)
    place = np.where(ink, drawn, -1).reshape(len(ink), -1).argmax(axis=1)
    y, x = np.divmod(place, ink.shape[2])
    return y, x


def _direction(ink: Mask, y: Array, x: Array, reach: float) -> Array:
    """The angle [N] of the stroke at `y`, `x` [N]: the principal axis of the ink within `reach` pixels."""
    rows, columns = np.ogrid[: ink.shape[1], : ink.shape[2]]
    down, right = rows - y[:, None, None], columns - x[:, None, None]
    near = ink & (down**2 + right**2 <= reach**2)
    total = np.maximum(near.sum(axis=(1, 2)), 1)
    mean_down, mean_right = (near * down).sum(axis=(1, 2)) / total, (near * right).sum(axis=(1, 2)) / total
    mixed = (near * down * right).sum(axis=(1, 2)) / total - mean_down * mean_right
    difference = (near * (right**2 - down**2)).sum(axis=(1, 2)) / total - mean_right**2 + mean_down**2
    return np.asarray(np.arctan2(2 * mixed, difference) / 2)
