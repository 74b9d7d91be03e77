import pytest
import torch

from training.data.augmentation import Affine, Augmentation, Compose, Cutout, Flip, Shift


def test_no_limits_change_nothing() -> None:
    images = torch.rand(4, 3, 12, 12)
    assert torch.allclose(Affine()(images), images, atol=1e-5)


def test_each_image_is_moved_by_its_own_draw_and_within_the_limit() -> None:
    torch.manual_seed(0)
    images = torch.zeros(64, 1, 21, 21)
    images[:, :, 10, 10] = 1
    moved = Affine(shift=0.2)(images)  # at most 2.1 of 10.5 pixels
    rows, columns = torch.meshgrid(torch.arange(21.0), torch.arange(21.0), indexing="ij")
    row, column = ((moved[:, 0] * axis).sum((1, 2)) / moved[:, 0].sum((1, 2)) - 10 for axis in (rows, columns))
    assert row.abs().max() <= 2.2
    assert row.std() > 0.5
    assert column.std() > 0.5


def test_gradients_reach_the_images() -> None:
    images = torch.rand(2, 1, 8, 8, requires_grad=True)
    Affine(rotation=0.1, scale=0.1, shear=0.1, shift=0.1)(images).sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_about_half_of_the_images_are_mirrored() -> None:
    torch.manual_seed(0)
    images = torch.rand(1000, 2, 3, 5)
    flipped = Flip()(images)
    mirrored = [torch.equal(after, before.flip(2)) for before, after in zip(images, flipped, strict=True)]
    same = [torch.equal(after, before) for before, after in zip(images, flipped, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True))
    assert 450 < sum(mirrored) < 550


def test_a_shift_moves_each_image_by_whole_pixels_and_fills_with_zeros() -> None:
    torch.manual_seed(0)
    images = torch.rand(200, 3, 6, 7) + 1
    seen = set()
    for before, after in zip(images, Shift(1)(images), strict=True):
        padded = torch.nn.functional.pad(before, [1] * 4)
        places = [(y, x) for y in range(3) for x in range(3) if torch.equal(after, padded[:, y : y + 6, x : x + 7])]
        assert len(places) == 1
        seen |= set(places)
    assert len(seen) == 9, "every shift occurs"


@pytest.mark.parametrize("side", [1, 4, 5])
def test_cutout_hides_one_square_that_the_border_may_cut(side: int) -> None:
    torch.manual_seed(0)
    hidden = Cutout(side)(torch.ones(2000, 2, 9, 11)) == 0
    assert torch.equal(hidden[:, 0], hidden[:, 1])
    heights, widths = hidden[:, 0].any(dim=2).sum(dim=1), hidden[:, 0].any(dim=1).sum(dim=1)
    assert torch.equal(hidden[:, 0].sum(dim=(1, 2)), heights * widths), "a rectangle"
    assert heights.max() == widths.max() == side
    assert 0.45 < (heights > 0).float().mean() < 0.55, "half of the images"
    assert hidden[:, 0].any(dim=0).all(), "no pixel is out of reach"


def test_one_after_the_other() -> None:
    images = torch.rand(8, 1, 6, 6)
    both = Compose((Shift(1), Cutout(3)))
    torch.manual_seed(0)
    once = both(images)
    torch.manual_seed(0)
    assert torch.equal(Cutout(3)(Shift(1)(images)), once)


@pytest.mark.parametrize("augment", [Affine(shift=0.1), Flip(), Shift(2), Cutout(4)], ids=lambda a: type(a).__name__)
def test_the_seed_decides_the_draw(augment: Augmentation) -> None:
    images = torch.rand(32, 1, 8, 8)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(augment(images))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
