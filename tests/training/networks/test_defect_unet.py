from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from training.networks.defect_unet import RARE, DefectUNetConfig, pixel_loss


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 8, 12), (3, 64, 64)])
def test_a_logit_for_every_pixel(shape: tuple[int, int, int]) -> None:
    torch.manual_seed(0)
    network = DefectUNetConfig(4).build(shape).eval()
    assert network(torch.rand(5, *shape)).shape == (5, *shape[1:])
    assert network(torch.rand(1, *shape)).shape == (1, *shape[1:])


def test_before_anything_is_learnt_defects_are_rare() -> None:
    torch.manual_seed(0)
    logits = DefectUNetConfig(8).build((1, 28, 28)).eval()(torch.rand(20, 1, 28, 28))
    assert logits.mean().item() == pytest.approx(RARE, abs=1)


@pytest.mark.parametrize("shape", [(1, 30, 28), (3, 28, 26)])
def test_a_side_that_4_does_not_divide_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=rf"image shape \({shape[0]}, {shape[1]}, {shape[2]}\): .* divisible by 4"):
        DefectUNetConfig().build(shape)


def test_every_pixel_sees_its_surroundings_on_all_sides() -> None:
    torch.manual_seed(0)
    network = DefectUNetConfig(4).build((1, 28, 28)).eval()
    image = torch.rand(1, 1, 28, 28, requires_grad=True)
    [gradient] = torch.autograd.grad(network(image)[0, 13, 14], image)
    seen = gradient[0, 0] != 0
    assert seen[13, :].sum() >= 21
    assert seen[:, 14].sum() >= 21
    assert seen[13, 14]


def test_loss_is_the_mean_over_pixels() -> None:
    logits, changed = torch.tensor([[[0.0, 3.0]]]), torch.tensor([[[0.0, 1.0]]])
    expected = (-torch.log(torch.tensor(0.5)) - F.logsigmoid(torch.tensor(3.0))) / 2
    assert pixel_loss(logits, changed).item() == pytest.approx(expected.item())
