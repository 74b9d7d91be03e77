from __future__ import annotations

import pytest
import torch

from training.loops.gan import discriminator_loss, generator_loss, gradient_penalty

REAL, FAKE = torch.tensor([2.0, 0.5]), torch.tensor([-3.0, 1.0])


def test_hinge_counts_what_is_on_the_wrong_side_of_one() -> None:
    assert discriminator_loss("hinge", REAL, FAKE).item() == pytest.approx((0 + 0.5) / 2 + (0 + 2) / 2)
    assert generator_loss("hinge", None, FAKE).item() == pytest.approx(1.0)


def test_a_relativistic_loss_knows_differences_of_a_pair_only() -> None:
    expected = torch.log1p(torch.exp(torch.tensor([-5.0, 0.5]))).mean().item()
    assert discriminator_loss("relativistic", REAL, FAKE).item() == pytest.approx(expected)
    assert discriminator_loss("relativistic", REAL + 7, FAKE + 7).item() == pytest.approx(expected, rel=1e-5)
    assert generator_loss("relativistic", FAKE, REAL).item() == pytest.approx(expected), "the same with sides changed"


def test_the_penalty_of_a_linear_score_is_its_squared_weights() -> None:
    weights = torch.arange(12.0).reshape(1, 3, 2, 2).requires_grad_()
    images = torch.rand(5, 3, 2, 2, requires_grad=True)
    penalty = gradient_penalty((weights * images).sum(dim=(1, 2, 3)), images)
    assert penalty.item() == pytest.approx(weights.square().sum().item())
    penalty.backward()
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, 2 * weights.detach())
