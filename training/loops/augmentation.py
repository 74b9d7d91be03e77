"""Random affine maps of whole batches, differentiable, so that they serve a discriminator as well.

Source: S. Zhao et al., "Differentiable augmentation for data-efficient GAN training", NeurIPS 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Affine:
    """The largest rotation (radians), relative scale, shear and shift (in half image sides), each drawn uniformly."""

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Map each of the images [N, C, H, W] by its own draw; what comes in from outside is 0."""
        n = len(images)
        draw = 2 * torch.rand(n, 6, device=images.device) - 1
        angle = self.rotation * draw[:, 0]
        cos, sin = torch.cos(angle), torch.sin(angle)
        width, height = 1 + self.scale * draw[:, 1], 1 + self.scale * draw[:, 2]
        shear = self.shear * draw[:, 3]
        theta = torch.stack(
            [
                torch.stack([width * cos, height * (shear * cos - sin), self.shift * draw[:, 4]], dim=1),
                torch.stack([width * sin, height * (shear * sin + cos), self.shift * draw[:, 5]], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta, list(images.shape), align_corners=False)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def unchanged(images: Tensor) -> Tensor:
    return images
