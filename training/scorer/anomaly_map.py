"""Heat maps of where an image is unusual: at each pixel, 1 % of normal images exceed 1."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.data.arrays import Array

SMOOTH = 1 / 28  # standard deviation of the blur of the residual, as a share of the side
RARE = 0.99
FLOOR = 0.05  # smallest scale, as a share of the largest: a speck on a pixel that is usually empty must not dominate


class AnomalyMap(nn.Module):
    """Residual nats [N,H,W] and defect logits [N,H,W] to a map [N,H,W].

    Each is divided by its 99 % quantile over normal images at that pixel. The larger of the two is divided by its own
    99 % quantile.

    Args:
        residual: of normal images [n,H,W].
        defects: of the same [n,H,W].
    """

    kernel: Tensor
    residual_scale: Tensor
    defect_scale: Tensor
    scale: Tensor

    def __init__(self, residual: Array, defects: Array) -> None:
        super().__init__()
        height, width = residual.shape[1:]
        radius = max(1, round(2 * SMOOTH * max(height, width)))
        offsets = np.arange(-radius, radius + 1) / (SMOOTH * max(height, width))
        kernel = np.exp(-0.5 * offsets**2)
        self.radius = radius
        self.register_buffer("kernel", torch.from_numpy((kernel / kernel.sum()).astype(np.float32)))
        for name in ("residual_scale", "defect_scale", "scale"):
            self.register_buffer(name, torch.ones(height, width))
        with torch.no_grad():
            smooth, found = self._layers(torch.from_numpy(residual), torch.from_numpy(defects))
            for name, maps in (("residual_scale", smooth), ("defect_scale", found)):
                scale = _rare(maps)
                setattr(self, name, scale.clamp(min=max(FLOOR * scale.max().item(), 1e-6)))
            # At least 1: if both are always small, usual values must not look unusual.
            self.scale = _rare(self(torch.from_numpy(residual), torch.from_numpy(defects))).clamp(min=1)

    def _layers(self, residual: Tensor, defects: Tensor) -> tuple[Tensor, Tensor]:
        padded = F.pad(residual[:, None], (self.radius,) * 4)
        rows = F.conv2d(padded, self.kernel[None, None, :, None])
        return F.conv2d(rows, self.kernel[None, None, None, :])[:, 0], defects.sigmoid()

    def forward(self, residual: Tensor, defects: Tensor) -> Tensor:
        smooth, found = self._layers(residual, defects)
        return torch.maximum(smooth / self.residual_scale, found / self.defect_scale) / self.scale


def _rare(maps: Tensor) -> Tensor:
    """The 99 % quantile of each pixel [H,W]."""
    return torch.from_numpy(np.quantile(maps.numpy(), RARE, axis=0).astype(np.float32))
