"""Learning rates as functions of progress: without a state, so equal after a resume."""

from __future__ import annotations

import math
from typing import Literal

from torch.optim import Optimizer

Schedule = Literal["constant", "cosine", "decay"]


def learning_rate(schedule: Schedule, peak: float, progress: float) -> float:
    """The rate after the share `progress` (0..1) of all steps.

    constant: the peak. cosine: linear warm-up over the first 15 %, then half a cosine to 0 (I. Loshchilov, F. Hutter,
    "SGDR", ICLR 2017, equation 5, one period). decay: the peak until 60 %, then linear to 2 % of it.
    """
    if schedule == "cosine":
        warm_up = 0.15
        if progress < warm_up:
            return peak * max(progress / warm_up, 0.01)
        return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))
    if schedule == "decay" and progress > 0.6:
        return peak * (1 - 0.98 * (progress - 0.6) / 0.4)
    return peak


def set_learning_rate(optimizer: Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate
