from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data import load
from training.evaluation.shifts import whole_image
from training.evaluation.shifts.whole_image import FAR, far_anomalies

SHAPES = [(3, 1, 28, 28), (2, 3, 32, 20), (1, 1, 8, 8)]


def pixels(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_and_type_stay_the_input_too_and_a_seed_repeats(shape: tuple[int, ...]) -> None:
    images = pixels(shape)
    before = images.copy()
    made, again, other = far_anomalies(images), far_anomalies(images), far_anomalies(images, seed=1)
    assert list(made) == [name for name in FAR if name != "rotated_90" or shape[2] == shape[3]]
    for name, anomalies in made.items():
        assert anomalies.dtype == np.uint8
        assert anomalies.shape == shape
        assert anomalies.flags.c_contiguous
        assert not np.array_equal(anomalies, images)
        assert np.array_equal(anomalies, again[name])
    drawn = {name for name in made if not np.array_equal(made[name], other[name])}
    assert drawn == {"uniform_noise", "gaussian_noise", "constant", "patch_shuffled", "slightly_noisy", "noisy"}
    assert np.array_equal(images, before)


@given(seed=st.integers(0, 1000))
def test_turning_and_mirroring_twice_give_the_image_again(seed: int) -> None:
    images = pixels((2, 3, 9, 12), seed)
    for maker in (whole_image.inverted, whole_image.rotated_180, whole_image.flipped):
        generator = np.random.default_rng(0)
        assert np.array_equal(maker(maker(images, generator), generator), images)


def test_by_hand() -> None:
    images = np.array([[[[0, 100], [200, 255]]]], np.uint8)
    made = far_anomalies(images)
    assert made["inverted"].tolist() == [[[[255, 155], [55, 0]]]]
    assert made["brightened"].tolist() == [[[[51, 151], [251, 255]]]]
    assert made["dimmed"].tolist() == [[[[0, 50], [100, 128]]]]
    assert made["rotated_90"].tolist() == [[[[100, 255], [0, 200]]]]
    assert made["rotated_180"].tolist() == [[[[255, 200], [100, 0]]]]
    assert made["flipped"].tolist() == [[[[100, 0], [255, 200]]]]


def test_noise_has_its_measure() -> None:
    grey = np.full((50, 1, 28, 28), 128, np.uint8)
    made = far_anomalies(grey)
    assert made["slightly_noisy"].std() == pytest.approx(25.5, rel=0.02)
    assert made["noisy"].std() == pytest.approx(70, rel=0.03)  # 76.5 less what is beyond black and white
    assert made["uniform_noise"].std() == pytest.approx(255 / 12**0.5, rel=0.02)
    digits = load("digits").test.images
    noise = far_anomalies(digits)["gaussian_noise"]
    assert noise.mean() == pytest.approx(digits.mean(), rel=0.2)


def test_a_constant_image_has_one_grey_and_another_image_another() -> None:
    made = far_anomalies(pixels((200, 3, 8, 8)))["constant"]
    assert (made == made[:, :1, :1, :1]).all()
    assert len(np.unique(made)) > 100


def test_shuffling_moves_whole_tiles_and_leaves_the_remainder() -> None:
    height, width = 9, 14
    images = np.arange(2 * 3 * height * width).reshape(2, 3, height, width).astype(np.uint8)
    made = whole_image.patch_shuffled(images, np.random.default_rng(0))
    assert np.array_equal(made[:, :, 8:], images[:, :, 8:])
    assert np.array_equal(made[..., 12:], images[..., 12:])

    def tiles(stack: np.ndarray) -> list[bytes]:
        return sorted(stack[0, :, y : y + 4, x : x + 4].tobytes() for y in (0, 4) for x in (0, 4, 8))

    assert tiles(made) == tiles(images)
    assert not np.array_equal(made, images)
