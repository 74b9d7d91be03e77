import torch

from training.loops.augmentation import Affine


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
