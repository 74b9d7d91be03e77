"""scikit-learn's digits as anomalies for a scorer of MNIST: digits, but blurred, because they were scanned at 8x8."""

from __future__ import annotations

import numpy as np

from training.data.arrays import Images
from training.data.digits import enlarged

SIZE = 28
BOX = 20  # pixels a side, as large as MNIST's digits are


def stretched_digits() -> Images:
    """All 1,797, uint8 [N,1,28,28], as large as the image: a size that no digit of MNIST has."""
    return enlarged(SIZE)


def padded_digits() -> Images:
    """All 1,797, uint8 [N,1,28,28], 20 pixels large in the middle."""
    margin = (SIZE - BOX) // 2
    return np.pad(enlarged(BOX), ((0, 0), (0, 0), (margin, margin), (margin, margin)))
