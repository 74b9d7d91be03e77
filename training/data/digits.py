"""The digits of scikit-learn: the default data, without a download."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn import datasets

from training.data.dataset import Dataset, Split
from training.data.splits import permutation, stratified

SIZE = 28
# Test is 25 %; of the rest, calibration is 20 %, validation 10 % and train what remains. In tenths of a per cent:
SHARES = (525, 75, 150, 250)


def load_digits() -> Dataset:
    """1,797 handwritten digits (Alpaydin and Kaynak 1998, UCI), 8x8 with 17 grey levels, as uint8 [N,1,28,28].

    Upscaled bilinearly: bicubic interpolation overshoots at the edges of strokes and would be clipped to 0 and 255; a
    bilinear pixel stays in the range of its neighbours.
    """
    images, labels = enlarged(SIZE), datasets.load_digits().target.astype(np.int64)
    whole = Split(images, labels)
    parts = stratified(permutation(len(whole)), labels, SHARES)
    return Dataset("digits", tuple("0123456789"), *(whole.take(part) for part in parts))


def enlarged(size: int) -> NDArray[np.uint8]:
    """All digits in their original order, uint8 [1797,1,`size`,`size`]."""
    grey = np.rint(datasets.load_digits().images * (255 / 16)).astype(np.uint8)
    return np.stack(
        [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)) for image in grey]
    )[:, None]
