"""Sampling noise, drawn outside the graphs, so that a seed gives the same latents on every replica and batch size.

Source: Salmon et al. (2011), "Parallel random numbers: as easy as 1, 2, 3" (Philox, a counter-based generator).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

SEED_LIMIT = 2**63


def fresh_seed() -> int:
    """A seed for a request without one: below 2^53, because JavaScript reads JSON numbers as doubles."""
    return secrets.randbelow(2**53)


def streams(seed: int, items: Sequence[int]) -> Iterator[np.random.Generator]:
    """The Philox stream of each item in turn, from its beginning; it is valid until the next one is taken."""
    bits = np.random.Philox(key=(seed, 0))
    stream, key = np.random.Generator(bits), [seed, 0]
    # Lists: numpy reads them number by number, which costs three times as much for arrays.
    state: Any = {**bits.state, "state": {"counter": [0] * 4, "key": key}, "buffer": [0] * 4}
    for item in items:
        key[1] = item
        bits.state = state  # a new generator for each item would cost forty times as much
        yield stream


def latents(seed: int, items: Sequence[int], size: int, *, truncation: float = 1.0) -> np.ndarray:
    """Standard normal latents float32 [len(items), size], one Philox stream for each item.

    Item i depends on `seed` and i only, so a request for 4 samples gives the first 4 of a request for 64.

    Args:
        seed: 0 to 2^63 - 1.
        items: their numbers, 0 to 2^63 - 1.
        size: the latent size D.
        truncation: scale of the latents; below 1, samples are more typical and less diverse.
    """
    drawn = np.empty((len(items), size))
    for row, stream in zip(drawn, streams(seed, items), strict=True):
        stream.standard_normal(out=row)
    return (truncation * drawn).astype(np.float32)
