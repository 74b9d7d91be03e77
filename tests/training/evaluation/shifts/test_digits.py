from __future__ import annotations

import numpy as np

from training.data import load
from training.evaluation.shifts.digits import padded_digits, stretched_digits


def test_stretched_digits_are_those_of_the_data_set() -> None:
    made = stretched_digits()
    assert made.shape == (1797, 1, 28, 28)
    assert {image.tobytes() for image in load("digits").test.images} <= {image.tobytes() for image in made}


def test_padded_digits_have_an_empty_border_and_the_same_digits() -> None:
    made, stretched = padded_digits(), stretched_digits()
    assert made.shape == stretched.shape
    assert made.dtype == np.uint8
    inner = made[..., 4:24, 4:24]
    assert made.sum() == inner.sum() > 0
    means = inner.mean(axis=(1, 2, 3)), stretched.mean(axis=(1, 2, 3))
    assert np.corrcoef(*means)[0, 1] > 0.99
