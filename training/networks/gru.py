"""A recurrent classifier that reads an image row by row.

Source: K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical machine translation",
EMNLP 2014 (the gated recurrent unit); rows as time steps as in Q. V. Le, N. Jaitly, G. E. Hinton, "A simple way to
initialize recurrent networks of rectified linear units", arXiv:1504.00941, who read pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class GRUConfig:
    hidden: int = 128

    def build(self, image_shape: tuple[int, int, int], classes: int) -> GRU:
        return GRU(self, image_shape, classes)


class GRU(nn.Module):
    """Each time step reads one row [C * W], from top to bottom; a dense layer maps the last state to K logits.

    Args:
        config: the size of the state.
        image_shape: (C, H, W).
        classes: K.
    """

    def __init__(self, config: GRUConfig, image_shape: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        channels, _, width = image_shape
        self.read = nn.GRU(channels * width, config.hidden, batch_first=True)
        self.classify = nn.Linear(config.hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Pixels in 0..1 [N, C, H, W] -> logits [N, K]."""
        _, last = self.read((2 * x - 1).transpose(1, 2).flatten(2))
        logits: Tensor = self.classify(last[0])
        return logits
