"""Cache keys: content-addressed, one an item.

A key hashes everything that the answer depends on, in an encoding that no two inputs share, to 160 bits (BLAKE2b,
RFC 7693). The bundle's digest takes part, so a retrained model never meets old answers; it also stands in clear in the
key, so that one model's answers can be found and dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

SCHEMA = 2  # of keys and of the values behind them: during a rollout neither release meets the other's
PREFIX = "duet"


def namespace(digest: str) -> str:
    """The prefix of every key of one bundle."""
    return f"{PREFIX}:{SCHEMA}:{digest[:16]}:"


def item_keys(digest: str, operation: str, inputs: Mapping[str, np.ndarray], count: int) -> list[str]:
    """One key for each of the `count` items (rows) of `inputs`.

    Args:
        digest: the bundle's full digest, hex.
        operation: what is computed.
        inputs: arrays whose first axis is the batch; parameters that change the answer are inputs too.
        count: the batch size.
    """
    names = sorted(inputs)
    # `tobytes` is C order whatever the array's own order is.
    contents = [inputs[name].tobytes() for name in names]
    space, base = _base(digest, operation, *[(name, inputs[name].dtype, inputs[name].shape[1:]) for name in names])
    rows = [(content, len(content) // count) for content in contents]
    keys = []
    for row in range(count):
        item = base.copy()
        for content, size in rows:
            # The header fixes dtype and shape, so every array's bytes have a known length: no separator is needed.
            item.update(content[row * size : row * size + size])
        keys.append(space + item.hexdigest())
    return keys


@lru_cache(maxsize=256)
def _base(digest: str, operation: str, *arrays: tuple[str, np.dtype[Any], tuple[int, ...]]) -> tuple[str, blake2b]:
    """The namespace, and the hash of all that the items of a batch have in common; to be copied, never updated."""
    signature = [(name, dtype.str, shape) for name, dtype, shape in arrays]
    header = json.dumps([SCHEMA, digest, operation, signature]).encode()
    return namespace(digest), blake2b(len(header).to_bytes(8, "little") + header, digest_size=20)
