from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from training.data import load
from training.data.arrays import philox
from training.evaluation.shifts.defects import DEFECTS, defects

SHAPES = [(4, 1, 28, 28), (3, 3, 64, 40), (5, 1, 8, 8)]


@pytest.mark.parametrize("name", DEFECTS)
@given(shape=st.sampled_from(SHAPES), seed=st.integers(0, 1000))
def test_the_mask_is_what_changed_and_something_did(name: str, shape: tuple[int, ...], seed: int) -> None:
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    before = images.copy()
    damaged, mask = DEFECTS[name](images, philox(seed))
    again = DEFECTS[name](images, philox(seed))
    assert np.array_equal(damaged, again.images)
    assert np.array_equal(images, before)
    assert damaged.dtype == np.uint8
    assert damaged.shape == shape  # every image of noise can be damaged
    assert np.array_equal(mask, (damaged != images).any(axis=1))
    assert mask.any(axis=(1, 2)).all()


@pytest.mark.parametrize(("background", "colour"), [(0, 255), (255, 0)])
@pytest.mark.parametrize("name", ["blot", "scratch"])
def test_blots_and_scratches_contrast_with_what_lies_beneath(name: str, background: int, colour: int) -> None:
    images = np.full((200, 3, 28, 28), background, np.uint8)
    damaged, mask = DEFECTS[name](images, philox(0))
    assert (damaged[np.repeat(mask[:, None], 3, axis=1)] == colour).all()
    sizes = mask.sum(axis=(1, 2))
    low, high = {"blot": (5, 41), "scratch": (4, 20)}[name]  # pi / 4 * 3 * 3 to 7 * 7; about 6 to 14
    assert low <= sizes.min() < sizes.mean() < sizes.max() <= high
    for one in mask:
        assert ndimage.label(one, np.ones((3, 3)))[1] == 1


def test_lengths_grow_with_the_image() -> None:
    small, large = (defects(np.zeros((200, 1, side, side), np.uint8)) for side in (28, 56))
    for name in ("blot", "scratch"):
        assert large[name].mask.sum() == pytest.approx(4 * small[name].mask.sum(), rel=0.1)


def test_a_cut_takes_the_stroke_apart_in_the_colour_of_the_background() -> None:
    """A bar of 3 x 20 pixels loses its whole width over 3 to 7 pixels, and no more."""
    images = np.full((300, 1, 28, 28), 30, np.uint8)
    images[:150, :, 12:15, 4:24] = 220
    images[150:, :, 4:24, 12:15] = 220
    damaged, mask = DEFECTS["cut"](images, philox(0))
    assert len(damaged) == 300
    assert (damaged[:, 0][mask] == 30).all()
    assert (images[:, 0][mask] == 220).all()
    along = np.concatenate([mask[:150].any(axis=1), mask[150:].any(axis=2)]).sum(axis=1)
    assert along.max() <= 8
    middle = np.concatenate([mask[:150, 13, 10:18], mask[150:, 10:18, 13]]).any(axis=1)
    assert middle.sum() > 50
    assert (mask.sum(axis=(1, 2))[middle] % 3 == 0).mean() > 0.9  # straight across
    assert len({one.tobytes() for one in mask}) > 20


def test_a_cut_of_dark_ink_on_white_paper() -> None:
    images = np.full((20, 3, 28, 28), 255, np.uint8)
    images[..., 10:13, 5:20] = 0
    damaged, mask = DEFECTS["cut"](images, philox(0))
    assert (damaged.transpose(0, 2, 3, 1)[mask] == 255).all()


def test_an_image_without_ink_cannot_be_cut_and_is_left_out() -> None:
    images = np.zeros((3, 1, 28, 28), np.uint8)
    images[1, 0, 14, 4:24] = 255
    damaged, mask = DEFECTS["cut"](images, philox(0))
    assert damaged.shape == (1, 1, 28, 28)
    assert mask.any()
    assert mask.shape == (1, 28, 28)


def test_every_digit_can_be_damaged_in_every_way() -> None:
    images = load("digits").test.images
    for made in defects(images).values():
        assert len(made.images) == len(images)
        assert 0.002 < made.mask.mean() < 0.06
