"""The classic convolutional classifier.

Source: Y. LeCun, L. Bottou, Y. Bengio, P. Haffner, "Gradient-based learning applied to document recognition",
Proc. IEEE 86 (1998), in today's usual form: ReLU, max pooling, padded 3x3 filters.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class CNNConfig:
    channels: tuple[int, int] = (32, 64)
    hidden: int = 64

    def build(self, image_shape: tuple[int, int, int], classes: int) -> CNN:
        return CNN(self, image_shape, classes)


class CNN(nn.Module):
    """conv 3x3, pool, conv 3x3, pool, dense, dense K.

    Args:
        config: the sizes of the layers.
        image_shape: (C, H, W), H and W at least 4.
        classes: K.
    """

    def __init__(self, config: CNNConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, height, width = image_shape
        first, second = config.channels
        self.layers = nn.Sequential(
            nn.Conv2d(channels, first, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(first, second, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(second * (height // 4) * (width // 4), config.hidden),
            nn.ReLU(),
            nn.Linear(config.hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] -> logits [N, K]."""
        logits: Tensor = self.layers(x)
        return logits
