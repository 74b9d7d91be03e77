"""Anomalies of the whole image: noise, constants, and errors of a camera or a file reader."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.data.arrays import Array, Images, philox
from training.evaluation.shifts.corruptions import corrupt

Maker = Callable[[Images, np.random.Generator], Images]

PATCH = 4  # pixels a side


def far_anomalies(images: Images, seed: int = 0) -> dict[str, Images]:
    """Every kind of FAR made from `images` uint8 [N,C,H,W], by name; only square images are turned by 90 degrees."""
    square = images.shape[2] == images.shape[3]
    makers = {name: maker for name, maker in FAR.items() if square or maker is not rotated_90}
    return {name: np.ascontiguousarray(maker(images, philox(seed))) for name, maker in makers.items()}


def uniform_noise(images: Images, generator: np.random.Generator) -> Images:
    return generator.integers(0, 256, images.shape, dtype=np.uint8)


def gaussian_noise(images: Images, generator: np.random.Generator) -> Images:
    """Noise with the mean and deviation of the images' pixels, so that neither separates it from them."""
    return _rounded(images.mean() + images.std() * generator.standard_normal(images.shape, dtype=np.float32))


def constant(images: Images, generator: np.random.Generator) -> Images:
    """One grey level for all pixels of an image, one of 256."""
    levels = generator.integers(0, 256, (len(images), 1, 1, 1), dtype=np.uint8)
    return np.broadcast_to(levels, images.shape)


def inverted(images: Images, generator: np.random.Generator) -> Images:
    return 255 - images


def patch_shuffled(images: Images, generator: np.random.Generator) -> Images:
    """Tiles of 4 x 4 pixels in a random order; a remainder at the right or the bottom stays where it is."""
    count, channels, height, width = images.shape
    rows, columns = height // PATCH, width // PATCH
    result = images.copy()
    region = result[:, :, : rows * PATCH, : columns * PATCH]
    tiles = region.reshape(count, channels, rows, PATCH, columns, PATCH).transpose(0, 2, 4, 1, 3, 5)
    tiles = tiles.reshape(count, rows * columns, channels, PATCH, PATCH)
    order = generator.permuted(np.tile(np.arange(rows * columns), (count, 1)), axis=1)
    tiles = np.take_along_axis(tiles, order[:, :, None, None, None], axis=1)
    tiles = tiles.reshape(count, rows, columns, channels, PATCH, PATCH).transpose(0, 3, 1, 4, 2, 5)
    region[...] = tiles.reshape(region.shape)
    return result


def blurred(images: Images, generator: np.random.Generator) -> Images:
    """A standard deviation of 1.5 pixels of an image 28 wide."""
    return corrupt(images, "blur", 4)


def slightly_noisy(images: Images, generator: np.random.Generator) -> Images:
    return _noisy(images, generator, 0.1)


def noisy(images: Images, generator: np.random.Generator) -> Images:
    return _noisy(images, generator, 0.3)


def brightened(images: Images, generator: np.random.Generator) -> Images:
    """Every pixel plus a fifth of the range."""
    return _rounded(images + np.float32(0.2 * 255))


def dimmed(images: Images, generator: np.random.Generator) -> Images:
    """Half of every pixel: the contrast halves, and black stays black."""
    return _rounded(images * np.float32(0.5))


def rotated_90(images: Images, generator: np.random.Generator) -> Images:
    return np.rot90(images, axes=(2, 3))


def rotated_180(images: Images, generator: np.random.Generator) -> Images:
    return np.rot90(images, 2, axes=(2, 3))


def flipped(images: Images, generator: np.random.Generator) -> Images:
    """Mirrored left to right."""
    return images[..., ::-1]


FAR: dict[str, Maker] = {
    "uniform_noise": uniform_noise,
    "gaussian_noise": gaussian_noise,
    "constant": constant,
    "inverted": inverted,
    "patch_shuffled": patch_shuffled,
    "blurred": blurred,
    "slightly_noisy": slightly_noisy,
    "noisy": noisy,
    "brightened": brightened,
    "dimmed": dimmed,
    "rotated_90": rotated_90,
    "rotated_180": rotated_180,
    "flipped": flipped,
}


def _noisy(images: Images, generator: np.random.Generator, deviation: float) -> Images:
    """Normal noise of `deviation`, pixels in 0..1, in every pixel and channel."""
    return _rounded(images + 255 * np.float32(deviation) * generator.standard_normal(images.shape, dtype=np.float32))


def _rounded(pixels: Array) -> Images:
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
