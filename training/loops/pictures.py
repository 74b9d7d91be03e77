"""Pictures of a run: grids of images while it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor


def save_grid(path: Path, pixels: Tensor, *, columns: int) -> None:
    """Write images, pixels in 0..1 [N, C, H, W], row by row as one PNG; the last row is filled with black."""
    n, channels, height, width = pixels.shape
    rows = -(-n // columns)
    tiles = np.zeros((rows * columns, channels, height, width), np.uint8)
    tiles[:n] = (pixels * 255).round().byte().cpu().numpy()
    grid = tiles.reshape(rows, columns, channels, height, width).transpose(0, 3, 1, 4, 2)
    grid = grid.reshape(rows * height, columns * width, channels)
    Image.fromarray(grid.squeeze(2) if channels == 1 else grid).save(path)
