"""From statistics to one p-value: ranks on one split, a fixed sum, and a conformal p-value on another split.

Split A (the validation split) gives the rank of each value of a statistic. Split B (the calibration split) gives the
rank of the sum; nothing else is fitted on it. So the p-value from B is valid, whatever the dependence between the
statistics; a sum or mean of dependent p-values would not be valid (V. Vovk, A. Gammerman, G. Shafer, 2005; S. Bates et
al., "Testing for outliers with conformal p-values", Annals of Statistics 2023).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from training.data.arrays import Array
from training.scorer.weights import weights

POINTS = 128  # quantiles that represent the distribution of a statistic; linear between them
BODY = 0.95  # share of the ranks; above it the tail is exponential
LEAST = 0.05  # smallest mean excess in standard deviations (a uniform distribution has 0.09): avoids a too steep tail
MOST = 60.0  # largest surprise in nats, against overflow


class TailNegLogProb(nn.Module):
    """Statistics [N,S] to -log of the share of normal images with at least such a value, nats [N,S].

    Up to the 95 % quantile it is the rank among the images of split A. Above it is an exponential tail with the mean
    excess, so that extreme values still differ. A two-sided statistic has twice the share of its rarer side.

    Args:
        normal: statistics of split A [n,S].
        two_sided: which of the S statistics are also unusual when they are low.
    """

    high_quantiles: Tensor
    high_excess: Tensor
    low_quantiles: Tensor
    low_excess: Tensor
    two_sided: Tensor

    def __init__(self, normal: Array, two_sided: Sequence[bool]) -> None:
        super().__init__()
        sides = [(_tail(normal[:, i]), _tail(-normal[:, i])) for i in range(normal.shape[1])]
        for side, name in enumerate(("high", "low")):
            quantiles, excess = zip(*(pair[side] for pair in sides), strict=True)
            self.register_buffer(f"{name}_quantiles", torch.from_numpy(np.stack(quantiles)))
            self.register_buffer(f"{name}_excess", torch.tensor(excess))
        self.register_buffer("two_sided", torch.tensor([float(two) for two in two_sided]))

    def forward(self, statistics: Tensor) -> Tensor:
        high = self._surprise(statistics, self.high_quantiles, self.high_excess)
        low = self._surprise(-statistics, self.low_quantiles, self.low_excess)
        either = (torch.maximum(high, low) - np.log(2)).clamp(min=0)
        return torch.where(self.two_sided > 0, either, high)

    def _surprise(self, values: Tensor, quantiles: Tensor, excess: Tensor) -> Tensor:
        # One ramp from 1 to 0 between two quantiles: at a step, a difference in the last bit would change the result.
        lower, upper = quantiles[:, :-1], quantiles[:, 1:]
        ramps = ((upper - values[:, :, None]) / (upper - lower)).clamp(min=0, max=1)
        body = -torch.log(BODY * ramps.mean(dim=2) + 1 - BODY)
        beyond = -np.log(1 - BODY) + (values - quantiles[:, -1]) / excess
        return torch.where(values > quantiles[:, -1], beyond, body).clamp(min=0.0, max=MOST)


def _tail(values: Array) -> tuple[Array, float]:
    """Quantiles 0 to 95 % [POINTS] of one statistic, and the mean excess over the last."""
    values = values.astype(np.float64)
    quantiles = np.quantile(values, np.linspace(0, BODY, POINTS))
    over = values[values > quantiles[-1]] - quantiles[-1]
    largest = float(np.abs(values).max())
    scale = max(float(values.std()), 1e-6 * largest) or 1.0
    # Equal quantiles are moved apart by a negligible amount, so that no ramp is a step; they must differ in float32.
    apart = max(1e-6 * scale, 2 * float(np.finfo(np.float32).eps) * largest)
    quantiles += apart * np.arange(POINTS)
    return quantiles.astype(np.float32), max(float(over.mean()) if len(over) else 0.0, LEAST * scale)


def fused(surprises: Tensor, names: Sequence[str]) -> Tensor:
    """One score T [N] of surprises [N,S] of the statistics `names`: a weighted sum of squares.

    The sum of squares lies between Fisher's sum, which adds many weak signs, and the maximum, which uses only one.
    """
    weight, least = (torch.tensor(values) for values in weights(names))
    counted = (surprises - least).clamp(min=0)
    return (weight * counted.square()).sum(dim=1)
