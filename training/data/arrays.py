"""Types and random numbers of arrays of images."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Mask = NDArray[np.bool_]


def evenly_spaced(size: int, count: int) -> NDArray[np.int64]:
    """At most `count` row numbers below `size`, at equal steps, because rows may be sorted by class."""
    return np.linspace(0, size - 1, min(size, count)).astype(np.int64)


def philox(seed: int) -> np.random.Generator:
    """The counter-based generator (Salmon et al., 2011) of all random numbers of an evaluation."""
    return np.random.Generator(np.random.Philox(seed))


def binarised(images: Images, seed: int) -> Images:
    """Each pixel 255 with its grey value as probability, else 0: dynamic binarisation, drawn once."""
    drawn: Images = np.where(philox(seed).random(images.shape) < images / 255, 255, 0).astype(np.uint8)
    return drawn
