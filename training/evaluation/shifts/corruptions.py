"""Corruptions of images in five severities: noise, blur, shift, rotation, contrast and occlusion.

They follow D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019, and MNIST-C (N. Mu, J. Gilmer, arXiv:1906.02337), adapted to small images: lengths are
shares of the image's side, so that a severity means the same at 28 and at 64 pixels. Figures are comparable between
bundles of Duet, not with those benchmarks.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from training.data.arrays import Array, Images, philox

SEVERITIES = (1, 2, 3, 4, 5)
NOISE = (0.04, 0.08, 0.12, 0.18, 0.26)  # standard deviation, pixels in 0..1
BLUR = (0.5, 0.75, 1.0, 1.5, 2.0)  # standard deviation, pixels of an image 28 wide
SHIFT = (1, 2, 3, 4, 6)  # pixels of an image 28 wide
ROTATION = (5, 10, 20, 30, 45)  # degrees
CONTRAST = (0.75, 0.5, 0.4, 0.3, 0.15)  # factor of each pixel's distance from the image's mean
OCCLUSION = (0.15, 0.2, 0.25, 0.3, 0.4)  # side of the square, as a share of the image's side
WIDTH = 28


def corrupt(images: Images, name: str, severity: int, seed: int = 0) -> Images:
    """`images` uint8 [N,C,H,W] with corruption `name` of CORRUPTIONS at `severity` 1 to 5; equal seeds, equal pixels.

    Every image has its own noise, direction and position. The draws do not depend on the severity: at the next severity
    the same square is larger, and the shift in the same direction is longer.
    """
    corrupted = CORRUPTIONS[name](images, SEVERITIES.index(severity), philox(seed))
    return np.clip(np.rint(corrupted), 0, 255).astype(np.uint8)


def noise(images: Images, level: int, generator: np.random.Generator) -> Array:
    """Independent normal noise in every pixel and channel."""
    return images + 255 * NOISE[level] * generator.standard_normal(images.shape, dtype=np.float32)


def blur(images: Images, level: int, generator: np.random.Generator) -> Array:
    """A Gaussian blur; pixels beyond the edge repeat the edge."""
    height, width = images.shape[2:]
    rows, columns = (_smoothing(length, BLUR[level] * length / WIDTH) for length in (height, width))
    return np.asarray(rows @ images.astype(np.float32) @ columns.T)


def shift(images: Images, level: int, generator: np.random.Generator) -> Array:
    """A shift in a random direction; uncovered pixels repeat the edge."""
    height, width = images.shape[2:]
    angle = generator.uniform(0, 2 * np.pi, len(images))
    y, x = _grid(height, width)
    down, right = np.sin(angle) * SHIFT[level] * height / WIDTH, np.cos(angle) * SHIFT[level] * width / WIDTH
    return _sample(images, y - np.rint(down)[:, None, None], x - np.rint(right)[:, None, None])


def rotation(images: Images, level: int, generator: np.random.Generator) -> Array:
    """A rotation about the centre in a random sense; uncovered pixels repeat the edge."""
    height, width = images.shape[2:]
    angle = np.deg2rad(ROTATION[level]) * generator.choice([-1, 1], len(images))
    sine, cosine = np.sin(angle)[:, None, None], np.cos(angle)[:, None, None]
    y, x = _grid(height, width)
    middle, centre = (height - 1) / 2, (width - 1) / 2
    y, x = y - middle, x - centre
    return _sample(images, cosine * y - sine * x + middle, sine * y + cosine * x + centre)


def contrast(images: Images, level: int, generator: np.random.Generator) -> Array:
    """Every pixel moved towards the image's mean."""
    mean = images.mean(axis=(1, 2, 3), keepdims=True, dtype=np.float64)
    return np.asarray(mean + CONTRAST[level] * (images - mean))


def occlusion(images: Images, level: int, generator: np.random.Generator) -> Array:
    """A square with its centre in the middle half, in the image's median colour, which is its background."""
    height, width = images.shape[2:]
    middle, centre = (generator.uniform(0.25, 0.75, (2, len(images), 1, 1)).T * [height, width]).T
    y, x = _grid(height, width)
    inside = (abs(y + 0.5 - middle) <= OCCLUSION[level] * height / 2) & (
        abs(x + 0.5 - centre) <= OCCLUSION[level] * width / 2
    )
    return np.where(inside[:, None], np.median(images, axis=(2, 3), keepdims=True), images)


CORRUPTIONS: dict[str, Callable[[Images, int, np.random.Generator], Array]] = {
    "noise": noise,
    "blur": blur,
    "shift": shift,
    "rotation": rotation,
    "contrast": contrast,
    "occlusion": occlusion,
}


def _grid(height: int, width: int) -> tuple[Array, Array]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    return y, x


def _sample(images: Images, y: Array, x: Array) -> Array:
    """Images [N,C,H,W] sampled at `y` and `x` [N,H,W], bilinearly; pixels beyond the edge repeat the edge."""
    height, width = images.shape[2:]
    y, x = np.clip(y, 0, height - 1), np.clip(x, 0, width - 1)
    top, left = np.floor(y).astype(int), np.floor(x).astype(int)
    bottom, right = np.minimum(top + 1, height - 1), np.minimum(left + 1, width - 1)
    of = np.arange(len(images))[:, None, None]
    pixels = images.transpose(0, 2, 3, 1).astype(np.float64)
    down, across = (y - top)[..., None], (x - left)[..., None]
    above = (1 - across) * pixels[of, top, left] + across * pixels[of, top, right]
    below = (1 - across) * pixels[of, bottom, left] + across * pixels[of, bottom, right]
    return np.asarray(((1 - down) * above + down * below).transpose(0, 3, 1, 2))


def _smoothing(length: int, deviation: float) -> Array:
    """[length,length]: in each row the normal weights around a pixel; weights beyond the edge are added to the edge."""
    places = np.arange(-length, 2 * length)
    weights = np.exp(-0.5 * ((places - np.arange(length)[:, None]) / deviation) ** 2)
    weights /= weights.sum(axis=1, keepdims=True)
    matrix = weights[:, length : 2 * length].copy()
    matrix[:, 0] += weights[:, :length].sum(axis=1)
    matrix[:, -1] += weights[:, 2 * length :].sum(axis=1)
    return matrix.astype(np.float32)
