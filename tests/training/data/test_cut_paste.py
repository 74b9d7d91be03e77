"""What is pasted: properties that hold for any images."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from training.data.cut_paste import VISIBLE, cut_paste


def drawn(count: int, channels: int, height: int, width: int, seed: int, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, height, width, generator=generator)
    return {"noise": images, "sparse": images * (images > 0.8), "flat": images[:, :, :1, :1].expand_as(images)}[kind]


SHAPES = st.sampled_from([(1, 28, 28), (3, 28, 28), (1, 8, 12), (3, 8, 12), (1, 64, 64)])
KINDS = st.sampled_from(["noise", "sparse", "flat"])


@settings(max_examples=40)
@given(shape=SHAPES, kind=KINDS, count=st.integers(1, 20), seed=st.integers(0, 2**31))
def test_any_images(shape: tuple[int, int, int], kind: str, count: int, seed: int) -> None:
    images = drawn(count, *shape, seed, kind)
    before = images.clone()
    torch.manual_seed(seed)
    spoilt, changed = cut_paste(images)
    assert torch.equal(images, before), "the images that are given stay as they are"
    assert spoilt.shape == images.shape
    assert changed.shape == (count, *shape[1:])
    assert spoilt.isfinite().all()
    assert spoilt.min() >= 0
    assert spoilt.max() <= 1
    assert set(changed.unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(changed > 0, (spoilt - images).abs().amax(dim=1) > VISIBLE)
    torch.manual_seed(seed)
    again = cut_paste(images)
    assert torch.equal(again[0], spoilt)
    assert torch.equal(again[1], changed)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12)])
def test_some_images_stay_clean_and_most_do_not(shape: tuple[int, int, int]) -> None:
    images = drawn(600, *shape, 0, "noise")
    torch.manual_seed(0)
    spoilt, changed = cut_paste(images)
    same = (spoilt == images).flatten(1).all(dim=1)
    # The share that is left alone, give or take three standard errors, and shapes that missed every pixel.
    assert 0.24 <= same.float().mean() <= 0.45
    assert (changed[same] == 0).all()
    assert 0.5 < (changed.flatten(1).amax(dim=1) > 0).float().mean() < 0.76


def test_what_lies_outside_the_shapes_is_equal_bit_by_bit() -> None:
    images = drawn(400, 3, 28, 28, 1, "noise")
    torch.manual_seed(1)
    spoilt, changed = cut_paste(images)
    touched = (spoilt != images).any(dim=1).float()
    assert (touched >= changed).all()
    assert 0.02 < touched.mean() < 0.25, "a defect, not another image"
    # Opaque or half transparent, a shape changes noise nearly everywhere: what it leaves is left exactly.
    assert changed.sum() > 0.7 * touched.sum()


def test_sizes_go_from_a_pixel_to_half_of_the_image() -> None:
    torch.manual_seed(2)
    _, changed = cut_paste(drawn(2000, 1, 28, 28, 2, "noise"))
    sizes = changed.flatten(1).mean(dim=1)
    some = sizes[sizes > 0]
    assert some.min() <= 2 / 784
    assert some.max() > 0.15
    assert some.max() < 0.6


def test_another_seed_pastes_something_else() -> None:
    images = drawn(8, 1, 28, 28, 0, "noise")
    torch.manual_seed(0)
    first, _ = cut_paste(images)
    second, _ = cut_paste(images)
    assert not torch.equal(first, second)
