"""Wraps scikit-learn classifiers as `nn.Module`, for the same export and calibration."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Scores(nn.Module):
    """Pixels in 0..1 [N,C,H,W] to the scores [N,K] of a fitted estimator, by its own `decision_function`.

    Args:
        estimator: fitted on float32 rows of C * H * W pixels.
        image_shape: (C, H, W).
    """

    def __init__(self, estimator: Any, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.estimator, self.image_shape = estimator, image_shape

    def forward(self, x: Tensor) -> Tensor:
        scores = torch.from_numpy(self.estimator.decision_function(x.flatten(1).numpy())).float()
        return scores if scores.ndim == 2 else torch.stack([-scores, scores], dim=1)  # one score for two classes
