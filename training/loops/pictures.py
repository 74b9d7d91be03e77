"""Pictures of a run: grids of images while it trains, curves of its losses at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
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


def save_losses(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write the curves of a metrics log, a panel a term: training solid, validation dashed."""
    terms = list(
        dict.fromkeys(name for record in records for kind in ("losses", "validation") for name in record[kind])
    )
    figure = Figure(figsize=(4 * len(terms), 3), layout="constrained")
    panels = figure.subplots(1, len(terms), squeeze=False)[0]
    for panel, term in zip(panels, terms, strict=True):
        for kind, line in (("losses", "-"), ("validation", "--")):
            if measured := [(record["epoch"] + 1, record[kind][term]) for record in records if term in record[kind]]:
                label = "training" if kind == "losses" else "validation"
                panel.plot(*zip(*measured, strict=True), line, label=label)
        panel.set(title=term, xlabel="epoch")
        panel.legend()
    figure.savefig(path, dpi=100)
