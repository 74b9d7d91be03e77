"""Cache keys: content-addressed, one an item.

A key hashes everything that the answer depends on, in an encoding that no two inputs share, to 160 bits (BLAKE2b,
RFC 7693). The bundle's digest takes part, so a retrained model never meets old answers; it also stands in clear in the
key, so that one model's answers can be found and dropped.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from services.caching.rows import item_rows

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
    arrays = []
    signature: list[Hashable] = []
    for name in sorted(inputs):
        array = inputs[name]
        arrays.append(array)
        signature += (name, array.dtype, array.shape[1:])
    space, base = _base(digest, operation, *signature)
    keys = []
    for row in item_rows(arrays, count):
        # The header fixes dtypes and shapes, so every array's bytes have a known length: no separator is needed.
        item = base.copy()
        item.update(row)
        keys.append(space + item.hexdigest())
    return keys


@lru_cache(maxsize=256)
def _base(digest: str, operation: str, *signature: Any) -> tuple[str, blake2b]:
    """The namespace, and the hash of all that the items of a batch have in common; to be copied, never updated.

    `signature` is name, dtype and shape of an item of every input, one after another.
    """
    described = [part.str if isinstance(part, np.dtype) else part for part in signature]
    header = json.dumps([SCHEMA, digest, operation, described]).encode()
    return namespace(digest), blake2b(len(header).to_bytes(8, "little") + header, digest_size=20)
