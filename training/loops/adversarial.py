"""Losses of generator and discriminator."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

Loss = Literal["hinge", "relativistic"]


def discriminator_loss(loss: Loss, real: Tensor, fake: Tensor) -> Tensor:
    """The discriminator's loss from the scores [N] of real images and fakes.

    hinge (J. H. Lim, J. C. Ye, "Geometric GAN", arXiv:1705.02894, section 3.2): real ones above 1, fakes below -1.
    relativistic (A. Jolicoeur-Martineau, "The relativistic discriminator", ICLR 2019): each real image above the
    fake of the same class at the same position.
    """
    if loss == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(fake - real).mean()


def generator_loss(loss: Loss, real: Tensor | None, fake: Tensor) -> Tensor:
    """The generator's loss from the scores [N] of fakes; the relativistic loss also needs those of real images."""
    return -fake.mean() if real is None or loss == "hinge" else F.softplus(real - fake).mean()


def gradient_penalty(scores: Tensor, images: Tensor) -> Tensor:
    """Mean squared norm of the gradients of the scores [N] by their images [N,C,H,W].

    On real images it is R1 (L. Mescheder et al., "Which training methods for GANs do actually converge?", ICML 2018,
    equation 9), on fakes R2; a relativistic game needs both (Y. Huang et al., "The GAN is dead; long live the GAN!",
    NeurIPS 2024, section 2.2).
    """
    (gradients,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradients.square().sum(dim=(1, 2, 3)).mean()
