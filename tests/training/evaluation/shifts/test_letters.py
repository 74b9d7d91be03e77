from __future__ import annotations

import numpy as np
import pytest

from training.evaluation.shifts.letters import LETTERS, UNLIKE, faces, letters


def test_the_alphabets() -> None:
    assert len(set(LETTERS)) == len(LETTERS) == 52
    assert len(set(UNLIKE)) == len(UNLIKE) == 28
    assert set(UNLIKE) < set(LETTERS)
    assert not set("OoQDlIiSsZzBbgq") & set(UNLIKE)


def test_only_faces_that_have_the_letters() -> None:
    names = {face.stem for face in faces()}
    assert {"DejaVuSans", "DejaVuSerif-Italic", "DejaVuSansMono-Bold"} <= names
    assert not any("Display" in name for name in names)
    assert len(names) >= 12


def test_drawn_as_mnist_was() -> None:
    made = letters(104)
    assert made.shape == (104, 1, 28, 28)
    assert made.dtype == np.uint8
    for (image,) in made:
        rows, columns = np.flatnonzero(image.any(axis=1)), np.flatnonzero(image.any(axis=0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 in (19, 20)
        assert image.max() > 200
        y, x = (np.average(np.arange(28), weights=image.sum(axis=axis)) for axis in (1, 0))
        assert (y, x) == pytest.approx((13.5, 13.5), abs=1.6)  # as near as the box allows
    assert np.median([np.average(np.arange(28), weights=image.sum(axis=1)) for (image,) in made]) == pytest.approx(
        13.5, abs=0.3
    )


def test_letters_come_in_turn_each_time_otherwise() -> None:
    one, two = letters(6, "IW"), letters(6, "IW", seed=1)
    assert np.array_equal(one, letters(6, "IW"))
    assert not np.array_equal(one, two)
    assert len({image.tobytes() for image in one}) == 6
    widths = [int(image.any(axis=0).sum()) for (image,) in one]
    assert max(widths[::2]) < min(widths[1::2])
