"""A moving average of a network's weights, which is kept in place of the last weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class ExponentialMovingAverage(AveragedModel):
    """An exponential moving average of a network's weights and buffers; the averaged network is `module`.

    A step's weights have half their influence left `half_life` images later, whatever the batch size (T. Karras et al.,
    "Elucidating the design space of diffusion-based generative models", NeurIPS 2022, appendix F.2). At first the decay
    grows as (1 + t) / (10 + t) over the steps t (Y. Yazıcı et al., "The unusual effectiveness of averaging in GAN
    training", ICLR 2019, averages without it).

    Args:
        network: copied.
        half_life: in images; with batches of 64, a decay of 0.99 a step is 4,414 images, and 0.999 is 44,339.
        batch_size: images in a step, over all processes.
    """

    def __init__(self, network: nn.Module, *, half_life: float, batch_size: int) -> None:
        largest = 0.5 ** (batch_size / half_life)

        def averaged(average: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
            if not average.is_floating_point():
                return value
            return average.lerp(value, 1 - min(largest, int(count) / (9 + int(count))))

        super().__init__(network, avg_fn=averaged, use_buffers=True)
        # From 1 on, because at 0 `AveragedModel` takes the first step's weights without averaging.
        self.n_averaged = torch.ones_like(self.n_averaged)
