"""A small residual classifier with batch normalisation.

Source: K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016 (figure 2, the
original order: ReLU after the sum); the last gain of a block starts at zero (P. Goyal et al., arXiv:1706.02677, 5.1).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ResidualCNNConfig:
    """Channels of the first stage, and residual blocks in each of the two stages."""

    channels: int = 32
    blocks: int = 1

    def build(self, image_shape: tuple[int, int, int], classes: int) -> ResidualCNN:
        return ResidualCNN(self, image_shape, classes)


class ResidualBlock(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            last := nn.BatchNorm2d(channels),
        )
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        # ReLU after the sum: relu(0) has gradient 0, so a zero-gain branch that ends in a ReLU would never learn.
        return torch.relu(x + self.layers(x))


class ResidualCNN(nn.Module):
    """Half-resolution stem, residual blocks, pool, twice the channels, residual blocks, mean over pixels, dense K.

    The mean is directly before the dense layer, so that the logit of a class is the mean of a map: see `Classify`.

    Args:
        config: the sizes.
        image_shape: (C, H, W), H and W at least 4.
        classes: K.
    """

    def __init__(self, config: ResidualCNNConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        width = config.channels
        self.layers = nn.Sequential(
            # 6x6 with stride 2 equals space-to-depth and 3x3: cheaper than 3x3 at full size and pooling.
            nn.Conv2d(image_shape[0], width, 6, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            *(ResidualBlock(width) for _ in range(config.blocks)),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3, padding=1, bias=False),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            *(ResidualBlock(2 * width) for _ in range(config.blocks)),
        )
        self.classify = nn.Linear(2 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] -> logits [N, K]."""
        logits: Tensor = self.classify(self.features(x).mean(dim=(2, 3)))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] -> the last maps [N, 2 * channels, H // 4, W // 4]."""
        maps: Tensor = self.layers(2 * x - 1)
        return maps
