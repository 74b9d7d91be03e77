from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from training.loops.run import save_grid


@pytest.mark.parametrize("channels", [1, 3])
def test_grid_puts_images_row_by_row(tmp_path: Path, channels: int) -> None:
    pixels = torch.arange(5).view(5, 1, 1, 1).expand(5, channels, 4, 6) / 10
    save_grid(tmp_path / "grid.png", pixels, columns=3)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape[:2] == (8, 18)
    corners = grid[::4, ::6] if channels == 1 else grid[::4, ::6, 2]
    assert corners.tolist() == [[0, 26, 51], [76, 102, 0]]
