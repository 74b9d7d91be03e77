"""Cache keys: content-addressed, one for each item.

A key hashes everything that the answer depends on to 160 bits (BLAKE2b, RFC 7693); the encoding of two different
inputs always differs. The bundle's digest is part of the hash, so a retrained model never gets old answers. So are the
processor's architecture and the version of ONNX Runtime, which may round otherwise: replicas that differ in one of them
share no answers. The digest also stands in clear in the key, so that the answers of one model can be found and deleted.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Hashable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from services.caching.rows import item_rows

SCHEMA = 3  # version of keys and values: two releases with different schemas do not share entries
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
    """The namespace, and the hash of what the items of a batch have in common; copy it, never update it.

    `signature` holds, for every input, its name and the dtype and shape of one item.
    """
    import onnxruntime  # noqa: PLC0415  # the parent process and `duet cache` need no runtime (29 MB)

    computer = platform.machine(), onnxruntime.__version__
    described = [part.str if isinstance(part, np.dtype) else part for part in signature]
    header = json.dumps([SCHEMA, digest, computer, operation, described]).encode()
    return namespace(digest), blake2b(len(header).to_bytes(8, "little") + header, digest_size=20)
