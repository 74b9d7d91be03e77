"""Explanations of a classification by hiding parts of the image; they need no gradients, only the graph.

Both methods mask the image many times and compute the probability of one class. Masked pixels take the image's median
per channel (the background of a drawing), so that the mask adds no shape.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

Probabilities = Callable[[np.ndarray], np.ndarray]

PASSES = 64  # masked images computed at once
MASKS = 500  # of RISE; the paper uses 4,000 to 8,000 for 224 x 224
CELLS = 7  # rows and columns of a mask
KEPT = 0.5  # share of cells that a mask leaves visible
STREAM = 20181  # seed of the masks: the same masks on every replica give equal answers


def passes(height: int, width: int) -> dict[str, int]:
    """The number of masked images that each kind of explanation computes."""
    return {"occlusion": len(_patches(height, width)) + 1, "rise": MASKS}


def occlusion(probabilities: Probabilities, image: np.ndarray, label: int) -> np.ndarray:
    """How much probability a class loses when a square patch covers the image (Zeiler and Fergus, ECCV 2014, 4.2).

    Args:
        probabilities: images uint8 [N,C,H,W] -> probabilities [N,K].
        image: uint8 [C,H,W].
        label: the class.

    Returns:
        float32 [H,W]: the mean loss over the patches that cover a pixel; a patch is a quarter of the image wide.
    """
    height, width = image.shape[1:]
    patches = _patches(height, width)
    hidden = np.median(image, axis=(1, 2)).astype(np.uint8)[:, None, None]
    masked = np.where(patches[:, None], hidden, image)
    loss = probabilities(image[None])[0, label] - _by_parts(probabilities, masked)[:, label]
    covered = patches.sum(axis=0)
    saliency: np.ndarray = np.tensordot(loss, patches.astype(np.float32), axes=1) / covered
    return saliency.astype(np.float32)


def rise(probabilities: Probabilities, image: np.ndarray, label: int) -> np.ndarray:
    """Randomised input sampling: the mean mask, weighted by the class's probability (Petsiuk et al., BMVC 2018, eq. 6).

    Args:
        probabilities: images uint8 [N,C,H,W] -> probabilities [N,K].
        image: uint8 [C,H,W].
        label: the class.

    Returns:
        float32 [H,W]: the expected probability while a pixel is visible, minus its mean over all pixels.
    """
    masks = _masks(*image.shape[1:])
    hidden = np.median(image, axis=(1, 2)).astype(np.float32)[:, None, None]
    masked = (hidden + masks[:, None] * (image - hidden)).round().astype(np.uint8)
    weights = _by_parts(probabilities, masked)[:, label]
    visible = np.tensordot(weights, masks, axes=1) / masks.sum(axis=0)
    saliency: np.ndarray = visible - weights.mean()
    return saliency.astype(np.float32)


def _by_parts(probabilities: Probabilities, images: np.ndarray) -> np.ndarray:
    """Probabilities of many images, a few at a time: activations that fit the processor's cache are much faster."""
    parts = [probabilities(images[start : start + PASSES]) for start in range(0, len(images), PASSES)]
    return np.concatenate(parts)


@lru_cache(maxsize=8)
def _patches(height: int, width: int) -> np.ndarray:
    """Bool [P,H,W]: squares a quarter of the image wide, at steps of half their width, the last one at the edge."""
    side = max(1, round(min(height, width) / 4))
    step = max(1, side // 2)
    tops, lefts = ([*range(0, length - side, step), length - side] for length in (height, width))
    patches = np.zeros((len(tops) * len(lefts), height, width), bool)
    for patch, (top, left) in zip(patches, ((t, x) for t in tops for x in lefts), strict=True):
        patch[top : top + side, left : left + side] = True
    return patches


@lru_cache(maxsize=8)
def _masks(height: int, width: int) -> np.ndarray:
    """Float32 [MASKS,H,W] in 0..1: random grids, enlarged bilinearly and shifted by part of a cell (section 3.2)."""
    draw = np.random.Generator(np.random.Philox(STREAM))
    grids = (draw.random((MASKS, CELLS + 1, CELLS + 1)) < KEPT).astype(np.float32)
    shifts = draw.random((MASKS, 2))
    masks = np.empty((MASKS, height, width), np.float32)
    for mask, grid, (down, right) in zip(masks, grids, shifts, strict=True):
        rows, columns = _weights(height, down), _weights(width, right)
        mask[:] = rows @ grid @ columns.T
    return masks


def _weights(length: int, shift: float) -> np.ndarray:
    """Float32 [length, CELLS + 1]: the weight of each cell at each pixel of a shifted row."""
    at = np.minimum(np.arange(length) * CELLS / length + shift, CELLS)
    weights: np.ndarray = np.maximum(0, 1 - np.abs(at[:, None] - np.arange(CELLS + 1)))
    return weights.astype(np.float32)
