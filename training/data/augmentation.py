"""Random changes of whole batches, with an independent draw for each image.

All are differentiable, so a discriminator can use them too (S. Zhao et al., "Differentiable augmentation for
data-efficient GAN training", NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

Augmentation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Affine:
    """The largest rotation (radians), relative scale, shear and shift (in half image sides), each drawn uniformly."""

    rotation: float = 0.0
    scale: float = 0.0
    shear: float = 0.0
    shift: float = 0.0

    def __call__(self, images: Tensor) -> Tensor:
        """Map each of the images [N, C, H, W] by its own draw; pixels from outside are 0."""
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


@dataclass(frozen=True)
class Flip:
    """Mirror left and right, with the given probability."""

    probability: float = 0.5

    def __call__(self, images: Tensor) -> Tensor:
        chosen = torch.rand(len(images), 1, 1, 1, device=images.device) < self.probability
        return torch.where(chosen, images.flip(3), images)


@dataclass(frozen=True)
class Shift:
    """Shift by whole pixels up or down and left or right, at most so many; pixels from outside are 0."""

    pixels: int

    def __call__(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        padded = F.pad(images, [self.pixels] * 4)
        top, left = torch.randint(2 * self.pixels + 1, (2, n, 1), device=images.device)
        rows = (top + torch.arange(height, device=images.device))[:, None, :, None]
        columns = (left + torch.arange(width, device=images.device))[:, None, None, :]
        first = torch.arange(n, device=images.device)[:, None, None, None]
        channels = torch.arange(images.shape[1], device=images.device)[None, :, None, None]
        return padded[first, channels, rows, columns]


@dataclass(frozen=True)
class Cutout:
    """A square of zeros, `side` pixels wide, around a pixel drawn from the whole image; the border may cut it.

    Source: T. DeVries, G. W. Taylor, "Improved regularization of convolutional neural networks with Cutout",
    arXiv:1708.04552.
    """

    side: int
    probability: float = 0.5

    def __call__(self, images: Tensor) -> Tensor:
        n, _, height, width = images.shape
        chosen = torch.rand(n, 1, 1, device=images.device) < self.probability
        rows, columns = (self._around_a_pixel(n, size, images.device) for size in (height, width))
        hidden = rows[:, :, None] & columns[:, None, :] & chosen
        return images.masked_fill(hidden[:, None], 0.0)

    def _around_a_pixel(self, n: int, size: int, device: torch.device) -> Tensor:
        """Which of `size` positions are in the square, along one axis: bool [n, size]."""
        offset = torch.arange(size, device=device) - torch.randint(size, (n, 1), device=device) + self.side // 2
        return (offset >= 0) & (offset < self.side)


@dataclass(frozen=True)
class Compose:
    """One augmentation after the other."""

    steps: tuple[Affine | Flip | Shift | Cutout, ...]

    def __call__(self, images: Tensor) -> Tensor:
        for step in self.steps:
            images = step(images)
        return images


def unchanged(images: Tensor) -> Tensor:
    return images
