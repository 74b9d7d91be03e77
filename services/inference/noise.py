"""Sampling noise, drawn outside the graphs so that a seed means the same on every replica and batch size.

Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox, a counter-based generator).
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

import numpy as np

SEED_LIMIT = 2**63


def fresh_seed() -> int:
    """A seed for a request that gave none."""
    return secrets.randbelow(SEED_LIMIT)


def latents(seed: int, items: Sequence[int], size: int, *, truncation: float = 1.0) -> np.ndarray:
    """Standard normal latents float32 [len(items), size], one Philox stream an item.

    Item i depends on `seed` and i only, so the first 4 of 64 samples are the 4 of a request for 4.

    Args:
        seed: 0 to 2^63 - 1.
        items: their numbers, 0 to 2^63 - 1.
        size: the latent size D.
        truncation: scale of the latents; below 1 samples are more typical and less diverse.
    """
    rows = [np.random.Generator(np.random.Philox(key=(seed, item))).standard_normal(size) for item in items]
    drawn = np.stack(rows) if rows else np.zeros((0, size))
    return (truncation * drawn).astype(np.float32)
