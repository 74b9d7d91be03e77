"""Copies among images: equal ones, and the same picture saved twice, in another size or quality."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import pairwise_distances_argmin

SIDE = 8  # of the thumbnails among which the nearest is sought, pixels
COMPARED = 28  # of the larger ones whose correlation decides: details finer than that are lost in another size
# The least correlation of near copies. `tests/training/data/test_copies.py` measures how many photographs reach it that
# are saved again in another size or quality, and that digits do not.
ALIKE = 0.997
LIKELY = 0.98  # and of their thumbnails
FLAT = 2  # largest difference in an image of one colour, grey levels
CHUNK = 1000  # images that are converted at a time, because float32 takes four times the memory


def first_of_equal(images: NDArray[np.uint8]) -> NDArray[np.int64]:
    """For each image of [N,C,H,W] the index [N] of the first one with the same pixels: its own, if it is no copy."""
    first: dict[bytes, int] = {}
    digests = (hashlib.sha256(image.tobytes()).digest() for image in images)
    return np.array([first.setdefault(digest, index) for index, digest in enumerate(digests)], np.int64)


def flat(images: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which of [N,C,H,W] are of one colour: their equals are no copies, for they have nothing to know them by."""
    return np.asarray((np.ptp(images, axis=(2, 3)) <= FLAT).all(axis=1))


def near_copies(images: NDArray[np.uint8], part: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Pairs of images in different parts whose `correlation` is at least `ALIKE`.

    For each image of a part, the one with the most similar thumbnail in the parts before is looked at. Brightness and
    contrast are ignored, because saving a picture again changes them hardly, and few pictures differ in them alone.

    Args:
        images: uint8 [N,C,H,W].
        part: number of the part of each image [N].
    """
    varied = ~flat(images)
    chunks = [images[start : start + CHUNK] for start in range(0, len(images), CHUNK)]
    thumbnails = np.concatenate([_standardised(_thumbnails(chunk, SIDE)) for chunk in chunks])
    pairs = []
    for number in np.unique(part)[1:]:
        ours, before = (np.flatnonzero(varied & which) for which in (part == number, part < number))
        if not len(ours) or not len(before):
            continue
        nearest = before[pairwise_distances_argmin(thumbnails[ours], thumbnails[before])]
        likely = (thumbnails[ours] * thumbnails[nearest]).sum(axis=1) >= LIKELY
        pairs += [
            (int(one), int(other))
            for one, other in zip(ours[likely], nearest[likely], strict=True)
            if correlation(images[one], images[other]) >= ALIKE
        ]
    return pairs


def correlation(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Of the pixels of two images [C,H,W], each reduced to `COMPARED` pixels if it is larger."""
    left, right = (_standardised(_thumbnails(image[None], COMPARED)) for image in (one, other))
    return float((left * right).sum())


def _thumbnails(images: NDArray[np.uint8], side: int) -> NDArray[np.float32]:
    """The means [N,C,h,w] of at most `side` x `side` blocks."""
    found: NDArray[np.float32] = images.astype(np.float32)
    for axis in (2, 3):
        edges = np.linspace(0, images.shape[axis], min(side, images.shape[axis]) + 1).astype(np.int64)
        sizes = np.diff(edges).reshape((-1, 1) if axis == 2 else (1, -1))
        found = (np.add.reduceat(found, edges[:-1], axis=axis) / sizes).astype(np.float32)
    return found


def _standardised(images: NDArray[np.uint8] | NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of mean 0 and length 1: the product of two is their correlation."""
    rows = images.reshape(len(images), -1).astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), np.float32)
