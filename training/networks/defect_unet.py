"""A small U-Net that predicts for every pixel whether it fits its surroundings.

Source: O. Ronneberger, P. Fischer, T. Brox, "U-Net", MICCAI 2015; training: see training/loops/defects.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

RARE = -4.0  # initial logit of a pasted pixel, because most pixels are not


@dataclass(frozen=True)
class DefectUNetConfig:
    """Channels at full size; twice and four times as many at half and a quarter of it."""

    channels: int = 12

    def build(self, image_shape: tuple[int, int, int]) -> DefectUNet:
        return DefectUNet(self, image_shape)


class ResidualBlock(nn.Module):
    """x + BN(conv(ReLU(BN(conv x)))), then ReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.layers(x))


class DefectUNet(nn.Module):
    """From full size to half, a quarter, and back, with skip connections between equal sizes.

    Args:
        config: the sizes.
        image_shape: (C, H, W), H and W divisible by 4.

    Raises:
        ValueError: a side is not divisible by 4.
    """

    def __init__(self, config: DefectUNetConfig, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, height, width = image_shape
        if height % 4 or width % 4:
            message = f"image shape {image_shape}: the defect network needs sides divisible by 4; change --image-size"
            raise ValueError(message)
        base = config.channels
        self.fine = nn.Sequential(nn.Conv2d(channels, base, 3, padding=1, bias=False), nn.BatchNorm2d(base), nn.ReLU())
        self.middle = nn.Sequential(
            nn.Conv2d(base, 2 * base, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(2 * base),
            nn.ReLU(),
            ResidualBlock(2 * base),
        )
        self.coarse = nn.Sequential(
            nn.Conv2d(2 * base, 4 * base, 4, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(4 * base),
            nn.ReLU(),
            ResidualBlock(4 * base),
            ResidualBlock(4 * base),
            nn.Conv2d(4 * base, 8 * base, 1),
            nn.PixelShuffle(2),
        )
        self.up = nn.Sequential(ResidualBlock(2 * base), nn.Conv2d(2 * base, 4 * base, 1), nn.PixelShuffle(2))
        self.fine_again = nn.Sequential(
            nn.Conv2d(2 * base, base, 3, padding=1, bias=False),
            nn.BatchNorm2d(base),
            nn.ReLU(),
            last := nn.Conv2d(base, 1, 3, padding=1),
        )
        nn.init.constant_(last.bias, RARE)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] -> logits that a pixel is pasted [N, H, W]."""
        fine = self.fine(2 * x - 1)
        half = self.middle(fine)
        half = self.up(half + self.coarse(half))
        logits: Tensor = self.fine_again(torch.cat([fine, half], dim=1))
        return logits[:, 0]


def pixel_loss(logits: Tensor, changed: Tensor) -> Tensor:
    """Mean cross-entropy over the pixels, nats; `changed` is 0 or 1 [N, H, W]."""
    return F.binary_cross_entropy_with_logits(logits, changed)
