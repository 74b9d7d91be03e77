from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import load
from training.evaluation.shifts.corruptions import CORRUPTIONS, SEVERITIES, SHIFT, corrupt

SHAPES = [(3, 1, 28, 28), (2, 3, 32, 20), (1, 1, 8, 8)]


def pixels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("shape", SHAPES)
def test_shape_and_type_stay_the_input_too_and_a_seed_repeats(name: str, shape: tuple[int, ...]) -> None:
    images = pixels(shape)
    before = images.copy()
    for severity in SEVERITIES:
        corrupted = corrupt(images, name, severity, seed=3)
        assert corrupted.dtype == np.uint8
        assert corrupted.shape == shape
        assert np.array_equal(corrupted, corrupt(images, name, severity, seed=3))
    assert np.array_equal(images, before)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_each_severity_changes_the_digits_more_than_the_one_before(name: str) -> None:
    images = load("digits").test.images
    change = [np.abs(corrupt(images, name, s).astype(int) - images).mean() for s in SEVERITIES]
    assert change[0] > 0
    assert change == sorted(change)


@pytest.mark.parametrize("name", ["noise", "shift", "rotation", "occlusion"])
def test_every_image_is_corrupted_in_its_own_way(name: str) -> None:
    same = np.repeat(pixels((1, 1, 28, 28)), 20, axis=0)
    assert len({image.tobytes() for image in corrupt(same, name, 5)}) > 1
    assert not np.array_equal(corrupt(same, name, 5, seed=0), corrupt(same, name, 5, seed=1))


@pytest.mark.parametrize("name", ["blur", "shift", "rotation", "contrast", "occlusion"])
@given(value=st.integers(0, 255))
def test_an_even_image_has_nothing_to_lose(name: str, value: int) -> None:
    even = np.full((2, 1, 14, 14), value, np.uint8)
    assert np.array_equal(corrupt(even, name, 5), even)


def test_blur_keeps_the_mass_of_a_point_and_spreads_it_evenly() -> None:
    point = np.zeros((1, 1, 28, 28), np.uint8)
    point[0, 0, 14, 14] = 255
    blurred = corrupt(point, "blur", 4)[0, 0].astype(int)
    assert blurred[14, 14] == round(255 / (2 * np.pi * 1.5**2))  # the density of the normal distribution
    assert np.array_equal(blurred, blurred.T)
    assert abs(blurred.sum() - 255) < 60  # the tails round to 0


def test_shift_moves_a_point_by_its_pixels() -> None:
    point = np.zeros((40, 1, 28, 28), np.uint8)
    point[:, 0, 14, 14] = 255
    for severity, pixels in zip(SEVERITIES, SHIFT, strict=True):
        moved = corrupt(point, "shift", severity)
        assert (moved.reshape(40, -1).sum(axis=1, dtype=int) == 255).all()
        where = np.argwhere(moved[:, 0])[:, 1:] - 14
        assert np.abs(np.hypot(*where.T) - pixels).max() <= np.sqrt(0.5)


def test_rotation_keeps_the_middle_and_turns_the_rest() -> None:
    bar = np.zeros((30, 1, 29, 29), np.uint8)
    bar[:, 0, :, 14] = 255
    turned = corrupt(bar, "rotation", 5)[:, 0]
    assert (turned[:, 14, 14] == 255).all()
    diagonal, other = np.eye(29, dtype=bool), np.eye(29, dtype=bool)[::-1]
    ways = {(bool(image[diagonal].min() > 200), bool(image[other].min() > 200)) for image in turned}
    assert ways == {(True, False), (False, True)}  # 45 degrees, either way


def test_contrast_keeps_the_mean_and_shrinks_the_spread() -> None:
    images = pixels((4, 3, 16, 16))
    low = corrupt(images, "contrast", 2)
    assert np.abs(low.mean(axis=(1, 2, 3)) - images.mean(axis=(1, 2, 3))).max() < 0.5
    assert low.std() == pytest.approx(0.5 * images.std(), rel=0.02)


def test_occlusion_covers_a_square_with_the_background() -> None:
    images = np.full((50, 2, 28, 28), 200, np.uint8)
    images[:, :, :10] = 30  # 18 rows of 28 are 200: the median
    covered = corrupt(images, "occlusion", 5)
    changed = (covered != images).all(axis=1)
    assert set(np.unique(covered)) == {30, 200}
    rows, columns = changed.any(axis=2).sum(axis=1), changed.any(axis=1).sum(axis=1)
    assert changed.any()
    assert rows.max() <= 12  # 0.4 of 28, in whole pixels
    assert columns.max() <= 12


def test_noise_has_the_deviation_that_is_documented() -> None:
    grey = np.full((50, 1, 28, 28), 128, np.uint8)
    assert corrupt(grey, "noise", 2).std() == pytest.approx(0.08 * 255, rel=0.02)
