"""A score without a model: the brightness of the border, for comparison with a scorer.

MNIST's digits are in the middle and clothes fill the image, so the brightness of the border separates the two in nearly
every case. An AUROC of 0.999 on this set says little about a model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from training.data.arrays import Array, Images
from training.metrics.detection import Separation, separation

BORDER = 2  # pixels


class Trivial(NamedTuple):
    """The AUROC of the border's brightness: by its distance from the median, and the best of three scores."""

    two_sided: Separation
    best: Separation


def trivial(usual: Images, normal: Images, anomalous: Images) -> Trivial:
    """How well the brightness of the border separates `anomalous` from `normal`, both uint8 [N,C,H,W].

    Args:
        usual: normal images that give the median brightness.
        normal: other normal images.
        anomalous: the anomalies.

    Returns:
        `two_sided`: by the distance from the median brightness, which needs no anomalies. `best`: by that distance, by
        higher or by lower brightness, whichever is best for these anomalies; a scorer has no such choice.
    """
    median = np.median(border_mass(usual))
    inside, outside = border_mass(normal), border_mass(anomalous)
    two_sided = separation(abs(inside - median), abs(outside - median))
    more, less = separation(inside, outside), separation(-inside, -outside)
    return Trivial(two_sided, max(two_sided, more, less))


def border_mass(images: Images) -> Array:
    """The mean [N] of the outermost two pixels at each side, in 0..255."""
    border = np.ones(images.shape[2:], bool)
    border[BORDER:-BORDER, BORDER:-BORDER] = False
    return np.asarray(images[:, :, border].mean(axis=(1, 2)))
