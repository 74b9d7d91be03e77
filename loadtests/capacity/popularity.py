"""How often a cache of replicas answers, where few images are asked for often and many seldom.

Popularity follows Zipf's law: the image of rank k is asked for with a probability proportional to k^-s. Requests are
independent. A cache that drops the least recently used entry keeps an image for about the same time T after each
request for it (Che, Tung and Wang 2002), so with C entries T solves sum(1 - exp(-p_k T)) = C. T counts in requests, so
hit ratios do not depend on the rate, nor on how many replicas share it at random.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

SINGLE = 1000  # ranks that are counted one by one; those behind are counted in groups of about equal popularity
GROUPS = 2000


@dataclass(frozen=True)
class Popularity:
    """Zipf's law over `images` images with exponent `exponent`; the exponent 0 makes all equally popular."""

    images: int
    exponent: float

    @cached_property
    def _groups(self) -> tuple[np.ndarray, np.ndarray]:
        """Probability of an image in each group, and how many images the group has."""
        last = np.unique(np.geomspace(SINGLE, max(self.images, SINGLE), GROUPS).astype(np.int64))
        bounds = np.concatenate([np.arange(min(SINGLE, self.images) + 1), last[last > SINGLE]])
        sizes = np.diff(bounds)
        middle = np.sqrt((bounds[:-1] + 1.0) * bounds[1:])
        weights = middle**-self.exponent
        return weights / (weights * sizes).sum(), sizes

    def entries(self, requests: float) -> float:
        """Different images among so many requests."""
        each, sizes = self._groups
        return float((sizes * -np.expm1(-each * requests)).sum())

    def hits(self, requests: float) -> float:
        """The share of hits in a cache that holds what the last so many requests asked for."""
        each, sizes = self._groups
        return float((sizes * each * -np.expm1(-each * requests)).sum())

    def memory(self, entries: float) -> float:
        """Requests after which a full cache of so many entries drops an image that was not asked for again: T."""
        if entries >= self.images:
            return np.inf
        low, high = 0.0, float(entries)
        while self.entries(high) < entries:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.entries(middle) < entries else (low, middle)
        return high

    def hit_ratio(self, entries: float) -> float:
        """Of a warm cache with so many entries."""
        return 1.0 if entries >= self.images else self.hits(self.memory(entries))

    def cold(self, requests: float, entries: float) -> float:
        """The share of hits so many requests after the cache was empty."""
        return self.hits(min(requests, self.memory(entries)))

    def requests_until(self, share: float, entries: float) -> float:
        """Requests from an empty cache until its hits are this share of those of the warm one."""
        wanted = share * self.hit_ratio(entries)
        low, high = 0.0, 1.0
        while self.hits(high) < wanted:
            low, high = high, 2 * high
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if self.hits(middle) < wanted else (low, middle)
        return high

    def draw(self, random: np.random.Generator, count: int) -> np.ndarray:
        """Ranks from 0 of so many requests, int64 [count]; meant for some millions of images at most."""
        cumulated = np.cumsum(np.arange(1, self.images + 1, dtype=float) ** -self.exponent)
        return np.searchsorted(cumulated, random.random(count) * cumulated[-1], side="right").astype(np.int64)
