"""The last stage of a scorer's graph: from the outputs of the parts to score, p-value, heat map and statistics."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.scorer.anomaly_map import AnomalyMap
from training.scorer.fusion import TailNegLogProb, fused
from training.scorer.statistics import Statistics


class ScoreHead(nn.Module):
    """The parts' tensors, by name, to the outputs of `score.onnx` (see services/inference/bundle.py).

    Args:
        statistics, surprise, heat: fitted.
        coreset: normal training images uint8 [M,C,H,W], those of the statistics' coreset.
        scores: of the calibration images float32 [n]; None before calibration, and then the graph has no p-value.
        labels: int64 [n], their predicted classes; None for data without classes.
        classes: K; 0 for data without classes.
    """

    looks: Tensor
    scores: Tensor
    labels: Tensor
    counts: Tensor

    def __init__(
        self,
        statistics: Statistics,
        surprise: TailNegLogProb,
        heat: AnomalyMap,
        coreset: NDArray[np.uint8],
        *,
        scores: NDArray[np.float32] | None = None,
        labels: NDArray[np.int64] | None = None,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.statistics, self.surprise, self.heat = statistics, surprise, heat
        self.classes = classes
        self.register_buffer("looks", torch.from_numpy(coreset))
        self.calibrated, self.by_class = scores is not None, scores is not None and labels is not None
        if scores is not None:
            self.register_buffer("scores", torch.from_numpy(scores))
        if scores is not None and labels is not None:
            self.register_buffer("labels", torch.from_numpy(labels))
            self.register_buffer("counts", torch.from_numpy(np.bincount(labels, minlength=classes).astype(np.float32)))
        self.outputs = (
            "score",
            *(("p_value",) if self.calibrated else ()),
            *(("class_p_value",) if self.by_class else ()),
            *("residual", "statistics", "look_alike"),
        )

    def table(self) -> tuple[Tensor, ...]:
        """What p-values are looked up in: the calibration scores, their classes, and the number of each class."""
        return (*((self.scores,) if self.calibrated else ()), *((self.labels, self.counts) if self.by_class else ()))

    def forward(
        self,
        images: Tensor,
        mean: Tensor,
        pixels: Tensor,
        defects: Tensor,
        logits: Tensor | None = None,
        features: Tensor | None = None,
        texture: Tensor | None = None,
        views: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        given = {"images": images, "mean": mean, "pixels": pixels, "defects": defects}
        optional = {"logits": logits, "features": features, "texture": texture, "views": views}
        given |= {name: tensor for name, tensor in optional.items() if tensor is not None}
        values, residual, rows = self.statistics(given)
        surprises = self.surprise(values)
        score = fused(surprises, self.statistics.names)
        results = [score]
        if self.calibrated:
            at_least = self.scores >= score[:, None]
            results.append(p_value(at_least, len(self.scores)))
            if self.by_class and logits is not None:
                label = logits.argmax(dim=1)
                results.append(p_value(at_least & (self.labels == label[:, None]), self.counts[label]))
        return (*results, self.heat(residual, defects), surprises, self.looks[rows])


def p_value(at_least: Tensor, count: Tensor | int) -> Tensor:
    """(1 + #{calibration >= score}) / (n + 1) from bool [N,n] (Vovk et al., 2005; Bates et al., 2023, eq. 2)."""
    return (1 + at_least.sum(dim=1)).float() / (count + 1)
