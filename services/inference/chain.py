"""Metropolis-Hastings sampling of a GAN by its calibrated discriminator; it needs no gradients, only the graphs.

Source: R. Turner, J. Hung, E. Frank, Y. Saatchi, J. Yosinski, "Metropolis-Hastings generative adversarial networks",
ICML 2019. Proposals are independent samples of the generator. With a discriminator D(x) = sigmoid(r(x)), where r
estimates the logarithm of the densities' ratio, the acceptance of their equation 4 is
min(1, exp(r(proposal) - r(current))).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from services.inference.noise import streams

STEPS = 32  # proposals for each image, the first sample included
STRIDE = 2**32  # between the numbers of an item's draws: larger than the number of items in any request
COINS = 2**62  # larger than the numbers of all draws


class Chains:
    """One chain for each item; the random numbers of its acceptances depend on the seed and the item only.

    Args:
        seed: the seed of the latents.
        items: the numbers of the items.

    Attributes:
        images: the last sample of each chain, [N,C,H,W].
    """

    def __init__(self, seed: int, items: Sequence[int]) -> None:
        self.images: np.ndarray = np.empty(0, np.uint8)
        self._items = items
        coins = [stream.random(STEPS) for stream in streams(seed, [COINS + item for item in items])]
        self._log_coins = np.log(np.stack(coins, axis=1))
        self._current = np.full(len(items), -np.inf)
        self._step = 0

    def draws(self) -> Iterator[list[int]]:
        """The numbers of the next draws to propose, one step of all chains at a time."""
        return ([item + step * STRIDE for item in self._items] for step in range(STEPS))

    def propose(self, images: np.ndarray, log_ratios: np.ndarray) -> None:
        """Take a step with proposals [N,C,H,W] and their r(x) [N]; the first proposals are always accepted."""
        accepted = self._log_coins[self._step] < log_ratios - self._current
        self._current = np.where(accepted, log_ratios, self._current)
        self.images = np.where(accepted[:, None, None, None], images, self.images) if self._step else images
        self._step += 1
