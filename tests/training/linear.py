"""Networks that are linear in the pixels, so that arithmetic can follow them, and images for them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.arrays import philox

SHAPE = (1, 6, 5)  # not square, so that no axis can stand for another


class Linear(nn.Module):
    """Logits linear in the pixels, `gain` times as large as PyTorch would start them."""

    def __init__(self, gain: float = 1.0, dropout: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(30, 10)
        self.layer.weight.data *= gain
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layer(x.flatten(1))
        return F.dropout(logits, training=True) if self.dropout else logits


class LinearVAE(nn.Module):
    latent_size = 3

    def __init__(self, gain: float = 1.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mean, self.log_variance = nn.Linear(30, 3), nn.Linear(30, 3)
        self.decoder = nn.Linear(3, 30)
        self.decoder.weight.data *= gain

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(x.flatten(1)), self.log_variance(x.flatten(1))

    def decode(self, z: Tensor) -> Tensor:
        logits: Tensor = self.decoder(z).view(-1, *SHAPE)
        return logits


def images(count: int = 64, seed: int = 0) -> np.ndarray:
    """Random images with plenty of pixels at 0 and 255, where x log x is delicate."""
    drawn = philox(seed).integers(-128, 384, (count, *SHAPE))
    return drawn.clip(0, 255).astype(np.uint8)
