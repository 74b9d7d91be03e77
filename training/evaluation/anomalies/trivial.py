"""What no model at all finds: the row that a scorer of whole images has to be read beside.

Where the digits of MNIST keep to the middle and clothes fill the image, the brightness of the border tells one from the
other in nearly every case, and an AUROC of 0.999 says little of a model.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from training.evaluation.anomalies.separation import Separation, separation
from training.evaluation.runtime import Array

Images = NDArray[np.uint8]

BORDER = 2  # pixels


class Trivial(NamedTuple):
    """The border's mass as a score: strange where it is far from usual, and by the better of all three readings."""

    two_sided: Separation
    best: Separation


def trivial(usual: Images, normal: Images, anomalous: Images) -> Trivial:
    """The mass of the border tells `anomalous` from `normal`, both uint8 [N,C,H,W].

    Args:
        usual: normal images whose median is the usual mass.
        normal: others.
        anomalous: what is to be found.

    Returns:
        `two_sided`: by the distance from the usual mass, as one would without an anomaly at hand; `best`: by that, by
        more or by less mass, whichever is best for these very anomalies, a choice that no scorer is given.
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
