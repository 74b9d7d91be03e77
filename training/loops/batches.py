"""Batches by index from uint8 arrays in memory: without worker processes, in the same order after a resume."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from training.data import Split


def step_seed(*position: int) -> int:
    """A well-mixed seed for a position such as (seed, epoch, step, rank).

    Noise that depends only on the position needs no saved generator state, for any number of processes. The length
    is part of the position: NumPy fills short ones up with zeros, so that (1, 2) and (1, 2, 0, 0) were the same.
    """
    return int(np.random.SeedSequence((len(position), *position)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def steps_per_epoch(count: int, size: int) -> int:
    """Batches of `size` in `count` images; the rest is left out of the epoch, a different rest in each epoch."""
    return max(1, count // size)


class Images:
    """A split as tensors in memory: images uint8 [N, C, H, W] and labels int64 [N], 0 for data without labels."""

    def __init__(self, split: Split, device: torch.device) -> None:
        self.images = torch.tensor(split.images)
        self.labels = torch.zeros(len(split.images), dtype=torch.int64)
        if split.labels is not None:
            self.labels = torch.tensor(split.labels)
        self.device = device

    def __len__(self) -> int:
        return len(self.images)

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels in 0..1 [n, C, H, W] and labels [n] on the device."""
        images, labels = self.images[indices].to(self.device), self.labels[indices].to(self.device)
        return images.float() / 255, labels

    def in_order(self, size: int = 500) -> Iterator[tuple[Tensor, Tensor]]:
        for indices in torch.split(torch.arange(len(self)), size):
            yield self.at(indices)


def batches(
    images: Images, size: int, *, seed: int, epoch: int, start: int, rank: int, world: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """An epoch's batches from step `start` on; of each batch, this process gets every world-th image."""
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(step_seed(seed, epoch)))
    for step in range(start, steps_per_epoch(len(images), size)):
        indices = order[step * size : (step + 1) * size]
        yield images.at(indices[: len(indices) // world * world][rank::world])
